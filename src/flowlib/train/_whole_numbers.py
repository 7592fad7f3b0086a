"""Rows of whole numbers, as a `Dequantized` distribution takes them."""

from typing import Any

import numpy as np

from flowlib.distributions import Dequantized
from flowlib.support import Integers
from flowlib.train._data_checks import listed, numbers_in, position

# Parts of a cell, in whose middles dequantized data are measured: sums of floats do not reach the cell's ends.
_PLACES = 64


def middles(dist: Dequantized, x: Any) -> np.ndarray:
    """The middles of the cells of whole numbers."""
    x = np.asarray(x)
    return np.where(dist.support.mask, x + np.asarray(0.5, x.dtype), x)


def in_cells(dist: Dequantized, x: Any) -> np.ndarray:
    """Places in the cells of whole numbers at random, the same each time."""
    x = np.asarray(x)
    places = (np.random.default_rng(0).integers(0, _PLACES, x.shape, np.uint8) + x.dtype.type(0.5)) / _PLACES
    return np.where(dist.support.mask, x + places.astype(x.dtype), x)


def check_whole(dist: Dequantized, x: Any, name: str = "x") -> None:
    """Raise a ValueError that names the first column in which there should be whole numbers, or others, alone."""
    x = np.asarray(x)
    values = Integers() if dist.values is None else dist.values
    with np.errstate(invalid="ignore"):
        good = (x == np.floor(x)) & (x >= values.lower) & (x <= values.upper)
    bad = np.argwhere(~good & dist.support.mask)
    if not len(bad):
        return
    row, *place = bad[0].tolist()
    rows = np.unique(bad[:, 0])
    column = f", column {position(int(np.ravel_multi_index(place, x.shape[1:])), x.shape[1:])}" if place else ""
    value = x[tuple(bad[0])]
    hint = " Pixels that were divided already? Give the whole numbers." if 0 < value < 1 else ""
    raise ValueError(
        f"{name} expected whole {numbers_in(values.lower, values.upper, 'from', 'to')}, got {value:.7g} at row {row}"
        f"{column} (counted from zero); {len(rows)} of {len(x)} rows have others, {listed(rows.tolist(), 'row')}.{hint}"
    )
