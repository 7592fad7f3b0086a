"""The rows of a fit: checked, weighed, and divided into training and validation rows."""

from collections.abc import Sequence
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from flowlib._array_name import ArrayName, cell
from flowlib._host_array import read_array
from flowlib._random import shuffled
from flowlib._tables import check_same_rows
from flowlib.errors import NonFiniteDataError


def check_finite(arrays: tuple[Array, ...], names: Sequence[ArrayName], full: tuple[Any, ...]) -> None:
    """Raise a NonFiniteDataError that names the first array, row and column with a NaN or infinity.

    `full` are the arrays before they were cast.
    """
    for array, finite, name, given in zip(arrays, jax.device_get(_finite(arrays)), names, full, strict=True):
        if not finite:
            _raise_not_finite(np.asarray(array), name, given)


def check_finite_on_host(
    arrays: tuple[np.ndarray, ...], names: Sequence[ArrayName], full: tuple[Any, ...], rows: np.ndarray | None = None
) -> None:
    """What `check_finite` does, in NumPy alone. `rows` are the numbers that messages name the rows by."""
    for array, name, given in zip(arrays, names, full, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            _raise_not_finite(array, name, given, rows)


def _raise_not_finite(array: np.ndarray, name: ArrayName, full: Any, rows: np.ndarray | None = None) -> NoReturn:
    bad = np.argwhere(~np.isfinite(array))
    row, *column = index = tuple(bad[0].tolist())
    place = cell((row if rows is None else int(rows[row]), *column), name)
    count = len(np.unique(bad[:, 0]))
    given = np.asarray(full)[index]
    beyond = f" {given:g} is beyond {array.dtype}: give it in another unit." if np.isfinite(given) else ""
    raise NonFiniteDataError(
        f"{name} expected finite numbers, got {array[index]} at {place} (counted from zero); "
        f"{count} of {len(array)} rows are not finite.{beyond}"
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


def as_weights(weights: Any, rows: int, name: str = "weights", labels: Any = None) -> np.ndarray | None:
    """Sample weights, one a row, over the largest of them; None stays None. `labels` are those of the rows of x.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if there are not as many as rows, one is negative or not finite, all are 0, or their labels differ
            from those of the rows.
    """
    if weights is None:
        return None
    read = read_array(weights, name)
    # Importance weights can be beyond float32.
    array = np.asarray(read.values, np.float64)
    if array.shape != (rows,):
        raise ValueError(f"{name} expected one number a row, of shape ({rows},), got {array.shape}.")
    check_same_rows(labels, "x", read.labels, name)
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
