"""Many fits at once, of the same kind of distribution to the same data."""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key, default_float
from flowlib._programs import PROGRAMS
from flowlib._run_once import run_once
from flowlib._warn import warn_user
from flowlib.distributions import AbstractDistribution, VmapMixture
from flowlib.errors import NonFiniteWarning
from flowlib.train._arguments import check_flags, check_maker, check_standardise
from flowlib.train._data_units import Standardise, unit_filler
from flowlib.train._diagnose import narrow_floats
from flowlib.train._epochs import MAX_EPOCHS, EpochProblem, run_ensemble
from flowlib.train._explicit_axes import check_unsplit
from flowlib.train._fit_rows import begin, check_parts, rows_in_units
from flowlib.train._history import EnsembleHistory, EpochHistory, rose
from flowlib.train._loop import Callback, Loop
from flowlib.train._losses import MaximumLikelihoodLoss
from flowlib.train._optimizer import check_optimizer
from flowlib.train._options import check_ema, check_host_options, fit_limits
from flowlib.train._plan import Given
from flowlib.train._progress import warn_of_interrupt
from flowlib.train._state import FAILURES, Descent, Status, combined, trainable_half


def fit_ensemble_to_data(
    key: PRNGKeyArray,
    make_dist: Callable[[PRNGKeyArray], AbstractDistribution],
    data: Any,
    *,
    members: int = 5,
    learning_rate: ArrayLike | Callable[[Array], Any] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    max_epochs: int = 100,
    max_patience: float = 5,
    batch_size: int = 100,
    val_prop: float = 0.1,
    return_best: bool = True,
    show_progress: bool = True,
    weights: ArrayLike | None = None,
    val_data: Any = None,
    val_weights: ArrayLike | None = None,
    standardise: Standardise = True,
    support: Any = None,
    ema: float | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    checkpoint_keep: int = 3,
    checkpoint_errors: Literal["raise", "warn"] = "raise",
) -> tuple[VmapMixture, list[EpochHistory]]:
    """Fit several distributions from different starts to the same data by maximum likelihood, all in one program.

    Each member has its own initial parameters, rows for validation, order of rows and early stopping, as if it had
    been fitted alone. The mixture of the members has equal weights; its log density is nowhere below the mean of
    theirs (Jensen's inequality), and costs as many evaluations as there are members.

    A member whose loss or update is not finite stops with its best parameters so far; its report says "non-finite".

    Args:
        key: a JAX PRNG key, typed or legacy.
        make_dist: called with a key, gives a distribution; the members may differ in their arrays only.
        data: as in `fit_to_data`, arrays.
        members: how many.
        learning_rate: as in `fit_to_data`, as are all arguments that follow.
        optimizer: likewise.
        max_epochs: likewise.
        max_patience: likewise, for each member.
        batch_size: likewise.
        val_prop: likewise.
        return_best: likewise.
        show_progress: likewise; the bar shows the means over members.
        weights: likewise.
        val_data: likewise.
        val_weights: likewise.
        standardise: likewise.
        support: likewise.
        ema: likewise.
        callbacks: likewise; `current()` and `best()` are mixtures.
        checkpoint: likewise.
        checkpoint_every: likewise.
        checkpoint_keep: likewise.
        checkpoint_errors: likewise.

    Returns:
        The mixture, whose components `dist` are stacked, and the losses of each member, with its report.

    Raises:
        NonFiniteDataError, ValueError, TypeError, CheckpointError: as `fit_to_data`.

    References:
        Lakshminarayanan, Pritzel and Blundell (2017), https://arxiv.org/abs/1612.01474.
    """
    PROGRAMS.release()
    check_unsplit(data, "an ensemble takes them whole, numpy.asarray(x)")
    key, members = check_key(key), check_count(members, "members")
    check_maker(make_dist)
    check_standardise(standardise)
    check_flags(return_best=return_best, show_progress=show_progress)
    max_epochs, batch_size = check_count(max_epochs, "max_epochs", 0), check_count(batch_size, "batch_size")
    descent = Descent(
        optimizer, check_optimizer(optimizer, learning_rate), check_ema(ema), fit_limits(max_patience), False
    )
    host = check_host_options(None, callbacks, checkpoint, checkpoint_every, checkpoint_keep, checkpoint_errors)
    make_key, fit_key = jr.split(key)
    one = make_dist(make_key)
    if not isinstance(one, AbstractDistribution):
        raise TypeError(f"make_dist expected to give a distribution for a key, got {type(one).__name__}.")
    loss_fn = MaximumLikelihoodLoss()
    units = partial(unit_filler, standardise=standardise, support=support)
    given = Given(one, data, loss_fn, units, batch_size, weights, val_data, val_weights, val_prop)
    rows, fill, _, arrays = rows_in_units(given)
    params, static = trainable_half(eqx.filter_vmap(fill)(_stack(make_dist, make_key, members)))
    row_weights = None if rows.weights is None else jnp.asarray(rows.weights.astype(default_float()))
    sizes = len(arrays[0]), rows.n_given, rows.n_val
    state, train_rows, val_rows, row_weights = _begin_all(
        fit_key, members, params, optimizer, row_weights, sizes, ema is not None
    )
    for parts in zip(train_rows, val_rows, strict=True):
        check_parts(rows, *parts)

    settings = {
        "key": key,
        "members": (members, one),
        "data": rows.arrays,
        "weights": rows.weights,
        "rows": (rows.n_given, rows.n_val),
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_patience": max_patience,
        "ema": ema,
        "units": (standardise, support),
    }

    problem = EpochProblem(static, arrays, train_rows, val_rows, row_weights, loss_fn, descent, batch_size)

    def dispatch(epochs, state, cut):
        return *run_ensemble((problem, jnp.asarray(np.asarray(epochs, np.int32))), state), True

    history, resumed = EnsembleHistory(members, rows.n_val > 0), False
    checkpoints = host.plan(settings)
    if checkpoints is not None:
        state, _, resumed = checkpoints.load(state, history)
    mixture_of = partial(_mixture, static, members)
    loop = Loop(
        "epoch", max_epochs, MAX_EPOCHS, history, dispatch, mixture_of, host.callbacks, math.inf, show_progress,
        checkpoints, resumed,
    )  # fmt: skip
    state = loop.run(state)
    if any(own.report.stopped == "interrupted" for own in history):
        warn_of_interrupt(f"{history.done} epochs")
    failed = [i for i, status in enumerate(state.status.tolist()) if Status(status) in FAILURES]
    if failed:
        warn_user(
            f"Of {members} members, {failed} (counted from zero) stopped because a loss or update was not finite; "
            f"{'their best parameters so far' if return_best else 'their last finite parameters'} are in the mixture."
            f"{narrow_floats(params)}",
            NonFiniteWarning,
        )
    best = state.best_params
    # Of other rows than the first batch, perhaps of few.
    rise = [rose(own.first_loss, own.report.best_loss, room=5.0) for own in history]
    worse = [i for i in range(members) if rise[i] and i not in failed]
    if worse:
        warn_user(
            f"Of {members} members, {worse} (counted from zero) have a higher loss than they began with. The learning "
            "rate is probably too large: try a tenth of it."
        )
        best = _with_some(worse, params, best)
    fitted = mixture_of(best if return_best else state.judged)
    loop.raise_failure(fitted)
    return fitted, list(history)


def _stack(make_dist, key, members):
    return eqx.filter_vmap(make_dist)(jr.split(key, members))


def _with_some(chosen, params, others):
    """The parameters of the members chosen, and others of the others."""

    def one(new, old):
        joined = np.array(old)
        joined[chosen] = np.asarray(new)[chosen]
        return jnp.asarray(joined)

    return jax.tree.map(one, params, others)


def _mixture(static, members, params):
    return VmapMixture(combined(static, params), np.ones(members))


@run_once
def _begin_all(key, members, params, optimizer, weights, sizes, averages):
    def one(key, params):
        n_all, n_given, n_val = sizes
        return begin(key, params, optimizer, weights, n_all, n_given, n_val, averages)

    return jax.vmap(one)(jr.split(key, members), params)
