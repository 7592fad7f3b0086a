"""What a user gives as an array of real numbers, as NumPy has it: nothing hidden, in a dtype that JAX knows."""

import numbers
from decimal import Decimal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._array_name import ArrayName, cell
from flowlib._tables import read_table


class GivenArray(NamedTuple):
    """An array as it was given: its numbers in their own dtype, its name, and the labels of its rows (of pandas)."""

    values: np.ndarray | Array
    name: ArrayName
    labels: Any = None


def read_array(value: Any, name: str) -> GivenArray:
    """What was given as an array or a table. An array of JAX stays as it is.

    Raises:
        TypeError: if it does not hold real numbers; for sparse matrices.
        ValueError: for an array of which cells are masked.
    """
    if isinstance(value, jax.Array):
        return GivenArray(value, ArrayName(name))
    table = read_table(value, name, _real)
    if table is None:
        return GivenArray(_real(value, name), ArrayName(name))
    return GivenArray(table.values, ArrayName(name, table.columns), table.index)


def host_array(value: Any, name: str) -> np.ndarray | Array:
    """The numbers of `read_array` alone."""
    return value if isinstance(value, jax.Array) else read_array(value, name).values


def is_real_dtype(dtype: Any) -> bool:
    """Whether numbers of a dtype are real: floating, whole or boolean."""
    # Those of JAX's own floats have no kind of their own in NumPy.
    return dtype.kind in "fiub" or jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse matrix, of SciPy or of JAX."""
    return hasattr(value, "nnz" if hasattr(value, "toarray") else "nse") and not isinstance(value, np.ndarray)


def _real(value: Any, name: str) -> np.ndarray:
    if type(value) is not np.ndarray:
        if is_sparse(value):
            dense = "toarray" if hasattr(value, "toarray") else "todense"
            raise TypeError(f"{name} expected a dense array, got a sparse {type(value).__name__}: give its .{dense}().")
        if _has_masked(value):
            value = np.ma.array(value)
            _check_unmasked(value, name)
        try:
            value = np.asarray(value)
        except ValueError:
            raise TypeError(f"{name} must be an array of real numbers, got ragged {type(value).__name__}.") from None
    if value.dtype.hasobject and value.dtype.names is None:
        value = _numbers(value, name)
    if not is_real_dtype(value.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {value.dtype}.{_remedy(value.dtype)}")
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    # JAX has no longer floats.
    return value.astype(np.float64) if value.dtype.kind == "f" and value.dtype.itemsize > 8 else value


def _has_masked(value: Any) -> bool:
    """Whether there is a masked array in nested lists, of which NumPy would take the numbers under the mask."""
    if isinstance(value, list | tuple):
        return any(isinstance(part, list | tuple | np.ma.MaskedArray) and _has_masked(part) for part in value)
    return isinstance(value, np.ma.MaskedArray)


def _check_unmasked(value: np.ma.MaskedArray, name: str) -> None:
    masked = np.argwhere(np.ma.getmaskarray(value))
    if not len(masked):
        return
    place, count = "", ""
    if value.ndim:
        rows = len(np.unique(masked[:, 0]))
        place = f" at {cell(tuple(masked[0].tolist()))} (counted from zero)"
        count = f"; {rows} of {len(value)} rows have such"
    raise ValueError(f"{name} has a masked number{place}{count}. Leave such rows out, or fill them with numbers.")


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    """An array of objects, if they are real numbers of Python's, as one of numbers."""
    for index, item in np.ndenumerate(array):
        if not isinstance(item, numbers.Real | Decimal | np.bool_):
            at = f" at {cell(index)} (counted from zero)" if index else ""
            hint = " A dict of columns? Give a table." if isinstance(item, dict) else _remedy(array.dtype)
            what = repr(item) if isinstance(item, str | bytes | type(None)) else type(item).__name__
            raise TypeError(f"{name} must hold real numbers, got dtype object: {what}{at}.{hint}")
    flat = np.array(array.ravel().tolist())
    # Fractions, decimals, and whole numbers beyond 64 bits.
    flat = np.array([float(item) for item in array.flat]) if flat.dtype.hasobject else flat
    return flat.reshape(array.shape)


def _remedy(dtype: np.dtype) -> str:
    if dtype.kind in "Mm":
        return " Make it a number first, such as days since the first row."
    if dtype.kind == "c":
        return " Give its real and imaginary parts as columns."
    return " Convert it to float first."
