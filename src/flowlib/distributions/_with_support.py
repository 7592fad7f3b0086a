"""The support of the columns, put around a flow that exists."""

from typing import Any

import equinox as eqx

from flowlib._arrays import cast_floats, float_dtype
from flowlib._box import as_cells, is_real
from flowlib._module import peel
from flowlib.bijections import InDataUnits, ToSupport
from flowlib.distributions._dequantized import Dequantized
from flowlib.distributions._transformed import AbstractTransformed, Transformed
from flowlib.support import Box, Real


def with_support(dist: Any, support: Any = "real") -> Any:
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

    Example:
        ```python
        import jax.numpy as jnp
        from flowlib.bijections import Affine
        from flowlib.distributions import StandardNormal, Transformed, with_support

        model = Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), jnp.ones(2)))
        prices = with_support(model, ["positive", (0, 1)])
        ```
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


def _on_box(dist: Any, box: Box) -> Any:
    units = dist.units if isinstance(dist, Transformed) else None
    if units is None:
        if not (isinstance(dist, Transformed) and isinstance(dist.support, Real)):
            kind = f" of {dist.support.kind} support" if isinstance(dist, Transformed) else ""
            raise TypeError(
                f"support expected a Transformed over the real line, got {type(peel(dist)).__name__}{kind}."
            )
        around = InDataUnits.unset(dist.bijection, to_data=_to_data(box, dist.shape), dtype=float_dtype(dist))
        return eqx.tree_at(lambda dist: dist.bijection, dist, around)
    have = units.box
    if have == box:
        return dist
    if not is_real(have):
        raise ValueError("support differs from that of the distribution, which keeps it: build it anew.")
    if not units.is_unset:
        raise ValueError("support differs from that of an earlier fit, which the distribution keeps: build it anew.")
    if not isinstance(peel(dist.base_dist).support, Real):
        raise TypeError(
            f"support expected a base over the real line, got {type(peel(dist.base_dist)).__name__} "
            f"of {peel(dist.base_dist).support.kind} support."
        )
    to_data = cast_floats(_to_data(box, units.out_shape), peel(units.location).dtype)
    return eqx.tree_at(_placed, dist, to_data, is_leaf=lambda node: node is None)


def _placed(dist: Any) -> Any:
    return dist.units.to_data


def _to_data(box: Box, shape: tuple[int, ...]) -> ToSupport | None:
    return None if is_real(box) else ToSupport(box, shape)
