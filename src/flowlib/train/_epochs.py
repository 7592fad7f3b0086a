"""Whole epochs on the device: shuffling, the steps and the validation of many epochs in one dispatch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from flowlib._arrays import default_float
from flowlib._random import shuffled
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout
from flowlib.train._state import Descent, TrainState, epoch_key, judge, validation_key

# Room for the losses of one dispatch, and so the most epochs in one.
MAX_EPOCHS = 64


class EpochProblem(eqx.Module):
    """All that epochs read and do not change."""

    static: Any
    arrays: tuple[Array, ...]
    train_rows: Int[Array, "*members train"]
    val_rows: Int[Array, "*members val"]
    # Of all rows; their mean is 1 over the training rows, and over the validation rows. None if all are 1.
    weights: Float[Array, "*members rows"] | None
    loss_fn: Callable[..., Array]
    descent: Descent
    batch_size: int = eqx.field(static=True)
    # On a mesh, where what lies.
    layout: Layout | None = eqx.field(static=True, default=None)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_rows) // min(self.batch_size, len(self.train_rows)))

    def batch_loss(self, params: Any, rows: Array, count: Array | None, key: Array) -> Array:
        """The mean loss over the rows; with a `count` (and a loss by row), over the first so many of them."""
        batch = [array[rows] for array in self.arrays]
        if self.layout is not None:
            batch = [self.layout.split(array) for array in batch]
        weights = None if self.weights is None else self.weights[rows]
        return batch_loss(self.loss_fn, params, self.static, batch, weights, count, key)


def batch_loss(
    loss_fn: Callable[..., Array],
    params: Any,
    static: Any,
    batch: Sequence[Array],
    weights: Float[Array, " rows"] | None,
    count: Int[Array, ""] | None,
    key: PRNGKeyArray,
) -> Array:
    """sum(w l) / rows over the rows of a batch, or over the first `count` of them; weights need a loss by row."""
    if not isinstance(loss_fn, AbstractRowLoss) or (count is None and weights is None):
        return loss_fn(params, static, *batch, key=key)
    values = loss_fn.per_row(params, static, *batch, key=key)
    if weights is not None:
        # A row without weight does not count, not even if its loss is infinite.
        values = jnp.where(weights > 0, values * weights.astype(values.dtype), 0)
    if count is None:
        return values.mean()
    values = jnp.where(jnp.arange(len(values), dtype=jnp.int32) < count, values, 0)
    return values.sum() / count.astype(values.dtype)


class Batches(NamedTuple):
    """Row numbers in batches of one size; what does not fill one is a smaller batch, or is filled up.

    `counts` says how many rows of each batch are meant.
    """

    full: Int[Array, "batches size"]
    rest: Int[Array, " rest"] | None
    counts: Int[np.ndarray, " all"]
    filled_up: bool


# Not donated: the problem and the number of epochs. The state is a buffer of the fit's own.
@partial(eqx.filter_jit, donate="warn-except-first")
def run_epochs(
    problem_and_epochs: tuple[EpochProblem, Int[Array, ""]], state: TrainState
) -> tuple[TrainState, Float[Array, "epochs 3"]]:
    """Run epochs until there are enough of them or the fit stops.

    The number of epochs is traced: it decides neither what is compiled nor what an epoch computes.

    Returns:
        The state, and the training and validation loss of each epoch that was run.
    """
    return _run(*problem_and_epochs, state)


# Not donated: the problem and the number of epochs.
@partial(eqx.filter_jit, donate="warn-except-first")
def run_ensemble(
    problem_and_epochs: tuple[EpochProblem, Int[Array, ""]], states: TrainState
) -> tuple[TrainState, Float[Array, "members epochs 3"]]:
    """`run_epochs` of many fits at once; states, the problem's static part, its rows and weights are stacked."""
    problem, epochs = problem_and_epochs
    arrays, rest = eqx.partition(problem.static, eqx.is_array)

    def one(arrays, train_rows, val_rows, weights, state):
        static = eqx.combine(arrays, rest)
        own = replace(problem, static=static, train_rows=train_rows, val_rows=val_rows, weights=weights)
        return _run(own, epochs, state)

    return jax.vmap(one)(arrays, problem.train_rows, problem.val_rows, problem.weights, states)


