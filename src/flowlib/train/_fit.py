"""Fitting to data."""

import math
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._run_once import run_once
from flowlib.bijections import Invert, rebuild_drift
from flowlib.distributions import AbstractTransformed
from flowlib.train._data import as_arrays, check_finite, count_validation, split_rows
from flowlib.train._epochs import MAX_EPOCHS, EpochProblem, run_epochs
from flowlib.train._losses import AbstractRowLoss, MaximumLikelihoodLoss
from flowlib.train._optimizer import check_optimizer
from flowlib.train._progress import Interrupts, Pace, Progress, warn_of_failure, warn_of_interrupt
from flowlib.train._state import FAILURES, Status, initial_state, trainable_half

T = TypeVar("T")

_NO_LIMIT = 2**31 - 1
_OWN_KEYS = zlib.crc32(b"fit_to_data")
_DRIFT_ROWS = 1000


def fit_to_data(
    key: PRNGKeyArray,
    dist: T,
    data: Any,
    *,
    loss_fn: Callable[..., Array] | None = None,
    learning_rate: ArrayLike | Callable[[Array], Array] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    max_epochs: int = 100,
    max_patience: float = 5,
    batch_size: int = 100,
    val_prop: float = 0.1,
    return_best: bool = True,
    show_progress: bool = True,
) -> tuple[T, dict[str, list[float]]]:
    """Fit a distribution to data by minibatches, with early stopping on held-out rows.

    Whole epochs run on the device. All training rows are used in every epoch, in a new random order,
    and the validation loss is the mean over all validation rows. Data in NumPy's float64 are cast to the
    precision of the distribution.

    Nothing is compiled again by a second fit with equal shapes of a distribution built in the same way, nor by
    another learning rate, number of epochs or patience. `loss_fn`, `optimizer` and a schedule are told
    apart by identity, unless they are Equinox modules: build them once and pass the same objects.

    If a loss or an update becomes NaN or infinite, the fit stops at that step with one `NonFiniteWarning`. Ctrl-C
    stops it after the running epochs. Both return what was reached, as `return_best` says.

    Args:
        key: a JAX PRNG key, typed or legacy.
        dist: the distribution; any other tree of arrays with a `loss_fn` of its own. Parameters
            that `flowlib.parameters.freeze` froze stay as they are.
        data: the rows, an array or (pandas) table of numbers, or a tuple of several with as many rows each, which are
            the arguments of the loss: `(x, condition)` for a conditional distribution.
        loss_fn: called as `loss_fn(params, static, *arrays, key=key)` with the arrays of one batch; returns
            the mean over the batch. Defaults to `MaximumLikelihoodLoss()`.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        max_epochs: the most epochs.
        max_patience: stop when the loss has not improved for more epochs than this; may be `math.inf`.
        batch_size: rows in a batch; all rows if there are fewer. The last batch of an epoch can be smaller.
        val_prop: the part of the rows held out for validation, from 0 to below 1. If positive, at least one
            row of two or more is held out. If 0, "best" is judged by the training loss.
        return_best: return the parameters of the epoch with the lowest loss, rather than those of the last step.
        show_progress: show a bar with the epoch, losses and patience.

    Returns:
        The fitted distribution, and `{"train": [...], "val": [...]}`: the mean losses of each epoch as floats. Where a
        fit was stopped by a loss that is not finite, that loss is in the last entry. "val" is empty without validation.

    Raises:
        NonFiniteDataError: if the data have NaN or infinity; the message names array, row and column.
        ValueError: for empty data, unequal numbers of rows, event or condition shapes that do not match the
            distribution, a missing or useless condition, a distribution without trainable
            parameters, or arguments out of range.
        TypeError: for data that are not real numbers, or a `key` that is no key.
    """
    key = check_key(key)
    max_epochs, batch_size = check_count(max_epochs, "max_epochs", 0), check_count(batch_size, "batch_size")
    if max_patience != math.inf:
        max_patience = check_count(max_patience, "max_patience", 0)
    learning_rate = check_optimizer(optimizer, learning_rate)
    loss_fn = MaximumLikelihoodLoss() if loss_fn is None else loss_fn
    params, static = trainable_half(dist)
    arrays = as_arrays(data, dist, params)
    n_val = count_validation(len(arrays[0]), val_prop)
    check_finite(arrays)
    if isinstance(loss_fn, AbstractRowLoss):
        loss_fn.check(dist, *arrays)

    state, train_rows, val_rows = _begin(key, params, optimizer, len(arrays[0]), n_val)
    patience = _int32(min(max_patience, _NO_LIMIT))
    problem = EpochProblem(
        static, arrays, train_rows, val_rows, loss_fn, optimizer, learning_rate, patience, batch_size
    )
    losses: dict[str, list[float]] = {"train": [], "val": []}
    pace, status = Pace(MAX_EPOCHS), Status.RUNNING
    with Progress(max_epochs, "epoch", show_progress) as progress, Interrupts() as interrupts:
        while status == Status.RUNNING and len(losses["train"]) < max_epochs and not interrupts.pressed:
            epochs = pace.next(max_epochs - len(losses["train"]))
            state, history = run_epochs((problem, _int32(epochs)), state)
            status, fruitless = _record(losses, state, history, n_val)
            pace.done()
            latest = {name: values[-1] for name, values in losses.items() if values}
            progress.show(len(losses["train"]), **latest, patience=f"{fruitless}/{max_patience}")

    if status in FAILURES or interrupts.pressed:
        _warn(status, state, problem, losses, return_best)
    fitted = eqx.combine(state.best_params if return_best else state.params, static)
    if isinstance(loss_fn, AbstractRowLoss):
        _warn_of_drift(fitted, *arrays)
    return fitted, losses


