"""Data in the user's units: what a fit fills into the units of a flow before it begins.

All of it is NumPy on the host, with sums in float64: nothing is compiled anew for other data.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jaxtyping import Array

from flowlib._array_name import ArrayName
from flowlib._arrays import float_dtype, promoted
from flowlib._box import is_real, to_reals
from flowlib._module import peel
from flowlib.bijections import InDataUnits, asks_for_data, backward_batch
from flowlib.distributions import Dequantized, Transformed, init_from_data, with_support
from flowlib.support import Box, Real
from flowlib.train._data_checks import listed
from flowlib.train._moments import as_float64, moments
from flowlib.train._support_by_name import support_of_columns
from flowlib.train._support_checks import check_inside
from flowlib.train._unit_checks import remark_kept_units
from flowlib.train._whole_numbers import check_whole, in_cells, middles

Standardise = bool | Literal["again"]
# Rows from which normalisations are set.
_FIRST = 1000


class UnitValues(NamedTuple):
    """What a fit puts into the units of a flow; None for what stays.

    The fields but the last are the arrays of `InDataUnits`, and the `cut` of its `ToSupport`; `first` are the rows that
    the normalisations of a flow are set from, if it has any.
    """

    location: np.ndarray | None = None
    log_scale: np.ndarray | None = None
    cut: np.ndarray | None = None
    cond_location: np.ndarray | None = None
    cond_log_scale: np.ndarray | None = None
    first: tuple[np.ndarray, ...] | None = None


class Filler(NamedTuple):
    """Puts a distribution on a support, and values into its units: of one like that for which they were found.

    Also of one of many that are stacked, under `eqx.filter_vmap`.
    """

    support: Any
    values: UnitValues
    # Whether units were asked for that the distribution does not have.
    as_it_is: bool = False

    def __call__(self, dist: Any) -> Any:
        """The distribution in the units of the data."""
        dist = dist if self.support is None else with_support(dist, self.support)
        *values, first = self.values
        names = UnitValues.__annotations__
        known = {name: jnp.asarray(a) for name, a in zip(names, values, strict=False) if a is not None}
        dist = _replaced(dist, known)
        return dist if first is None else init_from_data(dist, *first)


def in_data_units(
    dist: Any, arrays: tuple[Any, ...], weights: Any = None, *, standardise: Standardise, support: Any
) -> Any:
    """The distribution with location and scale of these data in its units; see `unit_filler`."""
    return unit_filler(dist, arrays, weights, standardise=standardise, support=support)(dist)


def unit_filler(
    dist: Any,
    arrays: tuple[Any, ...],
    weights: Any = None,
    *,
    standardise: Standardise,
    support: Any,
    name: str | ArrayName = "x",
) -> Filler:
    """What puts `dist`, or one like it, into the units of these data: the tree stays the same, its units get values.

    Units that are new get location and scale of the rows, units that a fit has set stay, and a warning tells of
    columns that they do not suit. A distribution without units is left alone, since its parameters mean something in
    the units of the data. Location and scale are the weighted mean and population standard deviation, of the
    unconstrained values (logarithms, logits) where there is a support; the scale of a constant column is 1. Where x
    gets units, what a flow sets from data by itself (`init_from_data`) is set too. A flow inside a `Dequantized` gets
    the units of data somewhere in their cells.

    Args:
        dist: any tree.
        arrays: `(x,)` or `(x, condition)`, rows on the first axis.
        weights: None, or one for each row. Rows of weight 0 have no part in location and scale, but must be valid.
        standardise: whether to set new units; "again" sets those of an earlier fit too.
        support: None, or what `with_support` takes, which it is short for, or a dictionary of such by column. Values on
            a circle count modulo its length,
            and it is cut in the widest gap between them; `wrap_circular` brings the data themselves into range.
        name: what messages call x and its columns.

    Raises:
        ValueError: if a row of x is not in the support, `dist` is on another support, or no weight is positive.
        TypeError: if there is a support and `dist` cannot take one, or the support is none.
    """
    shape = np.shape(arrays[0])[1:]
    support = support_of_columns(support, shape, name)
    if support is not None:
        dist = with_support(dist, support)
        if shape != dist.shape:
            raise ValueError(f"support expected rows of x of shape {dist.shape}, got {shape}.")
    if not hasattr(dist, "shape") or shape != dist.shape:
        # Arrays of a loss of the user's own need not be events.
        return Filler(support, UnitValues())
    weights = None if weights is None else np.asarray(weights, np.float64)
    if weights is not None and not (weights > 0).any():
        raise ValueError("weights expected at least one positive weight, got none.")
    check_support(dist, arrays[0], name)
    units = _units_of(dist)
    if units is None:
        return Filler(support, UnitValues(), as_it_is=bool(standardise))
    inner = dist
    if isinstance(dist, Dequantized):
        arrays, inner = (in_cells(dist, arrays[0]), *arrays[1:]), dist.dist
    values = _cut(units, arrays[0], weights, standardise, dtype_of(inner))
    if standardise:
        again = standardise == "again"
        values = _x_values(values, inner, units, arrays, weights, again, name)
        values = _condition_values(values, units, arrays, weights, again)
    return Filler(support, values)


def check_support(dist: Any, x: Any, name: str | ArrayName = "x") -> None:
    """Raise a ValueError that names column and rows if some are not in the support of the units of `dist`."""
    whole = None
    if isinstance(dist, Dequantized):
        check_whole(dist, x, name)
        x, whole, dist = middles(dist, x), dist.support.mask, dist.dist
    units = _units_of(dist)
    box = None if units is None else units.box
    if box is not None:
        check_inside(box, x, dtype_of(dist), name, whole)


def wrap_circular(dist: Any, x: Any) -> Any:
    """The rows of x with circular columns of the units of `dist` brought into range; x itself if all of them are."""
    units = _units_of(dist)
    box = None if units is None else units.box
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


def dtype_of(dist: Any) -> np.dtype:
    """The dtype of the units of a distribution: half precision would round the data."""
    return np.dtype(promoted(float_dtype(dist), jnp.float32))


class Reals(NamedTuple):
    """The unconstrained values of data."""

    box: Box
    cut: np.ndarray | None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = as_float64(values)
        return values if is_real(self.box) else to_reals(self.box, values, self.cut, np)[0]


def unconstrained(
    units: InDataUnits, x: Any, dtype: np.dtype, cut: np.ndarray | None = None
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """An array, and a function of a portion of its rows: the real numbers that `units.to_data` maps onto rows of x.

    Circles are cut at `cut`, by default where the units have it.

    Raises:
        ValueError: if a row of x is not what `to_data` can make.
    """
    x, box = np.asarray(x), units.box
    if box is not None:
        if cut is None and any(box.circular):
            cut = np.asarray(peel(peel(units.to_data).cut))
        return x, Reals(box, None if cut is None else cut.astype(np.float64))
    to_data = units.to_data
    values, valid = _real_values(to_data, jnp.asarray(x.astype(dtype)))
    outside = ~np.asarray(valid)
    if outside.any():
        rows = np.flatnonzero(outside)
        raise ValueError(
            f"x expected rows of {peel(to_data).codomain.kind} support, got {x[rows[0]].tolist()} at row "
            f"{rows[0]} (counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}."
        )
    return np.asarray(values), as_float64


def _units_of(dist: Any) -> InDataUnits | None:
    node = peel(dist)
    return node.units if isinstance(node, Transformed | Dequantized) else None


def _replaced(dist: Any, values: dict[str, Array]) -> Any:
    """The distribution with other values in arrays of its units, by their names; frozen arrays stay frozen."""

    def where(dist):
        units: Any = _units_of(dist)
        return [units.to_data.cut if name == "cut" else getattr(units, name) for name in values]

    new = [_like(old, value) for old, value in zip(where(dist), values.values(), strict=True)]
    return eqx.tree_at(where, dist, new) if values else dist


def _like(old: Any, value: Any) -> Any:
    return paramax.NonTrainable(value) if isinstance(old, paramax.NonTrainable) else value


def _cut(units, x, weights, standardise, dtype):
    """Where circles are cut, if units are to be set: in the widest gaps between the values."""
    box = units.box
    if box is None or not any(box.circular):
        return UnitValues()
    lower, _, circular = box.columns(np.float64)
    cut = np.asarray(peel(peel(units.to_data).cut))
    untouched = (cut == np.where(circular, lower, 0).astype(cut.dtype)).all()
    if standardise != "again" and not (untouched and units.is_unset):
        return UnitValues()
    return UnitValues(cut=_widest_gaps(box, np.asarray(x), weights, units.out_shape).astype(dtype))


def _x_values(values, dist, units, arrays, weights, again, name):
    """With location and scale of x, if it has a say in them and they are to be set."""
    dtype = dtype_of(dist)
    chosen = True if units.columns is None else units.columns
    if not np.any(chosen) or not (chosen is not True or isinstance(peel(dist.base_dist).support, Real)):
        return values
    x, unconstrain = unconstrained(units, arrays[0], dtype, values.cut)
    location, scale = moments(x, weights, dtype, unconstrain)
    chosen = np.broadcast_to(np.asarray(chosen), location.shape)
    fresh = units.is_unset
    if not fresh and not again:
        remark_kept_units(name, (units.location, units.log_scale), (location, scale), x, chosen)
        return values
    location, log_scale = np.where(chosen, location, 0), np.where(chosen, np.log(scale), 0)
    values = values._replace(location=location.astype(dtype), log_scale=log_scale.astype(dtype))
    return values._replace(first=_first(arrays, weights)) if fresh and asks_for_data(dist.bijection) else values


def _condition_values(values, units, arrays, weights, again):
    """With location and scale of the conditions, if there are any that are no labels and they are to be set."""
    condition = arrays[1] if len(arrays) > 1 else None
    if condition is None or units.cond_location is None or np.shape(condition)[1:] != units.cond_shape:
        return values
    floats = jnp.issubdtype(condition.dtype, jnp.floating)
    if units.labels and not floats:
        return values
    dtype = np.dtype(promoted(peel(units.cond_location).dtype, jnp.float32))
    location, scale = moments(np.asarray(condition), weights, dtype)
    if not again and not units.is_condition_unset:
        remark_kept_units(
            "condition", (units.cond_location, units.cond_log_scale), (location, scale), np.asarray(condition)
        )
        return values
    return values._replace(cond_location=location, cond_log_scale=np.log(scale).astype(dtype))


def _first(arrays, weights):
    """The rows that normalisations are set from, as they are in the new units; None where there are too few."""
    chosen = slice(_FIRST) if weights is None else np.flatnonzero(weights > 0)[:_FIRST]
    rows = tuple(np.asarray(array)[chosen] for array in arrays[:2])
    return rows if len(rows[0]) > 1 else None


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


@eqx.filter_jit
def _real_values(to_data: Any, x: Array) -> tuple[Array, Array]:
    values, log_det = backward_batch(to_data, jax.vmap(peel(to_data).codomain.in_range)(x))
    return values, log_det.valid & jnp.isfinite(values).reshape(len(x), -1).all(axis=1)
