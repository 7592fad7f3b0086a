"""The rows of a fit: of training and of validation in one set of arrays, and their weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib.train._data import array_name, as_arrays, as_weights, check_finite, count_validation
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._plan import Given
from flowlib.train._state import trainable_half


class Rows(NamedTuple):
    """Arrays with one leading length, first the rows of `data`, then those of `val_data`."""

    arrays: tuple[Array, ...]
    weights: np.ndarray | None
    # The rows of `data` alone, and how many of all rows are for validation.
    given: tuple[Array, ...]
    n_val: int

    @property
    def n_given(self) -> int:
        """The number of rows of `data`."""
        return len(self.given[0])

    @property
    def given_weights(self) -> np.ndarray | None:
        """Their weights."""
        return None if self.weights is None else self.weights[: self.n_given]


def gather_rows(given: Given) -> Rows:
    """Check and join what a fit is given.

    Raises:
        NonFiniteDataError, ValueError, TypeError: as `fit_to_data` says.
    """
    params, _ = trainable_half(given.dist)
    arrays = as_arrays(given.data, given.dist, params)
    n_given = len(arrays[0])
    check_weighable(given)
    weights = as_weights(given.weights, n_given)
    n_val = count_validation(n_given, given.val_prop) if given.val_data is None else 0
    check_finite(arrays)
    if isinstance(given.loss_fn, AbstractRowLoss):
        given.loss_fn.check(given.dist, *arrays)
    if given.val_data is None:
        return Rows(arrays, weights, arrays, n_val)

    val = as_arrays(given.val_data, given.dist, params, "val_data ")
    _check_alike(arrays, val)
    check_finite(val, "val_data ")
    n_val = len(val[0])
    val_weights = as_weights(given.val_weights, n_val, "val_weights")
    if weights is not None or val_weights is not None:
        parts = (weights, n_given), (val_weights, n_val)
        weights = np.concatenate([np.ones(n) if part is None else part for part, n in parts])
    # In NumPy, which compiles nothing.
    joined = (np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(arrays, val, strict=True))
    return Rows(tuple(map(jnp.asarray, joined)), weights, arrays, n_val)


def check_weighable(given: Given) -> None:
    """Raise if there are weights that the loss, or the lack of validation rows, leaves without a use."""
    by_row = isinstance(given.loss_fn, AbstractRowLoss)
    if (given.weights is not None or given.val_weights is not None) and not by_row:
        raise TypeError("weights need a loss by row, an AbstractRowLoss such as MaximumLikelihoodLoss().")
    if given.val_weights is not None and given.val_data is None:
        raise ValueError("val_weights belong to val_data: got no val_data.")


def _check_alike(arrays, val):
    if len(arrays) != len(val):
        raise ValueError(f"val_data expected {len(arrays)} arrays as data has, got {len(val)}.")
    for i, (array, val_array) in enumerate(zip(arrays, val, strict=True)):
        want, got = (jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (array, val_array))
        if want != got:
            raise ValueError(
                f"val_data {array_name(i)} expected rows of shape {want.shape} and dtype {want.dtype} as in data, "
                f"got {got.shape} and {got.dtype}."
            )
