"""Data in the user's units: what a flow that works on standardised values learns of them before a fit.

All of it is NumPy on the host, with sums in float64: nothing is compiled anew for other data.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._arrays import float_dtype, promoted
from flowlib._box import as_box, as_cells, to_reals
from flowlib._module import peel
from flowlib.bijections import (
    BernsteinPolynomial,
    Chain,
    CubicSpline,
    HeavyTails,
    InDataUnits,
    LinearSpline,
    MonotoneIntegral,
    QuadraticSpline,
    RationalQuadraticSpline,
    Sandwich,
    SumOfSquares,
    ToSupport,
    asks_for_data,
)
from flowlib.distributions import AbstractTransformed, Dequantized, Transformed, init_from_data
from flowlib.support import Box, Real
from flowlib.train._data_checks import listed, numbers_in, portions
from flowlib.train._moments import as_float64, condition_units, moments
from flowlib.train._new_units import is_new, set_units
from flowlib.train._support_by_name import support_of_columns
from flowlib.train._whole_numbers import check_whole, in_cells, middles

# Rows from which normalisations are set.
_FIRST = 1000
# Maps of an interval that go on outside in straight lines. So do rational-quadratic splines, unless they are circular.
_STRAIGHT_OUTSIDE = (LinearSpline, QuadraticSpline, CubicSpline, BernsteinPolynomial, SumOfSquares, MonotoneIntegral)


def in_data_units(
    dist: Any,
    arrays: tuple[Any, ...],
    weights: Any = None,
    *,
    standardise: bool,
    support: Any,
    name: str | ArrayName = "x",
) -> Any:
    """The distribution with an `InDataUnits` of the location and scale of these data around its bijection.

    Only a `Transformed` whose support is the real line is changed: the parameters of other distributions mean
    something in the units of the data already. One that has units, from a fit before, keeps them; a premade flow onto
    another set is built with units that a first fit sets. Location and
    scale are the weighted mean and population standard deviation, of the unconstrained values (logarithms, logits)
    where there is a `support`; the scale of a constant column is 1. Integer conditions are labels, and stay.
    What a flow sets from data by itself (`init_from_data`) is set anew where it gets units.
    Where columns of the support are of whole numbers, the result is `Dequantized`; a flow inside such a distribution
    gets the units of data somewhere in their cells.

    Args:
        dist: any tree.
        arrays: `(x,)` or `(x, condition)`, rows on the first axis.
        weights: None, or one for each row. Rows of weight 0 have no part in location and scale, but must be valid.
        standardise: whether to use location and scale; else 0 and 1.
        support: None for the real line, or what `ToSupport` takes. Values on a circle count modulo its length,
            and it is cut in the widest gap between them; `wrap_circular` brings the data themselves into range.
        name: what messages call x and its columns.

    Raises:
        ValueError: if a row of x is not in the support, the support is not that of the units that `dist` has, or no
            weight is positive.
        TypeError: if there is a support and `dist` cannot take one, or the support is none.
    """
    support = support_of_columns(support, np.shape(arrays[0])[1:], name)
    if isinstance(dist, Dequantized):
        return _dequantized_in_units(dist, arrays, weights, standardise, support, name)
    units = _units_of(dist)
    if units is not None:
        box = _box_of(units)
        if support is not None:
            box_given, whole = as_cells(support, units.out_shape)
            _check_same((box_given, whole), (box, (False,)))
        if box is not None:
            _check_inside(box, arrays[0], _dtype_of(dist), name)
        elif standardise and is_new(dist.bijection) and np.shape(arrays[0])[1:] == dist.shape:
            wrapped = set_units(units, arrays, weights, _dtype_of(dist))
            return _initialised(eqx.tree_at(lambda dist: dist.bijection, dist, wrapped), arrays, weights)
        return dist
    if not (isinstance(dist, Transformed) and isinstance(dist.support, Real)):
        if support is not None:
            kind = f" of {dist.support.kind} support" if isinstance(dist, Transformed) else ""
            raise TypeError(
                f"support expected a Transformed over the real line to fit, got {type(dist).__name__}{kind}."
            )
        return dist
    box, whole = as_cells("real" if support is None else support, dist.shape)
    if np.shape(arrays[0])[1:] != dist.shape:
        # Arrays of a loss of the user's own need not be events.
        if support is not None:
            raise ValueError(f"support expected rows of x of shape {dist.shape}, got {np.shape(arrays[0])[1:]}.")
        return dist
    if any(whole):
        dequantized = Dequantized(dist, columns=None if all(whole) else whole)
        return _dequantized_in_units(dequantized, arrays, weights, standardise, support, name)
    if _is_real(box) and not standardise:
        return dist
    wrapped = _wrapped(dist, box, arrays, weights, standardise, name)
    return _initialised(eqx.tree_at(lambda dist: dist.bijection, dist, wrapped), arrays, weights)


def _initialised(dist, arrays, weights):
    """With the normalisations of the flow, if it has any, set from the first rows, as they are in the new units."""
    if not asks_for_data(dist.bijection):
        return dist
    chosen = slice(_FIRST) if weights is None else np.flatnonzero(np.asarray(weights) > 0)[:_FIRST]
    rows = [np.asarray(array)[chosen] for array in arrays[:2]]
    return init_from_data(dist, *rows) if len(rows[0]) > 1 else dist


def _dequantized_in_units(dist, arrays, weights, standardise, support, name):
    box = None
    if support is not None:
        box, whole = as_cells(support, dist.shape)
        if whole != dist.columns:
            raise ValueError("support has other columns of whole numbers than the Dequantized distribution.")
    if np.shape(arrays[0])[1:] != dist.shape:
        return dist
    check_support(dist, arrays[0], name)
    inner, rest = dist.dist, arrays[1:]
    if box is not None:
        _check_inside(box, middles(dist, arrays[0]), _dtype_of(dist), whole=dist.support.mask)
    in_units = in_data_units(inner, (in_cells(dist, arrays[0]), *rest), weights, standardise=standardise, support=box)
    return eqx.tree_at(lambda dist: dist.dist, dist, in_units)


def _wrapped(dist, box, arrays, weights, standardise, name):
    dtype = _dtype_of(dist)
    x = np.asarray(arrays[0])
    weights = None if weights is None else np.asarray(weights, np.float64)
    if weights is not None and not (weights > 0).any():
        raise ValueError("weights expected at least one positive weight, got none.")
    to_data, cut = None, None
    options: dict[str, Any] = {}
    if not _is_real(box):
        _check_inside(box, x, dtype, name)
        cut = _widest_gaps(box, x, weights, dist.shape) if any(box.circular) else None
        to_data = ToSupport(box, dist.shape, cut=None if cut is None else cut.astype(dtype))
    if standardise:
        location, scale = moments(x, weights, dtype, _Reals(box, cut))
        options = {"location": location, "scale": scale, **condition_units(dist.bijection, arrays, weights, dtype)}
    else:
        options = {"location": np.zeros((), dtype), "scale": np.ones((), dtype)}
    return InDataUnits(dist.bijection, to_data=to_data, **options)


def check_support(dist: Any, x: Any, name: str | ArrayName = "x") -> None:
    """Raise a ValueError that names column and rows if some are not in the support of the units of `dist`."""
    whole = None
    if isinstance(dist, Dequantized):
        check_whole(dist, x, name)
        x, whole, dist = middles(dist, x), dist.support.mask, dist.dist
    units = _units_of(dist)
    box = None if units is None else _box_of(units)
    if box is not None:
        _check_inside(box, x, _dtype_of(dist), name, whole)


def wrap_circular(dist: Any, x: Any) -> Any:
    """The rows of x with circular columns of the units of `dist` brought into range; x itself if all of them are."""
    dist = dist.dist if isinstance(dist, Dequantized) else dist
    units = _units_of(dist)
    box = None if units is None else _box_of(units)
    if box is None or not any(box.circular):
        return x
    lower, upper, circular = box.columns(np.float64)
    chosen = ... if circular.ndim == 0 else (..., np.flatnonzero(circular))
    lower, upper = lower[circular], upper[circular]
    values = np.asarray(x)
    given = values[chosen]
    wrapped = (lower + np.mod(given.astype(np.float64) - lower, upper - lower)).astype(values.dtype)
    # Both ends are on the circle: those that are there stay.
    wrapped = np.where((given >= lower) & (given <= upper), given, wrapped)
    if (wrapped == given).all():
        return x
    values = values.copy()
    values[chosen] = wrapped
    return values if isinstance(x, np.ndarray) else jnp.asarray(values)


class OutsideSplines(NamedTuple):
    """How many of the rows leave the widest interval of a flow's splines and the like, which is (lower, upper)."""

    rows_outside: int
    total: int
    bound: tuple[float, float]


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
    unconstrain, location, scale = as_float64, np.zeros(()), np.ones(())
    units = _units_of(dist)
    if units is not None:
        box = _box_of(units)
        if box is None:
            return None
        cut = peel(units.to_data).cut if any(box.circular) else None
        unconstrain = _Reals(box, None if cut is None else np.asarray(peel(cut), np.float64))
        location, scale = (np.asarray(peel(a), np.float64) for a in (units.location, units.log_scale))
        scale = np.exp(scale)
    bound = max(intervals, key=_width)
    lower, upper = bound
    last = _last(node.bijection if units is None else units.bijection)
    if isinstance(last, HeavyTails):
        # What is far out for the data can be well inside for the splines.
        lower, upper = (np.asarray(last.transform(np.full(last.shape, end))) for end in bound)
    outside, x = 0, np.asarray(x)
    for portion in portions(x):
        z = (unconstrain(x[portion]) - location) / scale
        outside += int(((z < lower) | (z > upper)).reshape(len(z), -1).any(axis=1).sum())
    return OutsideSplines(outside, len(x), bound)


