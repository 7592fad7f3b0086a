"""Columns whose scale is lost when rows are cast to the precision of a fit. NumPy on the host."""

import math
from typing import Any

import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._warn import warn_user
from flowlib.errors import DataWarning
from flowlib.train._data_checks import listed

# The root mean square of the errors of the cast, over the standard deviation, from which the loss is told.
_TOLERATED = 0.01
# As many rows are looked at.
_LOOKED_AT = 100_000


def check_digits(full: Any, cast: Any, name: ArrayName | str = "x") -> np.ndarray:
    """Warn of the columns of which the cast leaves too little; these, as a mask of the shape of an event.

    `full` are the rows before they were cast.
    """
    full, cast = np.asarray(full), np.asarray(cast)
    event = cast.shape[1:]
    if full.dtype == cast.dtype or cast.dtype.kind != "f" or len(full) < 2:
        return np.zeros(event, bool)
    full, cast = (array[:: -(-len(array) // _LOOKED_AT)].reshape(-1, math.prod(event)) for array in (full, cast))
    spread, error = _spread_and_error(full, cast)
    lost = error > _TOLERATED * spread
    if lost.any():
        far, small = [], []
        tiny = float(np.finfo(cast.dtype).tiny)
        for j in np.flatnonzero(lost).tolist():
            column = full[:, j]
            place, size = position(j, event, name), abs(float(column[0]))
            if float(abs(column).max()) < 1e3 * tiny:
                small.append(f"{place} (below {tiny:.3g}, which counts as 0)")
            else:
                step = float(np.spacing(cast.dtype.type(size)))
                far.append(f"{place} (near {float(column[0]):.6g} in steps of {step:.3g}, deviation {spread[j]:.3g})")
        remedies = " Subtract a constant there." * bool(far) + " Divide by a constant there." * bool(small)
        warn_user(
            f"{name} loses its scale in {cast.dtype}, in {listed([*far, *small], 'column', '; ')}, counted from zero."
            f"{remedies} Or run with JAX_ENABLE_X64=1.",
            DataWarning,
        )
    return lost.reshape(event)


def _spread_and_error(full: np.ndarray, cast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviation of each column, and that of the errors that the cast makes in it."""
    # What is subnormal counts as 0.
    cast = np.where(abs(cast) < np.finfo(cast.dtype).tiny, 0, cast.astype(np.float64))
    errors = cast - full
    # In units of the widths nothing over- or underflows.
    middle = full.min(axis=0) / 2 + full.max(axis=0) / 2
    width = full.max(axis=0) / 2 - full.min(axis=0) / 2
    width = np.where(width > 0, width, 1)
    return width * ((full - middle) / width).std(axis=0), width * (errors / width).std(axis=0)
