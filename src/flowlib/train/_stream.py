"""Epochs over batches that come from the host: several batches a dispatch, and more of them on their way."""

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from flowlib._arrays import default_float
from flowlib.train._epochs import batch_loss, settled, taken
from flowlib.train._loop import BrokenOffError
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout
from flowlib.train._prefetch import prefetched
from flowlib.train._processes import ALONE, Processes
from flowlib.train._sources import Batch
from flowlib.train._state import Descent, TrainState, epoch_key, judge, validation_key

# The most batches, and about the most bytes, in a chunk: what goes to the device at once.
_CHUNK, _BYTES = 64, 2**24
# Seconds that a fit which is to end waits for a batch of `val_data`.
_LONG = 1.0

# The arrays and the weights of a batch, checked and cast.
Prepared = tuple[tuple[np.ndarray, ...], np.ndarray | None]


class StreamProblem(eqx.Module):
    """All that a pass over a stream reads and does not change."""

    static: Any
    loss_fn: Callable[..., Array]
    descent: Descent
    # On a mesh, where what lies.
    layout: Layout | None = eqx.field(static=True, default=None)


class Chunk(NamedTuple):
    """Batches of one size, the first `n` of which are meant; of each batch, `counts` rows are, or those `meant`."""

    arrays: tuple[np.ndarray | Array, ...]
    weights: np.ndarray | Array | None
    counts: np.ndarray | Array | None
    n: np.ndarray | Array
    # On a mesh, whose processes each fill up a part of the batch, in place of `counts`.
    meant: np.ndarray | Array | None = None


class Totals(eqx.Module):
    """Sums over an epoch, of losses times rows and of rows: over all steps but skipped ones, and over the good ones."""

    tried: Float[Array, " 2"]
    good: Float[Array, " 2"]
    steps: Int[Array, ""]
    # The loss of the first batch, before any step of the epoch.
    first: Float[Array, ""]

    def __init__(self, tried=None, good=None, steps=None, first=None):
        # By way of NumPy: compiles nothing.
        zeros = np.zeros(2, default_float())
        self.tried = jnp.array(zeros) if tried is None else tried
        self.good = jnp.array(zeros) if good is None else good
        self.steps = jnp.asarray(np.zeros((), np.int32)) if steps is None else steps
        self.first = jnp.array(np.zeros((), default_float())) if first is None else first