def _units_of(dist: Any) -> InDataUnits | None:
    node = peel(dist)
    if not isinstance(node, AbstractTransformed):
        return None
    bijection = _last(node.bijection)
    return bijection if isinstance(bijection, InDataUnits) else None


def _last(bijection: Any) -> Any:
    """The last part of a bijection that may be a chain of chains."""
    bijection = peel(bijection)
    return _last(bijection[-1]) if isinstance(bijection, Chain) else bijection


def _box_of(units: InDataUnits) -> Box | None:
    """The support of the units, or None if it is not known by columns."""
    to_data = peel(units.to_data)
    if to_data is None:
        return as_box("real", units.out_shape)
    return to_data.box if isinstance(to_data, ToSupport) else None


def _is_real(box: Box) -> bool:
    return bool(np.isinf([*box.lower, *box.upper]).all())


def _check_same(new: Any, old: Any) -> None:
    if new != old:
        raise ValueError("support differs from that of an earlier fit, which the distribution keeps: build it anew.")


def _dtype_of(dist: Any) -> np.dtype:
    # Half precision would round the data; densities are computed in float32 in any case.
    return np.dtype(promoted(float_dtype(dist), jnp.float32))


class _Reals(NamedTuple):
    """The unconstrained values of data."""

    box: Box
    cut: np.ndarray | None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = as_float64(values)
        return values if _is_real(self.box) else to_reals(self.box, values, self.cut, np)[0]


