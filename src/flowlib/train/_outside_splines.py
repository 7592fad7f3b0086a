"""Rows that the splines of a flow meet outside of their interval, where they are straight lines."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from flowlib._module import peel
from flowlib.bijections import (
    BernsteinPolynomial,
    Chain,
    CubicSpline,
    HeavyTails,
    LinearSpline,
    MonotoneIntegral,
    QuadraticSpline,
    RationalQuadraticSpline,
    Sandwich,
    SumOfSquares,
)
from flowlib.distributions import AbstractTransformed, Dequantized
from flowlib.train._data_checks import portions
from flowlib.train._data_units import dtype_of, unconstrained
from flowlib.train._moments import as_float64
from flowlib.train._whole_numbers import middles

# Maps of an interval that go on outside in straight lines. So do rational-quadratic splines, unless they are circular.
STRAIGHT = (LinearSpline, QuadraticSpline, CubicSpline, BernsteinPolynomial, SumOfSquares, MonotoneIntegral)


class OutsideSplines(NamedTuple):
    """How many of the rows leave the widest interval of a flow's splines and the like, which is (lower, upper)."""

    rows_outside: int
    total: int
    bound: tuple[float, float]
    # The column in which most values are outside, and how many.
    column: int
    most: int


def outside_splines(dist: Any, x: Any) -> OutsideSplines | None:
    """Count the rows of x with a standardised value outside the interval of the splines; None for a flow without such.

    Polynomials and integrals on an interval count as splines. Of several the widest counts. Those in a `Sandwich` see
    other coordinates, and do not count, nor do circular ones. A last `HeavyTails` widens the interval. None too where
    the units have a `to_data` of another kind than `ToSupport`.
    """
    if isinstance(dist, Dequantized):
        return outside_splines(dist.dist, middles(dist, x))
    node = peel(dist)
    if not isinstance(node, AbstractTransformed):
        return None
    intervals = list(_spline_intervals(node.bijection))
    if not intervals:
        return None
    x, unconstrain, location, scale = np.asarray(x), as_float64, np.zeros(()), np.ones(())
    units = node.units
    if units is not None:
        if units.box is None:
            return None
        x, unconstrain = unconstrained(units, x, dtype_of(dist))
        location, scale = (np.asarray(peel(a), np.float64) for a in (units.location, units.log_scale))
        scale = np.exp(scale)
    bound = max(intervals, key=_width)
    lower, upper = bound
    last = _last(node.bijection if units is None else units.bijection)
    if isinstance(last, HeavyTails):
        # What is far out for the data can be well inside for the splines.
        lower, upper = (np.asarray(last.transform(np.full(last.shape, end))) for end in bound)
    outside, in_column = 0, np.zeros(math.prod(x.shape[1:]), int)
    for portion in portions(x):
        z = (unconstrain(x[portion]) - location) / scale
        beyond = ((z < lower) | (z > upper)).reshape(len(z), -1)
        outside += int(beyond.any(axis=1).sum())
        in_column += beyond.sum(axis=0)
    return OutsideSplines(outside, len(x), bound, int(in_column.argmax()), int(in_column.max()))


def _spline_intervals(node: Any) -> Iterator[tuple[float, float]]:
    """The intervals of all splines in a tree, those in static fields too: a coupling keeps its transformer there."""
    if isinstance(node, RationalQuadraticSpline):
        if node.edges != "circular":
            yield node.interval
        return
    if isinstance(node, STRAIGHT):
        yield node.interval
        return
    if isinstance(node, Sandwich):
        return
    if isinstance(node, eqx.Module):
        children = vars(node).values()
    else:
        children = node if isinstance(node, tuple | list) else node.values() if isinstance(node, dict) else ()
    for child in children:
        yield from _spline_intervals(child)


def _last(bijection: Any) -> Any:
    """The last part of a bijection that may be a chain of chains."""
    bijection = peel(bijection)
    return _last(bijection[-1]) if isinstance(bijection, Chain) else bijection


def _width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]
