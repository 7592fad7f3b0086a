"""Rows that the units of a flow do not suit, or the parameters of a distribution that has no units."""

from collections.abc import Sequence
from typing import Any

import jax.random as jr
import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._module import peel
from flowlib._warn import warn_user
from flowlib.distributions import AbstractDistribution, Transformed
from flowlib.errors import DataWarning
from flowlib.support import Real
from flowlib.train._data_checks import listed

# What units suit: locations so many scales apart, and scales that differ by such a factor.
_SUITS = 3.0, 3.0
# What is near a distribution that has no units, whose scale may be learnt.
_NEAR = 5.0, 10.0
# Of fewer rows, location and scale are known too badly to say.
_FEWEST = 10
# Draws that tell where a distribution without units lies.
_DRAWS = 500


def remark_kept_units(
    name: str | ArrayName,
    kept: tuple[Any, Any],
    found: tuple[np.ndarray, np.ndarray],
    x: np.ndarray,
    chosen: Any = True,
) -> None:
    """Warn of columns whose location and scale are far from the units that an earlier fit set.

    Args:
        name: of the array in the message.
        kept: location and logarithm of the scale in the units.
        found: location and scale of these rows.
        x: the rows, of the real numbers that the units are of.
        chosen: the columns that have units.
    """
    kept_location, kept_scale = np.asarray(peel(kept[0])), np.exp(np.asarray(peel(kept[1])))
    off = _far((kept_location, kept_scale), found, x, _SUITS) & chosen
    if len(x) < _FEWEST or not off.any():
        return
    columns, first = _named(off, name)
    values = [float(np.broadcast_to(a, off.shape).ravel()[first]) for a in (*found, kept_location, kept_scale)]
    warn_user(
        f"{name} does not suit the units that the flow keeps from an earlier fit, in {columns}: location "
        f"{values[0]:.4g} and scale {values[1]:.4g}, and the units are {values[2]:.4g} and {values[3]:.4g}. Pass "
        f'standardise="again" to set them anew.',
        DataWarning,
    )


def remark_raw_numbers(dist: Any, arrays: Sequence[Any], name: str | ArrayName = "x") -> None:
    """Warn of columns that are far from where a distribution without units lies, if they are no standardised ones."""
    node, x = peel(dist), np.asarray(arrays[0])
    if not isinstance(node, AbstractDistribution) or len(x) < _FEWEST:
        return
    found = _middle_and_spread(x)
    standard = np.zeros(x.shape[1:]), np.ones(x.shape[1:])
    if not _far(standard, found, x, _NEAR).any():
        return
    condition = None
    if node.cond_shape is not None:
        condition = arrays[1][np.linspace(0, len(x) - 1, _DRAWS).astype(int)]
    shape = _DRAWS if condition is None else ()
    lies = _middle_and_spread(np.asarray(dist.sample(jr.key(0), shape, condition), np.float64))
    off = _far(lies, found, x, _NEAR)
    if not off.any():
        return
    columns, first = _named(off, name)
    values = [float(a.ravel()[first]) for a in map(np.asarray, (*found, *lies))]
    over_reals = isinstance(node, Transformed) and isinstance(node.support, Real)
    remedy = (
        "give it units by flowlib.distributions.with_support(dist)" if over_reals else "begin with parameters near them"
    )
    warn_user(
        f"{name} is far from the {type(node).__name__} in {columns}: location {values[0]:.4g} and scale "
        f"{values[1]:.4g}, where the distribution has {values[2]:.4g} and {values[3]:.4g}. It has no units and is "
        f"fitted as it is: standardise the rows, or {remedy}.",
        DataWarning,
    )


def _middle_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and the standard deviation of a normal distribution with these quartiles: tails may have no moments."""
    low, middle, high = map(np.asarray, np.nanquantile(values.astype(np.float64), [0.25, 0.5, 0.75], axis=0))
    spread = np.asarray(high - low) / 1.349
    return middle, np.where(spread > 0, spread, values.std(axis=0))


def _far(kept, found, x, limits):
    """Which columns are far from where they should be; of constant ones the location alone counts."""
    (kept_location, kept_scale), (location, scale), (most, factor) = kept, found, limits
    varies = np.ptp(x, axis=0) > 0 if len(x) else np.zeros(x.shape[1:], bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        apart = abs(location - kept_location) > most * np.maximum(kept_scale, 0)
        ratio = scale / kept_scale
    return np.asarray(apart | (varies & ~((ratio <= factor) & (ratio >= 1 / factor))))


def _named(off, name):
    places = np.flatnonzero(off)
    names = [position(int(j), off.shape, name) for j in places]
    return f"{listed(names, 'column')} (counted from zero)" if off.ndim else "its only column", places[0]
