"""A fit to rows that are all on the device."""

import zlib
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib._arrays import default_float
from flowlib._run_once import run_once
from flowlib.train._data import split_rows
from flowlib.train._data_units import check_support, wrap_circular
from flowlib.train._epochs import MAX_EPOCHS, EpochProblem, run_epochs
from flowlib.train._fingerprint import fingerprint
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._plan import FitPlan
from flowlib.train._remarks import remark
from flowlib.train._rows import gather_rows
from flowlib.train._state import Descent, initial_state, trainable_half

_OWN_KEYS = zlib.crc32(b"fit_to_data")


def prepare_rows(
    key: Any,
    dist: Any,
    data: Any,
    loss_fn: Any,
    units: Any,
    weights: Any,
    val_data: Any,
    val_weights: Any,
    val_prop: Any,
    descent: Descent,
    batch_size: int,
) -> FitPlan:
    """Check the data, put the distribution into their units, and begin."""
    rows = gather_rows(dist, data, loss_fn, weights, val_data, val_weights, val_prop)
    dist = units(dist, rows.given, rows.given_weights)
    arrays = (wrap_circular(dist, rows.arrays[0]), *rows.arrays[1:])
    check_support(dist, arrays[0][rows.n_given :], "val_data x")
    if isinstance(loss_fn, AbstractRowLoss):
        remark(dist, rows.given)
    params, static = trainable_half(dist)
    row_weights = None if rows.weights is None else jnp.asarray(rows.weights.astype(default_float()))
    state, train_rows, val_rows, row_weights = _begin(
        key, params, descent.optimizer, row_weights, len(rows.arrays[0]), rows.n_given, rows.n_val,
        descent.averaging is not None,
    )  # fmt: skip

    def settings():
        arrays = {_name(i): fingerprint(array) for i, array in enumerate(rows.arrays)}
        return {**arrays, "weights": fingerprint(rows.weights), "rows": fingerprint((rows.n_given, rows.n_val))}

    def dispatch(static):
        problem = EpochProblem(static, arrays, train_rows, val_rows, row_weights, loss_fn, descent, batch_size)

        def run(epochs, state, cut):
            return *run_epochs((problem, jnp.asarray(np.asarray(epochs, np.int32))), state), True

        return run

    steps = -(-len(train_rows) // min(batch_size, len(train_rows)))
    return FitPlan(static, state, rows.n_val > 0, settings, dispatch, MAX_EPOCHS, arrays, steps)


def _name(i):
    return ("x", "condition")[i] if i < 2 else f"data[{i}]"


@run_once
def _begin(key, params, optimizer, weights, n_all, n_given, n_val, averages):
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