def _widest_gaps(box: Box, x: np.ndarray, weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of the widest gap between the values on each circle; 0 for other columns."""
    columns = x.reshape(len(x), -1)
    if weights is not None:
        columns = columns[weights > 0]
    lower, upper, circular = (np.broadcast_to(a, shape).ravel() for a in box.columns(np.float64))
    cut = np.zeros(columns.shape[1])
    for j in np.flatnonzero(circular):
        width = upper[j] - lower[j]
        places = np.unique(np.mod(as_float64(columns[:, j]) - lower[j], width))
        gaps = np.diff(places, append=places[0] + width)
        widest = gaps.argmax()
        cut[j] = lower[j] + np.mod(places[widest] + gaps[widest] / 2, width)
    return cut.reshape(shape)


def _check_inside(
    box: Box, x: Any, dtype: np.dtype, name: str | ArrayName = "x", whole: np.ndarray | None = None
) -> None:
    """Raise a ValueError that names the first column with values outside the box; on circles all are inside.

    Of the `whole` columns, x has the middles of the cells of whole numbers.
    """
    if _is_real(box):
        return
    x = np.asarray(x)
    least, greatest = box.extremes(dtype)
    lower, upper, circular = box.columns(dtype)
    free = np.finfo(dtype).max
    ends = np.where(circular, -free, least), np.where(circular, free, greatest)
    least, greatest = (np.broadcast_to(end, x.shape[1:]).ravel() for end in ends)

    def outside(columns, j):
        with np.errstate(over="ignore"):
            values = columns.astype(dtype)
        return ~((values >= least[j]) & (values <= greatest[j]))

    flat = x.reshape(len(x), -1)
    bad = np.zeros(flat.shape[1], bool)
    for portion in portions(flat):
        bad |= outside(flat[portion], slice(None)).any(axis=0)
    if not bad.any():
        return
    j = int(bad.argmax())
    rows = np.flatnonzero(outside(flat[:, j], j))
    low, high = (float(np.broadcast_to(end, x.shape[1:]).ravel()[j]) for end in (lower, upper))
    value, wanted = float(flat[rows[0], j].astype(dtype)), numbers_in(low, high)
    if whole is not None and np.broadcast_to(whole, x.shape[1:]).ravel()[j]:
        value, wanted = value - 0.5, f"whole {numbers_in(low, high - 1, 'from', 'to')}"
    column = f"column {position(j, x.shape[1:], name)}" if x.ndim > 1 else ""
    within, at = (f" in {column}", f", {column}") if column else ("", "")
    # Subnormal numbers count as 0.
    at_end = value in (low, high) or low < value < high
    hint = " The ends have no density: add a little noise, or choose wider ends." if at_end else ""
    raise ValueError(
        f"{name} expected {wanted}{within}, got {value:.7g} at row {rows[0]}{at} "
        f"(counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}.{hint}"
    )


def _spline_intervals(node: Any) -> Iterator[tuple[float, float]]:
    """The intervals of all splines in a tree, those in static fields too: a coupling keeps its transformer there."""
    if isinstance(node, RationalQuadraticSpline):
        if node.edges != "circular":
            yield node.interval
        return
    if isinstance(node, _STRAIGHT_OUTSIDE):
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


def _width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]
