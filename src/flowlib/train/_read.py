"""What a fit is given as data, read: arrays as they were given, with the names of their columns, and cast."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._arrays import float_dtype, promoted, real_array, without_wide_integers
from flowlib._host_array import GivenArray, is_real_dtype, is_sparse, read_array
from flowlib._tables import check_same_rows, is_table
from flowlib.distributions import AbstractSampler


def array_name(i: int) -> str:
    """What messages call array `i` of the data."""
    return ("x", "condition")[i] if i < 2 else f"data[{i}]"


def as_parts(data: Any) -> tuple[Any, ...]:
    """The arrays in data: a tuple, or a list of arrays, is several; a list of rows, and anything else, is one."""
    return tuple(data) if isinstance(data, tuple | list) and not is_list_of_rows(data) else (data,)


def is_list_of_rows(data: Any) -> bool:
    """Whether data are a list of numbers, or of flat lists or tuples of numbers: one array, written out."""
    if not isinstance(data, list) or not data:
        return False
    rows = [row if isinstance(row, list | tuple) else (row,) for row in data]
    return all(row and all(isinstance(number, numbers.Real) for number in row) for row in rows)


def is_one_array(data: Any) -> bool:
    """Whether data are a table, a list of rows or a sparse matrix: one array, though one can iterate over them."""
    return is_table(data) or is_list_of_rows(data) or is_sparse(data)


def copied(part: Any) -> Any:
    """An array or table of a batch, out of the reach of whoever made it; what is masked, or a table, stays so."""
    if isinstance(part, jax.Array) or is_sparse(part):
        return part
    if is_table(part):
        # Those of pandas alone can be changed.
        return part.copy() if hasattr(part, "iloc") else part
    return np.array(part, subok=True)


def count_rows(part: Any) -> int:
    """The length of the first axis; 0 where there is none."""
    shape = part.shape if hasattr(part, "shape") else (len(part),)
    return int(shape[0]) if shape else 0


def read_data(data: Any, of: str = "") -> tuple[GivenArray, ...]:
    """The arrays of data, with one leading length. Messages name them "x", "condition" and so on, after `of`.

    Raises:
        TypeError: if an array does not hold real numbers.
        ValueError: if there are no arrays or rows, the numbers of rows differ, or tables have other indexes.
    """
    parts = as_parts(data)
    if not parts:
        raise ValueError("fit_to_data expected at least one array of data, got none.")
    read: list[GivenArray] = []
    for i, value in enumerate(parts):
        part = read_array(value, of + array_name(i))
        if part.values.ndim == 0:
            raise ValueError(f"{part.name} expected rows on its first axis, got a single number.")
        first = read[0] if read else part
        if len(part.values) != len(first.values):
            raise ValueError(f"{part.name} expected {len(first.values)} rows as {of}x has, got {len(part.values)}.")
        check_same_rows(first.labels, first.name, part.labels, part.name)
        read.append(part)
    if len(read[0].values) == 0:
        raise ValueError(f"{of}x expected at least one row, got shape {read[0].values.shape}.")
    return tuple(read)


def data_dtype(params: Any) -> np.dtype:
    """The dtype of floating data of a fit of such parameters."""
    # Half precision would round the data; densities are computed in float32 in any case.
    return jnp.finfo(promoted(float_dtype(params), jnp.float32)).dtype


def cast_to(dtype: Any, read: tuple[GivenArray, ...], tree: Any) -> tuple[Array, ...]:
    """The arrays with floats in a dtype. Integers stay (labels for an embedding), unless they are events.

    What overflows is infinite.
    """
    arrays = []
    for i, part in enumerate(read):
        with np.errstate(over="ignore"):
            array = real_array(part.values, part.name.name, keep_integers=_keeps_integers(i, tree))
        cast = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != dtype
        arrays.append(array.astype(dtype) if cast else array)
    return tuple(arrays)


def cast_on_host(dtype: Any, read: tuple[GivenArray, ...], tree: Any) -> tuple[np.ndarray, ...]:
    """What `cast_to` does, in NumPy alone: for threads beside the one that computes."""
    arrays = []
    for i, part in enumerate(read):
        array = np.asarray(part.values)
        if not is_real_dtype(array.dtype):
            raise TypeError(f"{part.name} must hold real numbers, got dtype {array.dtype}. Convert it to float first.")
        array = without_wide_integers(array) if _keeps_integers(i, tree) else array
        whole = array.dtype.kind in "iub" and _keeps_integers(i, tree)
        with np.errstate(over="ignore"):
            array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype) if whole else dtype, copy=False)
        arrays.append(array)
    return tuple(arrays)


def in_full(read: tuple[GivenArray, ...], arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays in the precision of the caller where that is more than theirs; whole events then in float64.

    What is measured on rows is measured on these: a cast to float32 loses digits.
    """
    return tuple(map(_in_full, (part.values for part in read), arrays))


def _in_full(values: Any, array: Any) -> Any:
    if isinstance(values, jax.Array) or not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if values.dtype.kind in "iub":
        return values.astype(np.float64)
    return values if values.dtype == np.float64 else array


def _keeps_integers(i: int, tree: Any) -> bool:
    return i > 0 or not isinstance(tree, AbstractSampler)
