"""Fitting without data: to a loss of a key, and to an unnormalised density."""

import inspect
import math
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._programs import PROGRAMS
from flowlib._warn import warn_user
from flowlib.distributions import AbstractDistribution
from flowlib.train._arguments import check_flags, check_loss
from flowlib.train._culprit import culprit
from flowlib.train._diagnose import narrow_floats
from flowlib.train._history import StepHistory
from flowlib.train._loop import Callback, Loop
from flowlib.train._losses import ElboLoss, check_conditions
from flowlib.train._optimizer import check_optimizer
from flowlib.train._options import NO_LIMIT, check_ema, check_host_options, check_weight_of_past, fit_limits
from flowlib.train._progress import warn_of_failure, warn_of_interrupt
from flowlib.train._state import FAILURES, Descent, Status, combined, initial_state, trainable_half
from flowlib.train._steps import MAX_STEPS, StepProblem, run_steps

T = TypeVar("T")

# So many of the last losses say where a fit has ended.
_FEW = 10


def fit_to_key_based_loss(
    key: PRNGKeyArray,
    tree: T,
    *,
    loss_fn: Callable[..., Array],
    steps: int,
    learning_rate: ArrayLike | Callable[[Array], Any] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    show_progress: bool = True,
    return_best: bool = False,
    smoothing: float = 0.98,
    max_patience_steps: float = math.inf,
    min_improvement: float = 0.0,
    max_seconds: float | None = None,
    max_skipped: int = 0,
    ema: float | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    checkpoint_keep: int = 3,
    checkpoint_errors: Literal["raise", "warn"] = "raise",
) -> tuple[T, StepHistory]:
    """Minimise a loss that depends on the parameters and a random key, such as an `ElboLoss`.

    Steps run on the device, many in one dispatch. Another number of steps or learning rate compiles nothing;
    `loss_fn`, `optimizer` and a schedule are told apart by identity, unless they are Equinox modules.

    If a loss or an update becomes NaN or infinite, the fit stops at that step with one `NonFiniteWarning`
    and returns the last finite parameters; that loss is the last in the list. Ctrl-C stops it after the running steps.

    Args:
        key: a JAX PRNG key, typed or legacy.
        tree: a distribution or any other tree of arrays; frozen parameters stay as they are.
        loss_fn: called as `loss_fn(params, static, key=key)`; returns a scalar.
        steps: the number of steps.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        show_progress: show a bar with the step and loss.
        return_best: return the parameters at which the mean of the last losses was lowest, rather than the last ones.
        smoothing: the weight of the past in that mean, in each step; in the first steps it is a plain mean.
        max_patience_steps: stop when that mean has not improved for more steps than this.
        min_improvement: by how much it must improve to count for patience.
        max_seconds: as in `fit_to_data`.
        max_skipped: likewise.
        ema: likewise.
        callbacks: likewise, after each dispatch of many steps.
        checkpoint: likewise; with more `steps`, a fit goes on from its last checkpoint.
        checkpoint_every: steps from one checkpoint to the next; there is also one at the end.
        checkpoint_keep: as in `fit_to_data`.
        checkpoint_errors: likewise.

    Returns:
        The fitted tree, and the loss of each step as a float, before its update. The attribute `report` of these
        losses, a `FitReport`, says why the fit stopped.

    Raises:
        ValueError: for a tree without trainable parameters, arguments out of range, or a loss that is no scalar.
        TypeError: for a `key` that is no key.
        CheckpointError, CheckpointMismatchError: as in `fit_to_data`.
    """
    check_loss(loss_fn)
    check_flags(return_best=return_best, show_progress=show_progress)
    limits = fit_limits(math.inf, max_patience_steps, min_improvement, None, max_skipped)
    descent = Descent(
        optimizer,
        check_optimizer(optimizer, learning_rate),
        check_ema(ema),
        limits,
        max_skipped > 0,
    )
    host = check_host_options(max_seconds, callbacks, checkpoint, checkpoint_every, checkpoint_keep, checkpoint_errors)
    return _fit(
        key,
        tree,
        loss_fn,
        steps,
        descent,
        host,
        check_weight_of_past(smoothing, "smoothing"),
        return_best,
        show_progress,
    )