def _run(problem, epochs, state):
    def proceed(carry):
        done, state, _ = carry
        return (done < epochs) & state.running

    def epoch(carry):
        done, state, history = carry
        state, losses = _epoch(problem, state)
        state = settled(problem.layout, state)
        return done + 1, state, history.at[done].set(losses)

    # What is not filled in is never read. It is 0 and not NaN, at which `jax_debug_nans` would stop the program.
    history = jnp.zeros((MAX_EPOCHS, 3), default_float())
    _, state, history = jax.lax.while_loop(proceed, epoch, (jnp.zeros((), jnp.int32), state, history))
    return settled(problem.layout, (state, history))


def settled(layout: Layout | None, tree: Any) -> Any:
    """The same values, on a mesh where its layout wants them; so that a dispatch gives what the next one takes."""
    return tree if layout is None else layout.settled(tree)


def _epoch(problem, state):
    key, shuffle_key = jr.split(epoch_key(state))
    first_step = state.step
    state, train_loss, judged, first_loss = _train(problem, state, shuffled(shuffle_key, problem.train_rows), key)
    val_loss = jnp.zeros((), train_loss.dtype)
    if len(problem.val_rows):
        judged = val_loss = _validate(problem, state)

    state = judge(state, problem.descent.limits, judged, first_step)
    # The last one, of the first epoch, is where the fit began.
    return state, jnp.stack([train_loss, val_loss, first_loss])


def _train(problem, state, rows, key):
    """One pass over the training rows, and the mean loss over the rows: of all steps taken, and of the good ones.

    The loss of the first batch, before any step, comes last.

    The two differ in an epoch cut short, whose last step is not good.
    """
    batches = _batches(problem, rows, min(problem.batch_size, len(rows)), rows)

    def step(state, batch):
        rows, count, number = batch
        loss_fn = partial(problem.batch_loss, rows=rows, count=count, key=jr.fold_in(key, number))
        state, out = taken(problem.descent.advance, state, loss_fn)
        return settled(problem.layout, state), out

    state, (losses, good, last) = _scan(step, state, batches)
    mean, of_good = _row_mean(losses, batches.counts, good | last), _row_mean(losses, batches.counts, good)
    return state, mean, of_good, losses[0]


def taken(
    advance: Callable[..., tuple[TrainState, Array]], state: TrainState, loss_fn: Callable[[Any], Array]
) -> tuple[TrainState, tuple[Array, Array, Array]]:
    """A step, and of it the loss, whether it made an update, and whether it ended the fit."""
    new, loss = advance(state, loss_fn)
    return new, (loss, new.step > state.step, state.running & ~new.running)


def _validate(problem, state):
    """The mean loss over the validation rows."""
    least = problem.loss_fn.min_rows if isinstance(problem.loss_fn, AbstractRowLoss) else 1
    size = min(problem.batch_size, max(len(problem.val_rows), least))
    filler = jnp.concatenate([problem.train_rows, problem.val_rows])
    batches = _batches(problem, problem.val_rows, size, filler)
    key = validation_key(state)

    def evaluate(carry, batch):
        rows, count, number = batch
        loss = problem.batch_loss(state.judged, rows, count, jr.fold_in(key, number))
        return carry, loss.astype(default_float())

    losses = _scan(evaluate, None, batches)[1]
    return _row_mean(losses, batches.counts, jnp.ones(len(losses), bool))


def _batches(problem, rows, size, filler):
    full, rest = divmod(len(rows), size)
    counts = np.array([size] * full + [rest] * (rest > 0), np.int32)
    if rest and isinstance(problem.loss_fn, AbstractRowLoss):
        rows = jnp.concatenate([rows, filler[: size - rest]])
        return Batches(rows.reshape(full + 1, size), None, counts, True)
    return Batches(rows[: full * size].reshape(full, size), rows[full * size :] if rest else None, counts, False)


def _scan(body, carry, batches):
    """`lax.scan` over the batches (rows, count, number), and one more call of `body` for what is left over."""
    n_full = len(batches.full)
    # Without a count, a batch is all of its rows.
    counts = jnp.asarray(batches.counts) if batches.filled_up else None
    carry, out = jax.lax.scan(body, carry, (batches.full, counts, jnp.arange(n_full, dtype=jnp.int32)))
    if batches.rest is not None:
        carry, last = body(carry, (batches.rest, None, n_full))
        out = jax.tree.map(jnp.append, out, last)
    return carry, out


def _row_mean(losses, counts, included):
    """The mean over rows of batch losses; NaN over none."""
    weights = jnp.where(included, jnp.asarray(counts, losses.dtype), 0)
    # Weights that sum to one: a sum over rows of large losses could overflow where their mean does not.
    return jnp.where(included, losses * (weights / weights.sum()), 0).sum() + jnp.where(included.any(), 0, jnp.nan)
