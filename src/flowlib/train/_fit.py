"""Fitting to data."""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import optax
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._programs import PROGRAMS
from flowlib.train._arguments import check_flags, check_loss, check_standardise
from flowlib.train._data_units import Standardise, unit_filler
from flowlib.train._history import EpochHistory
from flowlib.train._loop import Callback
from flowlib.train._losses import MaximumLikelihoodLoss
from flowlib.train._mesh import as_layout
from flowlib.train._optimizer import check_optimizer
from flowlib.train._options import check_ema, check_host_options, fit_limits
from flowlib.train._plan import Given
from flowlib.train._run_fit import run_fit
from flowlib.train._settings import bound_settings
from flowlib.train._state import Descent

T = TypeVar("T")


def fit_to_data(
    key: PRNGKeyArray,
    dist: T,
    data: Any,
    *,
    loss_fn: Callable[..., Array] | None = None,
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
    max_patience_steps: float = math.inf,
    min_improvement: float = 0.0,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    max_skipped: int = 0,
    ema: float | None = None,
    steps_per_epoch: int | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    checkpoint_keep: int = 3,
    checkpoint_errors: Literal["raise", "warn"] = "raise",
    mesh: Mesh | None = None,
) -> tuple[T, EpochHistory]:
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
        data: the rows: an array, a table of pandas, polars or Arrow, a structured array, a list of rows of numbers; or
            a tuple of several with as many rows each, which are the arguments of the loss: `(x, condition)` for a
            conditional distribution. Data that come in batches are an iterable of such (a PyTorch or grain loader), a
            function without arguments that gives one and is called once an epoch, or `numpy.memmap` arrays. These are
            never in memory all at once.
        loss_fn: called as `loss_fn(params, static, *arrays, key=key)` with the arrays of one batch; returns
            the mean over the batch. Defaults to `MaximumLikelihoodLoss()`.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        max_epochs: the most epochs.
        max_patience: stop when the loss has not improved for more epochs than this; may be `math.inf`.
        batch_size: rows in a batch; all rows if there are fewer. The last batch of an epoch can be smaller.
        val_prop: the part of the rows held out for validation, from 0 to below 1. If positive, at least one
            row of two or more is held out. If 0, and for streams of batches without `val_data`, "best" is judged
            by the training loss.
        return_best: return the parameters of the epoch with the lowest loss, rather than those of the last step.
        show_progress: show a bar with the epoch, losses and patience.
        weights: sample weights, one a row of `data`, for losses by row. The loss of all rows is sum(w l) / sum(w), and
            that of a batch sum(w l) / (rows in it * mean weight), which is unbiased. Validation and
            standardisation are weighted too.
        val_data: rows of your own for validation, of the form of `data`, in place of `val_prop`.
        val_weights: their sample weights.
        standardise: fill location and scale of the rows, and of conditions that are no labels, into the units of the
            flow, where they are not trained, so that the rest of it sees data of mean 0 and standard deviation 1.
            `log_prob` and `sample` stay in the units of the data. Every premade flow has units, and
            `flowlib.distributions.with_support` gives them to others; a distribution without is fitted as it is. Units
            that an earlier fit has set stay, with a warning if they do not suit the rows; "again" sets them anew.
        support: short for fitting `with_support(dist, support)`: what values the columns of x can take, one for all or
            a list of one a column: `"real"`, `"positive"`, `(low, high)`, `"circular"` or what else
            `flowlib.bijections.ToSupport` takes, and `"integer"` or `flowlib.support.Integers(low, high)`. The flow
            then has no density, and no samples, outside; with columns of integers it comes back as `Dequantized`.
            Or a dict of such by the names of a table's columns; those that are not named are real.
        max_patience_steps: stop at the end of an epoch when the loss has not improved for more steps than this.
        min_improvement: by how much a loss must improve to count for patience. The best parameters are those of the
            lowest loss all the same.
        max_steps: the most steps.
        max_seconds: stop at the end of the dispatch during which so many seconds of this run have passed.
        max_skipped: how many steps may be left out because their loss or update is not finite, before that stops the
            fit.
        ema: validate, and return, an exponential moving average of the parameters, with this weight of the past in each
            step (0.999, say); in the first steps a plain mean.
        steps_per_epoch: of a stream of batches without an end, how many make an epoch.
        callbacks: a function of a `Snapshot`, or several, called after each dispatch, which is one or many epochs; one
            that returns True stops the fit.
        checkpoint: a directory. The state of the fit is kept there, and the same call, run again, goes on from it:
            after a kill at any moment the result is bit for bit that of a fit that was never stopped (on a CPU). A
            fit that is done returns at once; more `max_epochs` take it further.
        checkpoint_every: epochs from one checkpoint to the next; there is also one at the end.
        checkpoint_keep: how many checkpoints stay.
        checkpoint_errors: "raise" stops the fit when a checkpoint cannot be written, with a `CheckpointError` whose
            `fitted` and `losses` are what would have been returned; "warn" goes on without.
        mesh: devices to train on together: a batch is divided among them, and the losses are those of one device to
            rounding. `batch_size` is of the whole batch, and must divide evenly. The rows are divided along the
            axis "data", or else the first one; along an axis "model", if there is one, wide parameters are, each along
            its longest axis that divides evenly, and stay so in the distribution that is returned. All else
            is on every device.

            Under `jax.distributed` with several processes all make the same call, with a mesh of all devices.
            Arrays, and `numpy.memmap` files, must be the same in each. Of a stream each process gives batches of its
            own rows, as many in every process and of as many rows: a step takes one of each, joined. Location and
            scale come from the first rows of all. Process 0 writes checkpoints, to a directory that all share;
            callbacks are called in every process, and a wish of one to stop stops all. Each is given the whole
            result.

    Returns:
        The fitted distribution, and `{"train": [...], "val": [...]}`: the mean losses of each epoch as floats. Where a
        fit was stopped by a loss that is not finite, that loss is in the last entry. "val" is empty without validation.
        Its attribute `report`, a `FitReport`, says why the fit stopped.

    Raises:
        NonFiniteDataError: if the data have NaN or infinity; the message names array, row and column.
        ValueError: for empty data, unequal numbers of rows, masked cells, tables whose indexes differ, rows outside the
            support of the distribution (named by row and column), event or condition shapes that do not match the
            distribution, a missing or useless condition, a distribution without trainable
            parameters, or arguments out of range.
        TypeError: for data that are not real numbers, an argument of another type, or a `key` that is no key.
        CheckpointError: if checkpoints cannot be written or read.
        CheckpointMismatchError: if they are of a fit of other data or settings, which it names.
    """
    # All of them, before there are other names: a checkpoint is bound to what is decided there.
    arguments = locals()
    PROGRAMS.release()
    key = check_key(key)
    check_loss(loss_fn)
    check_standardise(standardise)
    check_flags(return_best=return_best, show_progress=show_progress)
    max_epochs, batch_size = check_count(max_epochs, "max_epochs", 0), check_count(batch_size, "batch_size")
    limits = fit_limits(max_patience, max_patience_steps, min_improvement, max_steps, max_skipped)
    host = check_host_options(max_seconds, callbacks, checkpoint, checkpoint_every, checkpoint_keep, checkpoint_errors)
    descent = Descent(
        optimizer,
        check_optimizer(optimizer, learning_rate),
        check_ema(ema),
        limits,
        max_skipped > 0,
    )
    given = Given(
        dist,
        data,
        MaximumLikelihoodLoss() if loss_fn is None else loss_fn,
        partial(unit_filler, standardise=standardise, support=support),
        batch_size,
        weights,
        val_data,
        val_weights,
        val_prop,
        steps_per_epoch,
    )
    settings = bound_settings(arguments | {"key": key, "loss_fn": given.loss_fn})
    return run_fit(key, given, descent, host, settings, as_layout(mesh), max_epochs, return_best, show_progress)
