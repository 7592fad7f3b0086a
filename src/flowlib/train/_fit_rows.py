"""A fit to rows that are all on the device."""

import zlib
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import default_float
from flowlib._run_once import run_once
from flowlib.train._data import mean_weight, split_rows
from flowlib.train._data_units import Filler, check_support, wrap_circular
from flowlib.train._epochs import MAX_EPOCHS, EpochProblem, run_epochs
from flowlib.train._explicit_axes import check_unsplit
from flowlib.train._in_support import check_in_support
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout
from flowlib.train._plan import FitPlan, Given
from flowlib.train._read import array_name
from flowlib.train._remarks import remark
from flowlib.train._rows import Rows, gather_rows
from flowlib.train._state import Descent, TrainState, initial_state, trainable_half

_OWN_KEYS = zlib.crc32(b"fit_to_data")


def prepare_rows(key: PRNGKeyArray, given: Given, descent: Descent, layout: Layout | None) -> FitPlan:
    """Check the data, put the distribution into their units, and begin."""
    if given.steps_per_epoch is not None:
        raise ValueError("steps_per_epoch belongs to streams of batches: leave it out for arrays.")
    if layout is None:
        check_unsplit(given.data, "give its mesh, fit_to_data(..., mesh=mesh)")
    loss_fn, batch_size = given.loss_fn, given.batch_size
    rows, _, dist, arrays = rows_in_units(given)
    params, static = trainable_half(dist)
    row_weights = None if rows.weights is None else jnp.asarray(rows.weights.astype(default_float()))
    sizes = len(rows.arrays[0]), rows.n_given, rows.n_val
    averages = descent.averaging is not None
    if layout is not None:
        key, row_weights = layout.replicated(key), layout.replicated(row_weights)
        first = _begin_on(layout, key, layout.placed(params), descent.optimizer, row_weights, *sizes, averages)
    else:
        first = _begin(key, params, descent.optimizer, row_weights, *sizes, averages)
    state, train_rows, val_rows, row_weights = first

    check_parts(rows, train_rows, val_rows)
    settings = {array_name(i): array for i, array in enumerate(rows.arrays)}
    settings |= {"weights": rows.weights, "rows": (rows.n_given, rows.n_val)}

    def dispatch(static):
        problem = EpochProblem(static, arrays, train_rows, val_rows, row_weights, loss_fn, descent, batch_size, layout)
        if layout is not None:
            on_all = layout.replicated((arrays, loss_fn, descent))
            problem = replace(
                problem, static=layout.placed(static), arrays=on_all[0], loss_fn=on_all[1], descent=on_all[2]
            )

        def run(epochs, state, cut):
            epochs = np.asarray(epochs, np.int32)
            epochs = jnp.asarray(epochs) if layout is None else layout.replicated(epochs)
            return *run_epochs((problem, epochs), state), True

        return run

    steps = -(-len(train_rows) // min(batch_size, len(train_rows)))
    # Looked at beside parameters that are elsewhere than a user may have put the rows.
    sample = arrays if layout is None else tuple(jnp.asarray(np.asarray(array)) for array in arrays)
    return FitPlan(static, state, rows.n_val > 0, settings, dispatch, MAX_EPOCHS, sample, steps, params)


def rows_in_units(given: Given) -> tuple[Rows, Filler, Any, tuple[Array, ...]]:
    """The rows, what fills units, the distribution in theirs, the arrays to train on; warns of likely mistakes."""
    rows = gather_rows(given)
    fill = given.units(given.dist, rows.full, rows.given_weights, name=rows.names[0])
    dist = fill(given.dist)
    arrays = (wrap_circular(dist, rows.arrays[0]), *rows.arrays[1:])
    # In NumPy, which compiles nothing.
    x, name = np.asarray(arrays[0]), rows.names[0]
    by_row = isinstance(given.loss_fn, AbstractRowLoss)
    for part, own in (x[: rows.n_given], name), (x[rows.n_given :], replace(name, name="val_data x")):
        if own is not name and len(part):
            check_support(dist, part, own)
        if by_row and len(part):
            check_in_support(dist, part, own)
    if by_row:
        remark(dist, rows.looked, as_it_is=fill.as_it_is)
    return rows, fill, dist, arrays


def check_parts(rows: Rows, *parts: Array) -> None:
    """Raise if all rows of a part, for training or for validation, have weight 0."""
    if rows.weights is not None:
        for part in filter(len, parts):
            mean_weight(rows.weights[np.asarray(part)])


def begin(
    key: PRNGKeyArray,
    params: Any,
    optimizer: Any,
    weights: Array | None,
    n_all: int,
    n_given: int,
    n_val: int,
    averages: bool,
) -> tuple[TrainState, Array, Array, Array | None]:
    """The first state, the rows for training and for validation, and weights of mean 1 over each; run it compiled."""
    # A shuffle sorts the very bits that the caller may have drawn the rows from with the same key split.
    split_key, key = jr.split(jr.fold_in(key, _OWN_KEYS))
    if n_all > n_given:
        order = jnp.arange(n_all, dtype=jnp.int32)
        train_rows, val_rows = order[:n_given], order[n_given:]
    else:
        train_rows, val_rows = split_rows(split_key, n_given, n_val)
    if weights is not None:
        # Divided by their means, so that the sum over a minibatch divided by its number of rows is unbiased.
        for rows in (train_rows, val_rows):
            weights = weights.at[rows].divide(weights[rows].mean())
    state = initial_state(key, params, optimizer, follow_best=True, averages=averages)
    return state, train_rows, val_rows, weights


_begin = run_once(begin)


@run_once
def _begin_on(layout, *arguments):
    return layout.settled(begin(*arguments))