def fit_to_variational_target(
    key: PRNGKeyArray,
    dist: T,
    target: Callable[..., Array],
    *,
    steps: int,
    num_samples: int = 100,
    learning_rate: ArrayLike | Callable[[Array], Any] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    stick_the_landing: bool = False,
    loss_fn: Callable[..., Array] | None = None,
    show_progress: bool = True,
    condition: ArrayLike | None = None,
    data: ArrayLike | tuple[ArrayLike, ...] | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> tuple[T, StepHistory]:
    """Fit a distribution to an unnormalised log density by maximising the evidence lower bound.

    Minus the loss is, in expectation, a lower bound of the log normaliser of the target, and equals it when the
    fit is perfect. The objective looks for a mode and may miss others: compare samples and importance weights.

    Compiled code is found again by the identity of `target`, unless it is an Equinox module: pass the same function.
    Non-finite losses and Ctrl-C are treated as in `fit_to_key_based_loss`.

    Args:
        key: a JAX PRNG key, typed or legacy.
        dist: a distribution that can be sampled cheaply; frozen parameters stay as they are.
        target: the unnormalised log density of ONE event, a function of an array of shape `dist.shape`
            that returns a scalar; it is mapped over the draws. With `condition` a function of event and condition, and
            with `data` of these and of a batch of each array.
        steps: the number of steps.
        num_samples: draws a step.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        stick_the_landing: lower the variance of the gradient at the price of an inverse pass; see `ElboLoss`.
        loss_fn: another loss, called as `loss_fn(params, static, key=key)`. It brings its own target, and
            `target`, `num_samples` and `stick_the_landing` are then not used.
        show_progress: show a bar with the step and loss.
        condition: for a conditional distribution, the conditions over which the bound is averaged, one a row:
            `num_samples` of them, at random, are drawn for in each step (amortised inference).
        data: arrays of rows of which the target sees a random batch in each step. It must give an unbiased
            estimate of the log density: the likelihood of the batch counts rows / `batch_size` times.
        batch_size: rows in a batch of `data`; needed with it.
        **options: further ones of `fit_to_key_based_loss`: `return_best`, `checkpoint` and so on.

    Returns:
        The fitted distribution, and the loss of each step as a float, as from `fit_to_key_based_loss`.

    Raises:
        ValueError: for a conditional distribution without conditions, a target that returns no scalar, a
            distribution without trainable parameters, or arguments out of range.
        TypeError: for a `dist`, `target` or `key` that is none, a target that cannot take one event or returns whole
            numbers, or an option that there is not.
    """
    _check_options(options)
    if loss_fn is None:
        if not isinstance(dist, AbstractDistribution):
            raise TypeError(f"fit_to_variational_target expected a distribution, got {type(dist).__name__}.")
        check_conditions(dist, condition)
        loss_fn = ElboLoss(
            target, num_samples, stick_the_landing=stick_the_landing, condition=condition, data=data,
            batch_size=batch_size,
        )  # fmt: skip
    return fit_to_key_based_loss(
        key, dist, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, optimizer=optimizer,
        show_progress=show_progress, **options,
    )  # fmt: skip


def _check_options(options: dict[str, Any]) -> None:
    if "support" in options:
        raise TypeError(
            "fit_to_variational_target has no argument support: put the distribution on the support of the target "
            "before the fit, with flowlib.distributions.with_support(dist, support)."
        )
    unknown = options.keys() - inspect.signature(fit_to_key_based_loss).parameters.keys()
    if unknown:
        raise TypeError(f"fit_to_variational_target has no argument {min(unknown)}.")


def _fit(key, tree, loss_fn, steps, descent, host, smoothing, return_best, show_progress):
    PROGRAMS.release()
    key, steps = check_key(key), check_count(steps, "steps", 0)
    params, static = trainable_half(tree)
    judged = return_best or int(descent.limits.patience_steps) < NO_LIMIT
    problem = StepProblem(static, loss_fn, descent, smoothing if judged else None)
    state = _begin(key, params, descent.optimizer, judged, descent.averaging is not None)

    settings = {
        "key": key,
        "tree": tree,
        "loss_fn": loss_fn,
        "optimizer": descent.optimizer,
        "learning_rate": descent.learning_rate,
        "ema": descent.averaging,
        "limits": (descent.limits.patience_steps, descent.limits.min_improvement, descent.limits.skips),
        "return_best": judged,
        "smoothing": smoothing,
    }

    def dispatch(size, state, cut):
        return *run_steps((problem, jnp.asarray(np.asarray(size, np.int32))), state), True

    history, resumed = StepHistory(), False
    checkpoints = host.plan(settings)
    if checkpoints is not None:
        state, _, resumed = checkpoints.load(state, history)
    loop = Loop(
        "step", steps, MAX_STEPS, history, dispatch, partial(combined, static), host.callbacks, host.max_seconds,
        show_progress, checkpoints, resumed,
    )  # fmt: skip
    state = loop.run(state)
    if Status(int(state.status)) in FAILURES:
        where = f"at step {len(history) - 1} (counted from zero)"
        kept = "the best parameters so far are returned" if return_best else "the last finite parameters are returned"
        last_key = jr.fold_in(state.key, state.step + state.skipped)
        warn_of_failure(
            Status(int(state.status)),
            where,
            history[-1],
            kept,
            culprit(loss_fn, state.params, static, last_key) + narrow_floats(state.params),
        )
    elif history.report.stopped == "interrupted":
        warn_of_interrupt(f"{len(history)} steps")
    elif len(history) >= 2 * _FEW and (last := statistics.median(history[-_FEW:])) > history[0] + max(
        10, abs(history[0])
    ):
        # Single losses of a random key differ much; these differ more.
        warn_user(
            f"The loss was {history[0]:.6g} at first and is {last:.6g} at the end. The "
            "learning rate is probably too large: try a tenth of it, or return_best=True."
        )
    fitted = combined(static, state.best_params if return_best else state.judged)
    loop.raise_failure(fitted)
    return fitted, history


@eqx.filter_jit
def _begin(key, params, optimizer, follow_best, averages):
    return initial_state(key, params, optimizer, follow_best=follow_best, averages=averages)
