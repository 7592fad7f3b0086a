"""The rows of a fit: of training and of validation in one set of arrays, and their weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._array_name import ArrayName
from flowlib.train._data import as_weights, check_finite, count_validation
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._plan import Given
from flowlib.train._read import array_name, cast_to, data_dtype, in_full, read_data
from flowlib.train._state import trainable_half


class Looked(NamedTuple):
    """Rows that are looked at before a fit: cast, as they were before, and what messages call arrays and columns."""

    arrays: tuple[Any, ...]
    full: tuple[Any, ...]
    names: tuple[ArrayName, ...]
    weights: np.ndarray | None = None

    def counted(self) -> "Looked":
        """In NumPy, without the rows of weight 0."""
        arrays, full = ([np.asarray(array) for array in each] for each in (self.arrays, self.full))
        if self.weights is not None and not self.weights.all():
            counts = self.weights > 0
            arrays, full = [array[counts] for array in arrays], [array[counts] for array in full]
        return Looked(tuple(arrays), tuple(full), self.names)


def joined(looked: list[Looked]) -> Looked:
    """Several batches as one."""
    first = looked[0]
    arrays, full = (
        tuple(map(np.concatenate, zip(*parts, strict=True)))
        for parts in ([each.arrays for each in looked], [each.full for each in looked])
    )
    weights = [each.weights for each in looked if each.weights is not None]
    return Looked(arrays, full, first.names, np.concatenate(weights) if weights else None)


class Rows(NamedTuple):
    """Arrays with one leading length, first the rows of `data`, then those of `val_data`."""

    arrays: tuple[Array, ...]
    weights: np.ndarray | None
    # The rows of `data` alone, and how many of all rows are for validation.
    given: tuple[Array, ...]
    n_val: int
    # The rows of `data` in the precision of the caller, and what messages call the arrays and their columns.
    full: tuple[Any, ...]
    names: tuple[ArrayName, ...]

    @property
    def n_given(self) -> int:
        """The number of rows of `data`."""
        return len(self.given[0])

    @property
    def given_weights(self) -> np.ndarray | None:
        """Their weights."""
        return None if self.weights is None else self.weights[: self.n_given]

    @property
    def looked(self) -> Looked:
        """The rows of `data`, to look at."""
        return Looked(self.given, self.full, self.names, self.given_weights)


def gather_rows(given: Given) -> Rows:
    """Check and join what a fit is given.

    Raises:
        NonFiniteDataError, ValueError, TypeError: as `fit_to_data` says.
    """
    params, _ = trainable_half(given.dist)
    dtype = data_dtype(params)
    read = read_data(given.data)
    arrays = cast_to(dtype, read, given.dist)
    full, names = in_full(read, arrays), tuple(part.name for part in read)
    n_given = len(arrays[0])
    check_weighable(given)
    weights = as_weights(given.weights, n_given, labels=read[0].labels)
    n_val = count_validation(n_given, given.val_prop) if given.val_data is None else 0
    check_finite(arrays, names, full)
    if isinstance(given.loss_fn, AbstractRowLoss):
        given.loss_fn.check(given.dist, *arrays)
    if given.val_data is None:
        return Rows(arrays, weights, arrays, n_val, full, names)

    val_read = read_data(given.val_data, "val_data ")
    val = cast_to(dtype, val_read, given.dist)
    val_names = tuple(part.name for part in val_read)
    _check_alike(arrays, val, names, val_names)
    check_finite(val, val_names, in_full(val_read, val))
    n_val = len(val[0])
    val_weights = as_weights(given.val_weights, n_val, "val_weights", val_read[0].labels)
    if weights is not None or val_weights is not None:
        parts = (weights, n_given), (val_weights, n_val)
        weights = np.concatenate([np.ones(n) if part is None else part for part, n in parts])
    # In NumPy, which compiles nothing.
    joined = (np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(arrays, val, strict=True))
    return Rows(tuple(map(jnp.asarray, joined)), weights, arrays, n_val, full, names)


def check_weighable(given: Given) -> None:
    """Raise if there are weights that the loss, or the lack of validation rows, leaves without a use."""
    by_row = isinstance(given.loss_fn, AbstractRowLoss)
    if (given.weights is not None or given.val_weights is not None) and not by_row:
        raise TypeError("weights need a loss by row, an AbstractRowLoss such as MaximumLikelihoodLoss().")
    if given.val_weights is not None and given.val_data is None:
        raise ValueError("val_weights belong to val_data: got no val_data.")


def _check_alike(arrays, val, names, val_names):
    if len(arrays) != len(val):
        raise ValueError(f"val_data expected {len(arrays)} arrays as data has, got {len(val)}.")
    for i, (array, val_array) in enumerate(zip(arrays, val, strict=True)):
        want, got = (jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (array, val_array))
        if want != got:
            raise ValueError(
                f"val_data {array_name(i)} expected rows of shape {want.shape} and dtype {want.dtype} as in data, "
                f"got {got.shape} and {got.dtype}."
            )
        columns, val_columns = names[i].columns, val_names[i].columns
        if columns is not None and val_columns is not None and columns != val_columns:
            raise ValueError(
                f"{val_names[i]} expected the columns of {names[i]} in their order, {list(columns)}, "
                f"got {list(val_columns)}."
            )
