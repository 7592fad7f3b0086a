"""A fit to batches that come from the host."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count, default_float
from flowlib._host_array import host_array, read_array
from flowlib._run_once import run_once
from flowlib.train._data import as_weights, check_finite_on_host, count_validation, mean_weight
from flowlib.train._data_units import check_support, wrap_circular
from flowlib.train._epochs import settled
from flowlib.train._in_support import check_in_support
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout
from flowlib.train._plan import FitPlan, Given
from flowlib.train._processes import ALONE
from flowlib.train._read import array_name, as_parts, cast_on_host, data_dtype, in_full
from flowlib.train._remarks import remark
from flowlib.train._rows import Looked, check_weighable, joined
from flowlib.train._settings import moments_of
from flowlib.train._sources import Batch, Batches, FileRows, Source, is_file, is_stream
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

    def prepare_looked(batch, number, of):
        try:
            looked = _looked(batch, dist, dtype)
            arrays = looked.arrays
            if alike is not None:
                _check_alike(arrays, alike)
            check_support(dist, arrays[0], looked.names[0])
            arrays = wrap_circular(dist, arrays[0]), *arrays[1:]
            return looked._replace(arrays=arrays)
        except (ValueError, TypeError) as error:
            place = f"batch {number} of {of} (counted from zero)" if batch.rows is None else of
            raise type(error)(f"In {place}: {error}") from None

    def prepare(batch, number, of):
        looked = prepare_looked(batch, number, of)
        return looked.arrays, looked.weights

    def look():
        nonlocal alike
        taken = []
        for number, batch in enumerate(train.source.first(-(-_FIRST // processes.count) if shards else _FIRST)):
            looked = prepare_looked(batch, number, "data")
            alike = alike or [(array.shape[1:], array.dtype) for array in looked.arrays]
            taken.append(looked)
        if shards and layout is not None:
            layout.check_stream(len(taken[0].arrays[0]))
        sizes = tuple(len(looked.arrays[0]) for looked in taken[:_SIZES])
        if shards and layout is not None:
            sizes = ()
        return joined(taken), sizes

    # Of files, every process sees all rows.
    shards = isinstance(train.source, Batches)
    looked, sizes = processes.in_step(
        "Looking at the first batches", look, lambda found: (len(found[0].arrays), len(found[0].arrays[0])),
        "must find as many arrays and rows in every process",
    )  # fmt: skip
    if shards and processes.count > 1:
        arrays = tuple(map(processes.joined, looked.arrays))
        looked = looked._replace(arrays=arrays, full=arrays)
    first = tuple(map(jnp.asarray, looked.arrays))
    if isinstance(loss_fn, AbstractRowLoss):
        loss_fn.check(dist, *first)
    # `prepare` sees it from here on.
    fill = given.units(dist, looked.full, looked.weights, name=looked.names[0])
    dist = fill(dist)
    if isinstance(loss_fn, AbstractRowLoss):
        check_in_support(dist, wrap_circular(dist, looked.arrays[0]), looked.names[0])
        remark(dist, looked, as_it_is=fill.as_it_is)
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


def _looked(batch: Batch, dist: Any, dtype: Any) -> Looked:
    """A batch, read, cast and checked, in NumPy alone: for threads beside the one that computes."""
    read = tuple(read_array(array, array_name(i)) for i, array in enumerate(batch.arrays))
    names = tuple(part.name for part in read)
    arrays = cast_on_host(dtype, read, dist)
    full = in_full(read, arrays)
    for name, array in zip(names, arrays, strict=True):
        if array.ndim == 0 or len(array) != len(arrays[0]):
            raise ValueError(f"{name} expected as many rows as x, got shape {array.shape}.")
    check_finite_on_host(arrays, names, full, batch.rows)
    return Looked(arrays, full, names, batch.weights)


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
    arrays = tuple(
        part if isinstance(part, np.memmap) else np.asarray(host_array(part, array_name(i)))
        for i, part in enumerate(as_parts(data))
    )
    if any(len(array) != len(arrays[0]) for array in arrays) or len(arrays[0]) == 0:
        raise ValueError(f"data expected arrays with as many rows each, at least one, got {[len(a) for a in arrays]}.")
    return arrays


def _scaled(weights, rows):
    """Divided by the mean over some rows, so that the sum over a minibatch divided by its rows is unbiased."""
    return None if weights is None else (weights / mean_weight(weights[rows])).astype(default_float())


@run_once
def _begin(key, params, optimizer, averages, layout):
    return settled(layout, initial_state(key, params, optimizer, follow_best=True, averages=averages))
