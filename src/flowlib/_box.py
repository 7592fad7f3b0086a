"""Columns with ends: how a user writes them down, and the maps between them and the real line."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib.support import Box, Circle, Integers, Interval, Positive, Real, Support

_WANTED = '"real", "positive", "circular", "integer", (low, high), or a Real, Positive, Interval, Circle or Integers'
_NAMED = {"real": Real(), "positive": Positive(), "circular": Circle(), "integer": Integers()}


def as_box(support: Any, shape: tuple[int, ...]) -> Box:
    """What a user wrote for events of `shape` as a `Box`: one spec for all columns, or a sequence with one for each.

    Raises:
        ValueError: for ends that are out of order, or a number of specs that does not fit.
        TypeError: for what is no spec.
    """
    box, whole = as_cells(support, shape)
    if any(whole):
        raise ValueError("support expected continuous columns, got whole numbers: put a Dequantized around the flow.")
    return box


def as_cells(support: Any, shape: tuple[int, ...]) -> tuple[Box, tuple[bool, ...]]:
    """What a user wrote as the box of the cells [n, n + 1) of whole numbers n, and which columns hold such.

    The latter has one entry, or one a column. Raises as `as_box`.
    """
    if isinstance(support, Box):
        columns = [(*ends, False) for ends in zip(support.lower, support.upper, support.circular, strict=True)]
        one = len(columns) == 1
    else:
        one = isinstance(support, str | Support) or (isinstance(support, tuple) and _is_pair(support))
        if one:
            columns = [_ends(support, "support")]
        elif isinstance(support, Sequence) and len(support) > 0:
            columns = [_ends(spec, f"support[{i}]") for i, spec in enumerate(support)]
        else:
            raise TypeError(f"support expected {_WANTED}, or a sequence of these, got {support!r}.")
    if not one and (len(shape) != 1 or len(columns) != shape[0]):
        wanted = f"{shape[0]} entries, one a column" if len(shape) == 1 else f"one entry for events of shape {shape}"
        raise ValueError(f"support expected {wanted}, got a sequence of {len(columns)}.")
    lower, upper, circular, whole = zip(*columns, strict=True)
    # All alike are written as one.
    alike = len({column[:3] for column in columns}) == 1
    box = Box(lower[:1], upper[:1], circular[:1]) if alike else Box(lower, upper, circular)
    return box, whole[:1] if len(set(whole)) == 1 else whole


def is_real(box: Box | None) -> bool:
    """Whether a support is the real line in every column."""
    return box is not None and bool(np.isinf([*box.lower, *box.upper]).all())


def shape_of(support: Any) -> tuple[int, ...]:
    """The shape of events that what a user wrote tells: a range for each coordinate makes vectors."""
    if isinstance(support, Box):
        return () if len(support.lower) == 1 else (len(support.lower),)
    one = isinstance(support, str | Support) or (isinstance(support, tuple) and _is_pair(support))
    return (len(support),) if not one and isinstance(support, Sequence) else ()


def as_support(box: Box) -> Support:
    """The simplest support that is the same set as the box."""
    if len(box.lower) != 1:
        return box
    lower, upper = min(box.lower), max(box.upper)
    if math.isfinite(lower) and math.isfinite(upper):
        return Circle(lower, upper) if box.circular[0] else Interval(lower, upper)
    if lower == 0:
        return Positive()
    return Real() if lower == -math.inf and upper == math.inf else box


def to_reals(box: Box, y: Any, cut: Any, xp: Any) -> tuple[Any, Any]:
    """The real number of each coordinate of y and log |dx/dy|, with NumPy or JAX as `xp`; see `ToSupport`.

    Coordinates outside are taken for the nearest member, so that nothing becomes infinite.
    """
    lower, upper, circular = box.columns(y.dtype)
    least, greatest = box.extremes(y.dtype)
    above, below, bounded = _kinds(lower, upper)
    x, log_slope = y, xp.zeros_like(y)
    # Not clip: at an end its derivative would be a half.
    y = xp.where(y < least, least, xp.where(y > greatest, greatest, y))
    start, end = np.where(np.isfinite(lower), lower, 0), np.where(np.isfinite(upper), upper, 0)
    if (above | below).any():
        log_distance = xp.log(xp.where(above, y - start, xp.where(below, end - y, 1)))
        x = xp.where(above, log_distance, xp.where(below, -log_distance, x))
        log_slope = xp.where(above | below, -log_distance, log_slope)
    if bounded.any():
        width = np.where(bounded, end - start, 1)
        past = xp.where(bounded, y - start, width / 2)
        rest = xp.where(bounded, end - y, width / 2)
        if circular.any():
            # A point at the cut itself counts as one beside it, which floats cannot tell from it.
            margin = width * np.finfo(y.dtype).eps
            around = xp.mod(y - cut, width)
            around = xp.where(around < margin, margin, xp.where(around > width - margin, width - margin, around))
            past, rest = xp.where(circular, around, past), xp.where(circular, width - around, rest)
        log_past, log_rest = xp.log(past), xp.log(rest)
        x = xp.where(bounded, log_past - log_rest, x)
        log_slope = xp.where(bounded, np.log(width) - log_past - log_rest, log_slope)
    return x, log_slope


def from_reals(box: Box, x: Array, cut: Array | None) -> tuple[Array, Array]:
    """The coordinate of each real number and log |dy/dx|: the inverse of `to_reals`."""
    lower, upper, circular = box.columns(x.dtype)
    least, greatest = box.extremes(x.dtype)
    above, below, bounded = _kinds(lower, upper)
    y, log_slope = x, jnp.zeros_like(x)
    start, end = np.where(np.isfinite(lower), lower, 0), np.where(np.isfinite(upper), upper, 0)
    if (above | below).any():
        exponent = jnp.where(above, x, jnp.where(below, -x, 0))
        log_slope = jnp.where(above | below, exponent, log_slope)
        # An infinite exponential would have the gradient 0 times infinity where it is not selected below.
        largest = math.log(np.finfo(x.dtype).max) - 1e-3
        distance = jnp.exp(jnp.where(exponent > largest, largest, exponent))
        y = jnp.where(above, start + distance, jnp.where(below, end - distance, y))
    if bounded.any():
        width = np.where(bounded, end - start, 1)
        logit = jnp.where(bounded, x, 0)
        past = width * jax.nn.sigmoid(logit)
        place = start + past
        if circular.any():
            place = jnp.where(circular, start + jnp.mod(cut + past - start, width), place)
        y = jnp.where(bounded, place, y)
        # Finite where the sigmoid rounds to 0 or 1.
        slope = np.log(width) - jax.nn.softplus(logit) - jax.nn.softplus(-logit)
        log_slope = jnp.where(bounded, slope, log_slope)
    # Roundings reach the ends, which are no members.
    return jnp.where(y < least, least, jnp.where(y > greatest, greatest, y)), log_slope


def _kinds(lower, upper):
    """Which columns are bounded below only, above only, and on both sides."""
    has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
    return has_lower & ~has_upper, has_upper & ~has_lower, has_lower & has_upper


def _ends(spec: Any, name: str) -> tuple[float, float, bool, bool]:
    """The ends, whether they are one point of a circle, and whether it holds the cells of whole numbers."""
    given = spec
    spec = _NAMED.get(spec, spec) if isinstance(spec, str) else spec
    if isinstance(spec, Real):
        return -math.inf, math.inf, False, False
    if isinstance(spec, Positive):
        return 0.0, math.inf, False, False
    if isinstance(spec, Integers):
        return spec.lower, spec.upper + 1, False, True
    pair = (spec.lower, spec.upper) if isinstance(spec, Interval | Circle) else spec
    if not _is_pair(pair):
        raise TypeError(f"{name} expected {_WANTED}, got {given!r}.")
    lower, upper = (float(end) for end in pair)
    if not lower < upper:
        raise ValueError(f"{name} expected ends with low < high, got ({lower:g}, {upper:g}).")
    if isinstance(spec, Circle) and not math.isfinite(upper - lower):
        raise ValueError(f"{name} expected a circle with finite ends, got ({lower:g}, {upper:g}).")
    return lower, upper, isinstance(spec, Circle), False


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim == 0
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
