"""Columns whose scale is lost when rows are cast to the precision of a fit. NumPy on the host."""

from typing import Any

import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._warn import warn_user
from flowlib.errors import DataWarning
from flowlib.train._data_checks import listed, portions

# The root mean square of the errors of the cast, over the standard deviation, from which the loss is told.
_TOLERATED = 0.01


def check_digits(full: Any, cast: Any, name: ArrayName | str = "x") -> np.ndarray:
    """Warn of the columns of which the cast leaves too little; these, as a mask of the shape of an event.

    `full` are the rows before they were cast.
    """
    full, cast = np.asarray(full), np.asarray(cast)
    event = cast.shape[1:]
    if full.dtype == cast.dtype or cast.dtype.kind != "f" or len(full) < 2:
        return np.zeros(event, bool)
    spread, error = _spread_and_error(full.reshape(len(full), -1), cast.reshape(len(cast), -1))
    lost = error > _TOLERATED * spread
    if lost.any():
        far, small = [], []
        tiny = float(np.finfo(cast.dtype).tiny)
        for j in np.flatnonzero(lost).tolist():
            column = full.reshape(len(full), -1)[:, j]
            place, size = position(j, event, name), abs(float(column[0]))
            if float(abs(column).max()) < 1e3 * tiny:
                small.append(f"{place} (below {tiny:.3g}, which counts as 0)")
            else:
                step = float(np.spacing(cast.dtype.type(size)))
                far.append(f"{place} (near {float(column[0]):.6g} in steps of {step:.3g}, deviation {spread[j]:.3g})")
        remedies = " Subtract a constant from them." * bool(far) + " Divide them by a constant." * bool(small)
        warn_user(
            f"{name} loses its scale in {cast.dtype}, in {listed([*far, *small], 'column', '; ')}, counted from zero."
            f"{remedies} Or run with JAX_ENABLE_X64=1.",
            DataWarning,
        )
    return lost.reshape(event)


def _spread_and_error(full: np.ndarray, cast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviation of each column, and the root mean square of the errors that the cast makes in it."""
    n, count = len(full), full.shape[1]
    least, at = (array.min(axis=0).astype(np.float64) for array in (full, cast))
    # In units of the width of each column nothing over- or underflows.
    width = full.max(axis=0) - least
    width = np.where(width > 0, width, 1)
    total, squares, errors = np.zeros(count), np.zeros(count), np.zeros(count)
    for portion in portions(full):
        own = (full[portion] - least) / width
        # Rows are told apart by differences, of which what is subnormal counts as 0.
        rough = cast[portion].astype(np.float64) - at
        rough = np.where(abs(rough) < np.finfo(cast.dtype).tiny, 0, rough) / width
        total += own.sum(axis=0)
        squares += np.square(own).sum(axis=0)
        errors += np.square(rough - own).sum(axis=0)
    variance = np.maximum(squares / n - np.square(total / n), 0)
    return width * np.sqrt(variance), width * np.sqrt(errors / n)
