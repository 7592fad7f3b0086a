"""The support and the units of a flow: said when it is made, put around one that exists, found again by a fit."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
import paramax

from flowlib._arrays import is_concrete
from flowlib._box import as_box, as_cells
from flowlib._module import peel
from flowlib.bijections import AbstractBijection, Chain, EmbedCondition, InDataUnits, ToSupport
from flowlib.distributions._dequantized import Dequantized
from flowlib.distributions._distribution import AbstractDistribution
from flowlib.distributions._transformed import AbstractTransformed, Transformed
from flowlib.support import Box, Real

T = TypeVar("T")


def with_support(dist: Any, support: Any = "real") -> AbstractDistribution:
    """The same flow for data of this support: it has no density, and no draws, outside.

    A flow over the real line gets an `InDataUnits` with a `ToSupport` in it, at location 0 and scale 1, which a first
    fit sets; a premade flow has one already. With the default, "real", it gets these units alone. `support=` of the
    premade flows, and of the fits, is short for this. Both directions cost a few operations a coordinate more.

    Args:
        dist: a `Transformed` over the real line, or a `Dequantized` around one.
        support: what values the columns can take, one for all or a list of one a column: what `ToSupport` takes, and
            "integer" or `flowlib.support.Integers(low, high)` for whole numbers.

    Returns:
        A `Transformed`; where columns hold whole numbers, a `Dequantized` around it. `dist` itself, if it has this
        support and units already.

    Raises:
        TypeError: if `dist` is not over the real line, or `support` is none.
        ValueError: if the units of `dist` have been set by a fit to data of another support, or `support` does not suit
            its shape.
    """
    if isinstance(dist, Dequantized):
        box, whole = as_cells(support, dist.shape)
        if whole != dist.columns and not (all(whole) and all(dist.columns)):
            raise ValueError("support has other columns of whole numbers than the Dequantized distribution.")
        return eqx.tree_at(lambda dist: dist.dist, dist, _on_box(dist.dist, box))
    node = peel(dist)
    if not isinstance(node, AbstractTransformed):
        raise TypeError(f"support expected a Transformed over the real line, got {type(node).__name__}.")
    box, whole = as_cells(support, node.shape)
    on_box = _on_box(dist, box)
    return Dequantized(on_box, columns=None if all(whole) else whole) if any(whole) else on_box


def units_of(dist: Any) -> InDataUnits | None:
    """The units of a distribution, or None: the last part of the bijection of a `Transformed`."""
    node = dist
    while isinstance(node, paramax.NonTrainable):
        node = node.tree
    if isinstance(node, Dequantized):
        return units_of(node.dist)
    if not isinstance(node, Transformed):
        return None
    bijection = node.bijection
    while isinstance(bijection, Chain | paramax.NonTrainable):
        bijection = bijection.tree if isinstance(bijection, paramax.NonTrainable) else bijection[-1]
    return bijection if isinstance(bijection, InDataUnits) else None


def box_of(units: InDataUnits) -> Box | None:
    """The support of the units, or None if it is not known by columns."""
    to_data = peel(units.to_data)
    if to_data is None:
        return as_box("real", units.out_shape)
    return to_data.box if isinstance(to_data, ToSupport) else None


def is_real(box: Box | None) -> bool:
    """Whether a support is the real line in every column."""
    return box is not None and bool(np.isinf([*box.lower, *box.upper]).all())


def are_new(*parts: Any) -> bool:
    """Whether locations and logarithms of scales are all 0, as they are built; of values that are not known, yes."""
    arrays = [peel(part) for part in parts if part is not None]
    return not any(is_concrete(array) and np.asarray(array).any() for array in arrays)


def in_units(
    bijection: AbstractBijection,
    *,
    to_data: AbstractBijection | None = None,
    columns: Any = True,
) -> InDataUnits:
    """A bijection in units that a first fit sets, of its conditions too."""
    conditional = peel(bijection).cond_shape is not None
    return InDataUnits(
        bijection,
        to_data=to_data,
        columns=columns,
        cond_location=0.0 if conditional else None,
        labels=conditional and _embeds(bijection),
    )


def _on_box(dist: Any, box: Box) -> Any:
    units = units_of(dist)
    if units is None:
        if not (isinstance(dist, Transformed) and isinstance(dist.support, Real)):
            kind = f" of {dist.support.kind} support" if isinstance(dist, Transformed) else ""
            raise TypeError(
                f"support expected a Transformed over the real line, got {type(peel(dist)).__name__}{kind}."
            )
        around = in_units(dist.bijection, to_data=_to_data(box, dist.shape))
        return eqx.tree_at(lambda dist: dist.bijection, dist, around)
    have = box_of(units)
    if have == box:
        return dist
    if not is_real(have):
        raise ValueError("support differs from that of the distribution, which keeps it: build it anew.")
    if not are_new(units.location, units.log_scale):
        raise ValueError("support differs from that of an earlier fit, which the distribution keeps: build it anew.")
    if not isinstance(peel(dist.base_dist).support, Real):
        raise TypeError(
            f"support expected a base over the real line, got {type(peel(dist.base_dist)).__name__} "
            f"of {peel(dist.base_dist).support.kind} support."
        )
    return eqx.tree_at(_placed, dist, _to_data(box, units.out_shape), is_leaf=lambda node: node is None)


def _placed(dist: Any) -> Any:
    units: Any = units_of(dist)
    return units.to_data


def _to_data(box: Box, shape: tuple[int, ...]) -> ToSupport | None:
    return None if is_real(box) else ToSupport(box, shape)


def _embeds(bijection: Any) -> bool:
    def is_embedding(node):
        return isinstance(node, EmbedCondition)

    return any(map(is_embedding, jax.tree.leaves(bijection, is_leaf=is_embedding)))


def replaced(dist: T, values: dict[str, Any]) -> T:
    """The distribution with other values in arrays of its units, by their names; frozen arrays stay frozen."""
    names = [name for name, value in values.items() if value is not None]

    def where(dist):
        units: Any = units_of(dist)
        return [units.to_data.cut if name == "cut" else getattr(units, name) for name in names]

    new = [_like(old, values[name]) for old, name in zip(where(dist), names, strict=True)]
    return eqx.tree_at(where, dist, new) if names else dist


def _like(old: Any, value: Any) -> Any:
    return paramax.NonTrainable(value) if isinstance(old, paramax.NonTrainable) else value
