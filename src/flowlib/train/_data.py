"""What a fit is given: turned into arrays, checked, and divided into training and validation rows."""

from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from flowlib._arrays import float_dtype, promoted, real_array
from flowlib._random import shuffled
from flowlib.distributions import AbstractSampler
from flowlib.errors import NonFiniteDataError


def as_arrays(data: Any, tree: Any, params: Any, of: str = "") -> tuple[Array, ...]:
    """The data as arrays with one leading length, floats in the precision of the parameters.

    Messages name them "x", "condition" and so on, after the prefix `of`.

    A tuple or list is several arrays; anything else is one. Integers stay (labels for an embedding, say),
    unless they are the events of a distribution.

    Raises:
        TypeError: if an array does not hold real numbers.
        ValueError: if there are no arrays or rows, or the numbers of rows differ.
    """
    data = tuple(data) if isinstance(data, tuple | list) else (data,)
    if not data:
        raise ValueError("fit_to_data expected at least one array of data, got none.")
    dtype = data_dtype(params)
    arrays = []
    for i, value in enumerate(data):
        # What overflows in the cast to float32 is infinite, and `check_finite` will say where.
        with np.errstate(over="ignore"):
            array = real_array(value, of + array_name(i), keep_integers=i > 0 or not isinstance(tree, AbstractSampler))
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != dtype:
            array = array.astype(dtype)
        if array.ndim == 0:
            raise ValueError(f"{of}{array_name(i)} expected rows on its first axis, got a single number.")
        if len(array) != len(arrays[0] if arrays else array):
            raise ValueError(f"{of}{array_name(i)} expected {len(arrays[0])} rows as {of}x has, got {len(array)}.")
        arrays.append(array)
    if len(arrays[0]) == 0:
        raise ValueError(f"{of}x expected at least one row, got shape {arrays[0].shape}.")
    return tuple(arrays)


def data_dtype(params: Any) -> np.dtype:
    """The dtype of floating data of a fit of such parameters."""
    # Half precision would round the data; densities are computed in float32 in any case.
    return jnp.finfo(promoted(float_dtype(params), jnp.float32)).dtype


def as_host_arrays(
    batch: tuple[np.ndarray, ...], tree: Any, dtype: Any, rows: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """What `as_arrays` and `check_finite` do, in NumPy alone: for threads beside the one that computes.

    `rows` are the numbers that messages name the rows by.

    Raises:
        NonFiniteDataError, TypeError, ValueError: as those do.
    """
    arrays = []
    for i, array in enumerate(batch):
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{array_name(i)} must hold real numbers, got dtype {array.dtype}. Convert it to float first."
            )
        if array.dtype.kind == "f" or (i == 0 and isinstance(tree, AbstractSampler)):
            with np.errstate(over="ignore"):
                array = array.astype(dtype, copy=False)
            if not np.isfinite(array).all():
                _raise_not_finite(i, array, rows=rows)
        elif array.dtype.kind in "iu":
            array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
        if array.ndim == 0 or len(array) != len(arrays[0] if arrays else array):
            raise ValueError(f"{array_name(i)} expected as many rows as x, got shape {array.shape}.")
        arrays.append(array)
    return tuple(arrays)


def check_finite(arrays: tuple[Array, ...], of: str = "") -> None:
    """Raise a NonFiniteDataError that names the first array, row and column with a NaN or infinity."""
    for i, finite in enumerate(jax.device_get(_finite(arrays))):
        if finite:
            continue
        _raise_not_finite(i, np.asarray(arrays[i]), of)


def _raise_not_finite(i: int, array: np.ndarray, of: str = "", rows: np.ndarray | None = None) -> NoReturn:
    bad = np.argwhere(~np.isfinite(array))
    row, *column = bad[0].tolist()
    place = f"row {row if rows is None else rows[row]}"
    if column:
        place += f", column {column[0]}" if len(column) == 1 else f", column {tuple(column)}"
    count = len(np.unique(bad[:, 0]))
    raise NonFiniteDataError(
        f"{of}{array_name(i)} expected finite numbers, got {array[tuple(bad[0])]} at {place} (counted from zero); "
        f"{count} of {len(array)} rows are not finite."
    )


def count_validation(rows: int, val_prop: Any) -> int:
    """How many of the rows are for validation: with `val_prop` > 0, at least one of two or more.

    Raises:
        ValueError: unless 0 <= val_prop < 1.
    """
    if isinstance(val_prop, bool) or not isinstance(val_prop, int | float | np.number) or not 0 <= val_prop < 1:
        raise ValueError(f"val_prop must be a number of at least 0 and less than 1, got {val_prop!r}.")
    if val_prop == 0 or rows == 1:
        return 0
    return min(max(round(val_prop * rows), 1), rows - 1)


def split_rows(key: PRNGKeyArray, rows: int, n_val: int) -> tuple[Int[Array, " train"], Int[Array, " val"]]:
    """Row numbers for training and for validation, at random; run it compiled."""
    order = shuffled(key, jnp.arange(rows, dtype=jnp.int32))
    return order[: rows - n_val], order[rows - n_val :]


@eqx.filter_jit
def _finite(arrays):
    return [jnp.isfinite(array).all() for array in arrays]


def array_name(i: int) -> str:
    """What messages call array `i` of the data."""
    return ("x", "condition")[i] if i < 2 else f"data[{i}]"


def as_weights(weights: Any, rows: int, name: str = "weights") -> np.ndarray | None:
    """Sample weights, one a row, over the largest of them; None stays None.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if there are not as many as rows, one is negative or not finite, or all are 0.
    """
    if weights is None:
        return None
    with np.errstate(over="ignore"):
        real_array(weights, name)
    # Importance weights can be beyond float32.
    array = np.asarray(weights, np.float64)
    if array.shape != (rows,):
        raise ValueError(f"{name} expected one number a row, of shape ({rows},), got {array.shape}.")
    bad = np.flatnonzero(~((array >= 0) & np.isfinite(array)))
    if len(bad):
        raise ValueError(
            f"{name} expected finite numbers of at least 0, got {array[bad[0]]} in row {bad[0]} (counted from zero)."
        )
    if not array.any():
        raise ValueError(f"{name} expected at least one above 0, got all 0.")
    # Their scale means nothing, and might not be one of float32.
    return array / array.max()


def mean_weight(weights: np.ndarray) -> float:
    """The mean of the weights of the rows for training, or of those for validation.

    Raises:
        ValueError: if it is 0.
    """
    mean = float(weights.mean())
    if mean == 0:
        raise ValueError(
            f"weights are 0 in all {len(weights)} rows that chance put together, for training or for validation: "
            f"leave out rows of weight 0, or give val_data."
        )
    return mean