def chunks(
    batches: Iterator[Batch], loss_fn: Any, prepare: Callable[..., Prepared], layout: Layout | None = None
) -> Iterator[tuple[Chunk, bool]]:
    """Batches of equal sizes put together, on the device, and whether they are the last of all.

    A loss by row lets smaller ones be filled up. `prepare(batch, number)` checks and casts each one.
    """
    by_row = isinstance(loss_fn, AbstractRowLoss)
    size, room, held, filler = 0, 1, [], ()
    for number, batch in enumerate(batches):
        arrays, weights = prepare(batch, number)
        rows = len(arrays[0]) if batch.most is None else batch.most
        if rows == 0:
            continue
        if layout is not None:
            rows = layout.rows_of(rows, len(arrays[0]), by_row)
        fits = held and (rows <= size if by_row else rows == size)
        if held and (not fits or len(held) == room):
            yield _chunk(held, size, room, filler, layout), False
            held = []
        if not held and (rows > size or not by_row):
            size = rows
            room = int(np.clip(_BYTES // max(sum(array.nbytes for array in arrays), 1), 1, _CHUNK))
            filler = arrays if by_row else ()
        held.append((arrays, weights))
    if held:
        yield _chunk(held, size, room, filler, layout), True


def _chunk(held, size, room, filler, layout):
    """The batches held, of at most `size` rows each; with a `filler`, a batch of so many, they are filled up."""
    counts = np.zeros(room, np.int32)
    counts[: len(held)] = [len(arrays[0]) for arrays, _ in held]

    def stacked(parts, rest):
        out = np.zeros((room, size, *parts[0].shape[1:]), parts[0].dtype)
        for i, part in enumerate(parts):
            out[i, : len(part)] = part
            if len(part) < size:
                # Rows that do not count, but are within every support, and contrast for those that do.
                out[i, len(part) :] = rest[np.arange(size - len(part)) % len(rest)] if len(rest) else 0
        return out

    weights = None if held[0][1] is None else stacked([weights for _, weights in held], np.zeros(size))
    parts = zip(*(arrays for arrays, _ in held), strict=True)
    arrays = tuple(map(stacked, parts, filler or itertools.repeat(None)))
    chunk = Chunk(arrays, weights, counts if filler else None, np.asarray(len(held), np.int32))
    if layout is None:
        return jax.device_put(chunk)
    meant = np.arange(size) < counts[:, None] if filler else None
    arrays, weights, meant = jax.tree.map(layout.batches, (arrays, weights, meant))
    return Chunk(arrays, weights, None, layout.replicated(chunk.n), meant)


# Not donated: the problem and the chunk.
@partial(eqx.filter_jit, donate="warn-except-first")
def run_chunk(
    problem_and_chunk: tuple[StreamProblem, Chunk], state: TrainState, totals: Totals
) -> tuple[TrainState, Totals]:
    """A step on each batch of a chunk."""
    problem, chunk = problem_and_chunk
    key = epoch_key(state)

    def proceed(carry):
        i, state, _ = carry
        return (i < chunk.n) & state.running

    def step(carry):
        i, state, totals = carry
        loss_fn, rows = _loss_of_batch(problem, chunk, i, jr.fold_in(key, totals.steps))
        state, (loss, good, last) = taken(problem.descent.advance, state, loss_fn)
        totals = Totals(
            _plus(totals.tried, loss, rows, good | last),
            _plus(totals.good, loss, rows, good),
            totals.steps + 1,
            jnp.where(totals.steps == 0, loss, totals.first),
        )
        return i + 1, settled(problem.layout, state), totals

    _, state, totals = jax.lax.while_loop(proceed, step, (jnp.zeros((), jnp.int32), state, totals))
    return settled(problem.layout, (state, totals))


@eqx.filter_jit
def validate_chunk(problem: StreamProblem, chunk: Chunk, params: Any, key: PRNGKeyArray, totals: Totals) -> Totals:
    """The losses of the batches of a chunk, added to the totals."""

    def evaluate(i, totals):
        loss_fn, rows = _loss_of_batch(problem, chunk, i, jr.fold_in(key, totals.steps))
        good = _plus(totals.good, loss_fn(params).astype(default_float()), rows, True)
        return Totals(totals.tried, good, totals.steps + 1, totals.first)

    return settled(problem.layout, jax.lax.fori_loop(0, chunk.n, evaluate, totals))


@eqx.filter_jit
def finish_epoch(
    problem: StreamProblem, state: TrainState, totals: Totals, validation: Totals | None, first_step: Int[Array, ""]
) -> tuple[TrainState, Float[Array, "1 3"]]:
    """The state after an epoch, and its training and validation loss."""
    train_loss, judged = _mean(totals.tried), _mean(totals.good)
    val_loss = jnp.zeros((), judged.dtype)
    if validation is not None:
        judged = val_loss = _mean(validation.good)
    state = judge(state, problem.descent.limits, judged, first_step)
    return settled(problem.layout, (state, jnp.stack([train_loss, val_loss, totals.first])[None]))


class StreamEpochs:
    """The dispatch of a fit to a stream: one epoch."""

    def __init__(self, problem: StreamProblem, train: Any, val: Any, prepare: Callable):
        self._problem, self._train, self._val, self._prepare = problem, train, val, prepare
        self._layout = problem.layout
        # The state as it is in the midst of an epoch.
        self._reached: TrainState | None = None
        self._processes = ALONE if self._layout is None else self._layout.processes

    def __call__(
        self, epochs: int, state: TrainState, cut: Callable[[], bool]
    ) -> tuple[TrainState, Array | None, bool]:
        """Run one epoch, or less of it once `cut()` is true; no losses if there was no batch."""
        number = int(state.epoch)
        # A copy: the state is given up.
        first_step = np.array(state.step)
        first_step = jnp.asarray(first_step) if self._layout is None else self._layout.replicated(first_step)
        try:
            return self._epoch(number, state, first_step, cut)
        except BaseException as error:
            raise BrokenOffError(state if self._reached is None else self._reached, error) from None

    def _epoch(self, number, state, first_step, cut):
        problem, self._reached = self._problem, state
        totals, any_batch, whole = self._no_totals(), False, False
        with closing(self._ready(self._train.epoch(number), "data", cut)) as ready:
            for made in ready:
                if made is None:
                    break
                chunk, whole = made
                any_batch = True
                state, totals = run_chunk((problem, chunk), state, totals)
                self._reached = state
                # Waits until the device is done.
                if not bool(state.running):
                    whole = True
                    break
                if self._processes.count == 1 and cut():
                    break
            else:
                whole = True
        if not any_batch:
            return state, None, whole
        validation = None
        if self._val is not None:
            validation = self._validate(state, _Blocked(cut))
            if validation is None:
                return state, None, False
        return *finish_epoch(problem, state, totals, validation, first_step), whole

    def _validate(self, state, blocked):
        """The totals over `val_data`; None if these do not come, and the fit is to end."""
        totals, key = self._no_totals(), _validation_key(state)
        with closing(self._ready(self._val.epoch(0), "val_data", blocked)) as ready:
            for made in ready:
                blocked.wait_anew()
                if made is None:
                    return None
                chunk, _ = made
                totals = validate_chunk(self._problem, chunk, state.judged, key, totals)
        return totals

    def _no_totals(self):
        return Totals() if self._layout is None else self._layout.replicated(Totals())

    def _ready(self, batches, of, cut):
        make = partial(
            chunks, loss_fn=self._problem.loss_fn, prepare=partial(self._prepare, of=of), layout=self._layout
        )
        if self._processes.count == 1:
            return prefetched(batches, make, cut)
        cut = (lambda: False) if isinstance(cut, _Blocked) else cut
        return _in_step(prefetched(batches, make), of, cut, self._processes)


class _Blocked:
    """Whether the fit is to end and a batch has been waited for long all the same: an epoch that was cut is judged."""

    def __init__(self, cut: Callable[[], bool]):
        self._cut, self._since = cut, time.monotonic()

    def wait_anew(self) -> None:
        """A batch has come."""
        self._since = time.monotonic()

    def __call__(self) -> bool:
        return self._cut() and time.monotonic() - self._since > _LONG


def _in_step(ready: Any, of: str, cut: Callable[[], bool], processes: Processes) -> Generator[Any, None, None]:
    """What is ready in all processes; None last, once `cut()` is true in one of them."""

    def sizes(made):
        return (int(made[0].n), made[0].arrays[0].shape[1]) if made else (0, 0)

    with closing(ready):
        while not processes.most(cut())[0]:
            made = processes.in_step(
                f"Reading {of}", lambda: next(ready, None), sizes,
                "must give as many batches of as many rows in every process",
            )  # fmt: skip
            if made is None:
                return
            yield made
    yield None


_validation_key = eqx.filter_jit(validation_key)


def _loss_of_batch(problem, chunk, i, key):
    """The loss of batch i as a function of the parameters, and its number of rows."""

    def one(array):
        return jax.lax.dynamic_index_in_dim(array, i, keepdims=False)

    arrays = [one(array) for array in chunk.arrays]
    weights = None if chunk.weights is None else one(chunk.weights)
    count = None if chunk.counts is None else one(chunk.counts)
    rows = jnp.asarray(len(arrays[0]), jnp.int32) if count is None else count
    if chunk.meant is not None:
        # What is not meant weighs nothing, and the mean over all rows becomes one over those that are.
        meant = one(chunk.meant)
        rows = meant.sum(dtype=jnp.int32)
        scale = len(meant) / rows.astype(default_float())
        weights = jnp.where(meant, scale if weights is None else weights * scale, 0)

    def loss(params):
        return batch_loss(problem.loss_fn, params, problem.static, arrays, weights, count, key)

    return loss, rows.astype(default_float())


def _plus(total, loss, rows, included):
    return total + jnp.where(included, jnp.stack([loss * rows, rows]), 0)


def _mean(total):
    return total[0] / total[1]