@run_once
def _begin(key, params, optimizer, rows, n_val):
    # A shuffle sorts the very bits that the caller may have drawn the rows from with the same key split.
    split_key, key = jr.split(jr.fold_in(key, _OWN_KEYS))
    train_rows, val_rows = split_rows(split_key, rows, n_val)
    return initial_state(key, params, optimizer, follow_best=True), train_rows, val_rows


def _record(losses, state, history, n_val):
    """Add the epochs of a dispatch to the losses; returns its status, and the epochs since the best one."""
    history, epoch, status, fruitless = jax.device_get((history, state.epoch, state.status, state.fruitless))
    for i, name in enumerate(("train", "val") if n_val else ("train",)):
        losses[name].extend(history[: int(epoch) - len(losses[name]), i].tolist())
    return Status(int(status)), int(fruitless)


def _warn(status, state, problem, losses, return_best):
    if status not in FAILURES:
        warn_of_interrupt(f"{len(losses['train'])} epochs")
        return
    epoch = len(losses["train"]) - 1
    step, best = int(state.step) - epoch * problem.steps_per_epoch, float(state.best_loss)
    if not return_best:
        kept = "the last finite parameters are returned"
    elif best == math.inf:
        kept = "the parameters are returned as they were given"
    else:
        kept = f"the best parameters so far, of loss {best:.6g}, are returned"
    if status == Status.BAD_VALIDATION:
        value = losses["val" if losses["val"] else "train"][-1]
        where = f"after epoch {epoch} (counted from zero) and {int(state.step)} steps"
        warn_of_failure(status, where, value, kept)
    else:
        where = f"at step {step} of epoch {epoch} (counted from zero)"
        warn_of_failure(status, where, losses["train"][-1], kept)


def _warn_of_drift(dist, x, condition=None):
    # Says nothing unless layers of the flow rebuild their inputs for the gradient, and do it badly.
    if isinstance(dist, AbstractTransformed):
        condition = None if condition is None else condition[:_DRIFT_ROWS]
        rebuild_drift(Invert(dist.bijection), x[:_DRIFT_ROWS], condition)


def _int32(value):
    # By way of NumPy, a number reaches the device without compiling anything.
    return jnp.asarray(np.asarray(value, np.int32))
