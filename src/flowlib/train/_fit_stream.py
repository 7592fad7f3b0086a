"""A fit to batches that come from the host."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count, default_float
from flowlib._run_once import run_once
from flowlib.train._data import array_name, as_host_arrays, as_weights, count_validation, data_dtype, mean_weight
from flowlib.train._data_units import check_support, wrap_circular
from flowlib.train._epochs import settled
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout
from flowlib.train._plan import FitPlan, Given
from flowlib.train._processes import ALONE
from flowlib.train._remarks import remark
from flowlib.train._rows import check_weighable
from flowlib.train._settings import moments_of
from flowlib.train._sources import Batches, FileRows, Source, is_file, is_stream
from flowlib.train._state import Descent, initial_state, trainable_half
from flowlib.train._stream import StreamEpochs, StreamProblem

# Of a stream, the units come from so many rows.
_FIRST = 10_000
# The rows, and the sizes of batches, by which a checkpoint tells the data.
_SAMPLE, _SIZES = 1000, 3


def prepare_stream(key: PRNGKeyArray, given: Given, descent: Descent, layout: Layout | None) -> FitPlan:
    """Look at the first rows, put the distribution into their units, and begin.

    Raises:
        ValueError: for weights of a stream whose rows have no number, and as `fit_to_data` says.
    """
    dist, loss_fn = given.dist, given.loss_fn
    dtype = data_dtype(trainable_half(dist)[0])
    seed = tuple(int(word) for word in np.ravel(np.asarray(jr.key_data(key))))
    processes = ALONE if layout is None else layout.processes
    part = processes.index, processes.count
    check_weighable(given)
    train, val = _sources(given, seed, part)
    alike = None

    def prepare(batch, number, of):
        try:
            arrays = as_host_arrays(batch.arrays, dist, dtype, batch.rows)
            if alike is not None:
                _check_alike(arrays, alike)
            check_support(dist, arrays[0])
            return (wrap_circular(dist, arrays[0]), *arrays[1:]), batch.weights
        except (ValueError, TypeError) as error:
            place = f"batch {number} of {of} (counted from zero)" if batch.rows is None else of
            raise type(error)(f"In {place}: {error}") from None

    def look():
        nonlocal alike
        taken, taken_weights = [], []
        for number, batch in enumerate(train.source.first(-(-_FIRST // processes.count) if shards else _FIRST)):
            arrays, batch_weights = prepare(batch, number, "data")
            alike = alike or [(array.shape[1:], array.dtype) for array in arrays]
            taken.append(arrays)
            taken_weights.append(batch_weights)
        if shards and layout is not None:
            layout.check_stream(len(taken[0][0]))
        sizes = tuple(len(arrays[0]) for arrays in taken[:_SIZES])
        if shards and layout is not None:
            sizes = ()
        return tuple(map(np.concatenate, zip(*taken, strict=True))), taken_weights, sizes

    # Of files, every process sees all rows.
    shards = isinstance(train.source, Batches)
    first, taken_weights, sizes = processes.in_step(
        "Looking at the first batches", look, lambda looked: (len(looked[0]), len(looked[0][0])),
        "must find as many arrays and rows in every process",
    )  # fmt: skip
    if shards:
        first = map(processes.joined, first)
    first = tuple(map(jnp.asarray, first))
    first_weights = None if taken_weights[0] is None else np.concatenate(taken_weights)
    if isinstance(loss_fn, AbstractRowLoss):
        loss_fn.check(dist, *first)
    # `prepare` sees it from here on.
    dist = given.units(dist, first, first_weights)
    if isinstance(loss_fn, AbstractRowLoss):
        remark(dist, first)
    params, static = trainable_half(dist)
    if layout is not None:
        params, key = layout.placed(params), layout.replicated(key)
    state = _begin(key, params, descent.optimizer, descent.averaging is not None, layout)

    settings = {
        "data": train.told_by,
        "rows of data": _contents(given.data, first, sizes),
        "moments of data": moments_of(first[0]),
        "val_data": None if val is None else val.told_by,
        "rows of val_data": None if val is None or processes.count > 1 else _looked_at(val.source, given.val_data),
        "weights": given.weights,
    }

    def dispatch(static):
        problem = StreamProblem(static, loss_fn, descent, layout)
        if layout is not None:
            on_all = layout.replicated((loss_fn, descent))
            problem = StreamProblem(layout.placed(static), on_all[0], on_all[1], layout)
        return StreamEpochs(problem, train.source, None if val is None else val.source, prepare)

    return FitPlan(static, state, val is not None, settings, dispatch, 1, first, None, params)


def _contents(data, first, sizes):
    """What a checkpoint says of the first rows: what they are, where these do not depend on the run."""
    rows = [np.asarray(array) for array in first]
    if not (is_file(data) or isinstance(data, list)):
        # A loader may shuffle, and a function may know where the fit was.
        rows = [(str(array.dtype), array.shape[1:]) for array in rows]
    else:
        rows = [array[:: max(len(array) // _SAMPLE, 1)] for array in rows]
    return rows, sizes


def _looked_at(source, data):
    batches = source.first(1)
    return _contents(data, batches[0].arrays, (len(batches[0].arrays[0]),))


def _check_alike(arrays, alike):
    """Raise unless arrays have the shapes and dtypes of the first batch."""
    if len(arrays) != len(alike):
        raise ValueError(f"expected {len(alike)} arrays as in the first batch of data, got {len(arrays)}.")
    for i, (array, (shape, dtype)) in enumerate(zip(arrays, alike, strict=True)):
        if (array.shape[1:], array.dtype) != (shape, dtype):
            raise ValueError(
                f"{array_name(i)} expected rows of shape {shape} and dtype {dtype} as in the first batch of data, "
                f"got {array.shape[1:]} and {array.dtype}."
            )


class _Named(NamedTuple):
    """A source, and what a checkpoint says of it."""

    source: Source
    told_by: Any


def _sources(given, seed, part):
    """The batches for training, and for validation or None."""
    if given.steps_per_epoch is not None:
        check_count(given.steps_per_epoch, "steps_per_epoch")
    if is_file(given.data):
        train, val = _file_sources(given, seed, part)
    elif given.weights is not None:
        raise ValueError("weights need rows that are counted, in arrays or numpy.memmap: got a stream of batches.")
    else:
        source = Batches(given.data, given.steps_per_epoch)
        train, val = _Named(source, f"batches of a {type(given.data).__name__}"), None
    return train, val if given.val_data is None else _validation_source(given, part)


def _file_sources(given, seed, part):
    if given.steps_per_epoch is not None:
        raise ValueError("steps_per_epoch belongs to streams of batches: leave it out for numpy.memmap.")
    arrays = _host(given.data)
    n = len(arrays[0])
    weights = as_weights(given.weights, n)
    order = np.arange(n, dtype=np.uint32 if n < 2**32 else np.uint64)
    np.random.default_rng(seed).shuffle(order)
    n_val = count_validation(n, given.val_prop) if given.val_data is None else 0
    rows, val_rows = order[: n - n_val], order[n - n_val :]
    name = " and ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
    train = FileRows(arrays, _scaled(weights, rows), rows, given.batch_size, seed, part)
    if not n_val:
        return _Named(train, name), None
    val = FileRows(arrays, _scaled(weights, val_rows), val_rows, given.batch_size, None, part)
    return _Named(train, name), _Named(val, name)


def _validation_source(given, part):
    data, weights = given.val_data, given.val_weights
    if is_stream(data) and not is_file(data):
        if weights is not None:
            raise ValueError("val_weights need rows that are counted: got a stream of batches as val_data.")
        source = Batches(data, None)
        if not source.can_repeat:
            raise ValueError(
                "val_data is read in every epoch: give a list, a loader, or a function that makes a generator."
            )
        return _Named(source, f"batches of a {type(data).__name__}")
    arrays = _host(data)
    rows = np.arange(len(arrays[0]))
    weights = _scaled(as_weights(weights, len(rows), "val_weights"), rows)
    source = FileRows(arrays, weights, rows, given.batch_size, None, part)
    return _Named(source, tuple(map(np.asarray, arrays)))


def _host(data):
    arrays = tuple(data) if isinstance(data, tuple | list) else (data,)
    arrays = tuple(array if isinstance(array, np.memmap) else np.asarray(array) for array in arrays)
    if any(len(array) != len(arrays[0]) for array in arrays) or len(arrays[0]) == 0:
        raise ValueError(f"data expected arrays with as many rows each, at least one, got {[len(a) for a in arrays]}.")
    return arrays


def _scaled(weights, rows):
    """Divided by the mean over some rows, so that the sum over a minibatch divided by its rows is unbiased."""
    return None if weights is None else (weights / mean_weight(weights[rows])).astype(default_float())


@run_once
def _begin(key, params, optimizer, averages, layout):
    return settled(layout, initial_state(key, params, optimizer, follow_best=True, averages=averages))
