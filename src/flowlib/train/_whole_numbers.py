"""Rows of whole numbers, as a `Dequantized` distribution takes them."""

from typing import Any

import numpy as np

from flowlib._array_name import ArrayName, cell
from flowlib.distributions import AbstractSampler, Dequantized
from flowlib.support import Integers, Joined, Support, Whole
from flowlib.train._data_checks import listed, numbers_in
from flowlib.train._read import data_dtype

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


def whole_columns(dist: AbstractSampler) -> np.ndarray:
    """Which coordinates of an event are whole numbers that have probabilities, of the shape of an event."""
    return _whole(dist.support, dist.shape)


def _whole(support: Support, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(support, Whole):
        return np.broadcast_to(support.mask, shape)
    if not isinstance(support, Joined):
        return np.full(shape, support.kind == "integers")
    axis, parts = support.axis % len(shape), []
    before, after = shape[:axis], shape[axis + 1 :]
    for part, size in zip(support.supports, support.sizes, strict=True):
        own = _whole(part, before + after if size is None else (*before, size, *after))
        parts.append(np.expand_dims(own, axis) if size is None else own)
    return np.concatenate(parts, axis)


def check_whole(dist: Dequantized, x: Any, name: str | ArrayName = "x") -> None:
    """Raise a ValueError that names the first column in which there should be whole numbers, or others, alone."""
    x = np.asarray(x)
    values = Integers() if dist.values is None else dist.values
    with np.errstate(invalid="ignore"):
        good = (x == np.floor(x)) & (x >= values.lower) & (x <= values.upper)
    bad = np.argwhere(~good & dist.support.mask)
    if not len(bad):
        _check_told_apart(dist, x, name)
        return
    index = tuple(bad[0].tolist())
    rows = np.unique(bad[:, 0])
    value = x[index]
    hint = " Pixels that were divided already? Give the whole numbers." if 0 < value < 1 else ""
    raise ValueError(
        f"{name} expected whole {numbers_in(values.lower, values.upper, 'from', 'to')}, got {value:.7g} at "
        f"{cell(index, name)} (counted from zero); {len(rows)} of {len(x)} rows have others, "
        f"{listed(rows.tolist(), 'row')}.{hint}"
    )


def _check_told_apart(dist: Dequantized, x: np.ndarray, name: str | ArrayName) -> None:
    dtype = data_dtype(dist)
    most = 2.0 ** (np.finfo(dtype).nmant + 1)
    bad = np.argwhere((abs(x) >= most) & dist.support.mask)
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(
            f"{name} expected whole numbers below {most:g} in size, which {dtype} tells from their neighbours, got "
            f"{x[index]:.15g} at {cell(index, name)} (counted from zero). Subtract a constant, or run with "
            f"JAX_ENABLE_X64=1."
        )
