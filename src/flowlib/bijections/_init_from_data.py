"""Parameters set from a batch of data, bijection by bijection on the way that the batch takes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from paramax import AbstractUnwrappable

from flowlib._module import peel, unwrap_own
from flowlib.bijections._bijection import AbstractBijection, LogDet, backward_batch, forward_batch
from flowlib.bijections._chain import Chain
from flowlib.bijections._concatenate import Concatenate, Stack
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._indexed import Indexed
from flowlib.bijections._invert import Invert
from flowlib.bijections._numerical_inverse import NumericalInverse
from flowlib.bijections._reshape import Reshape
from flowlib.bijections._sandwich import Sandwich
from flowlib.bijections._scan import Scan
from flowlib.bijections._vmap import Vmap


def initialise(bijection: Any, x: Array, condition: Array | None = None, *, inverse: bool = False) -> tuple[Any, Array]:
    """Set a bijection and the parts of it that ask for data, each from the batch as it arrives there.

    What sits in a paramax wrapper (a frozen part, say) stays as it is. A composite of another class than flowlib's
    is one layer, with an `_init_from_data` of its own or none.

    Args:
        bijection: a bijection, its parameters still wrapped.
        x: events on a leading axis. Rows with a NaN do not count, nor do those outside the domain from there on.
        condition: None, one for all rows, or one for each row.
        inverse: whether the batch goes backwards through the bijection.

    Returns:
        The bijection with other values in the same arrays, and the batch after it.

    Raises:
        ValueError: if an `_init_from_data` changes more than the values of arrays.
    """
    if not asks_for_data(bijection):
        return bijection, _through(bijection, x, condition, inverse)
    condition = None if bijection.cond_shape is None else condition
    new, y = _initialised(bijection, _whole_rows(x), condition, inverse)
    _check_same_kind(new, bijection)
    return new, y


def asks_for_data(bijection: Any) -> bool:
    """Whether a part of it, outside of wrappers, has an `_init_from_data` of its own."""

    def asks(node):
        default = AbstractBijection._init_from_data
        return isinstance(node, AbstractBijection) and type(node)._init_from_data is not default

    def is_leaf(node):
        return isinstance(node, AbstractUnwrappable) or asks(node)

    return any(map(asks, jax.tree.leaves(bijection, is_leaf=is_leaf)))


def _initialised(bijection, x, condition, inverse):
    match bijection:
        case Chain():
            parts = list(bijection.bijections)
            for i in sorted(range(len(parts)), reverse=inverse):
                parts[i], x = initialise(parts[i], x, condition, inverse=inverse)
            return eqx.tree_at(lambda chain: chain.bijections, bijection, tuple(parts)), x
        case Scan():
            return _scan(bijection, x, condition, inverse)
        case Vmap():
            return _vmap(bijection, x, condition, inverse)
        case Invert():
            return _with_part(bijection, *initialise(bijection.bijection, x, condition, inverse=not inverse))
        case Concatenate() | Stack():
            return _side_by_side(bijection, x, condition, inverse)
        case Sandwich():
            outer, x = initialise(bijection.outer, x, condition)
            inner, x = initialise(bijection.inner, x, condition, inverse=inverse)
            new = eqx.tree_at(lambda sandwich: (sandwich.outer, sandwich.inner), bijection, (outer, inner))
            return new, _through(outer, x, condition, inverse=True)
        case Indexed():
            flat = x.reshape(len(x), -1)
            part, y = initialise(bijection.bijection, flat[:, bijection.indices], condition, inverse=inverse)
            return _with_part(bijection, part, flat.at[:, bijection.indices].set(y).reshape(x.shape))
        case Reshape():
            return _reshape(bijection, x, condition, inverse)
        case EmbedCondition():
            condition = unwrap_own(bijection)._embed_batch(condition)
            return _with_part(bijection, *initialise(bijection.bijection, x, condition, inverse=inverse))
        case InDataUnits():
            # The units are the data's, and stay.
            units = unwrap_own(bijection)
            condition = units._standardise_condition(condition)
            if inverse:
                x = _flagged(*units._from_units(x, batched=True))
            part, x = initialise(bijection.bijection, x, condition, inverse=inverse)
            return _with_part(bijection, part, x if inverse else _flagged(*units._to_units(x, batched=True)))
        case NumericalInverse():
            part, _ = initialise(bijection.bijection, x, condition, inverse=inverse)
            new, _ = _with_part(bijection, part, x)
        case _:
            new = bijection._init_from_data(x, condition, inverse=inverse)
    return new, _through(new, x, condition, inverse)


def _with_part(bijection, part, y):
    return eqx.tree_at(lambda outer: outer.bijection, bijection, part), y


def _scan(scan, x, condition, inverse):
    arrays, rest = eqx.partition(scan.bijection, eqx.is_array)

    def take(x, layer):
        new, y = initialise(eqx.combine(layer, rest), x, condition, inverse=inverse)
        return y, eqx.filter(new, eqx.is_array)

    y, arrays = jax.lax.scan(take, x, arrays, reverse=inverse)
    return _with_part(scan, eqx.combine(arrays, rest), y)


def _vmap(vmap, x, condition, inverse):
    """Parts with arrays of their own are set from their slices, one that all share from all slices together.

    Where only some arrays are shared, those stay.
    """
    arrays, rest = eqx.partition(vmap.bijection, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    slices, conditions = jnp.moveaxis(x, 1, 0), None
    if condition is not None:
        if condition.ndim == len(vmap.cond_shape):
            condition = jnp.broadcast_to(condition, (len(x), *condition.shape))
        if vmap.condition_axis is None:
            conditions = jnp.broadcast_to(condition, (len(slices), *condition.shape))
        else:
            conditions = jnp.moveaxis(condition, vmap.condition_axis + 1, 0)
    own = [axis for axis in vmap.axes if axis is not None]

    def one(leaves, x, condition):
        part, _ = initialise(eqx.combine(jax.tree.unflatten(treedef, leaves), rest), x, condition, inverse=inverse)
        return jax.tree.leaves(eqx.filter(part, eqx.is_array))

    def own_of_one(leaves, x, condition):
        new = one(leaves, x, condition)
        return [leaf for leaf, axis in zip(new, vmap.axes, strict=True) if axis is not None]

    if own:
        found = iter(jax.vmap(own_of_one, (list(vmap.axes), 0, 0), own)(leaves, slices, conditions))
        leaves = [leaf if axis is None else next(found) for leaf, axis in zip(leaves, vmap.axes, strict=True)]
    else:
        rows = None if conditions is None else conditions.reshape(-1, *conditions.shape[2:])
        leaves = one(leaves, slices.reshape(-1, *x.shape[2:]), rows)
    new, _ = _with_part(vmap, eqx.combine(jax.tree.unflatten(treedef, leaves), rest), x)
    return new, _through(new, x, condition, inverse)


def _reshape(reshape, x, condition, inverse):
    inner = peel(reshape.bijection)
    if condition is not None:
        batch = condition.shape[: condition.ndim - len(reshape.cond_shape)]
        condition = condition.reshape(*batch, *inner.cond_shape)
    x = x.reshape(len(x), *(inner.out_shape if inverse else inner.shape))
    part, y = initialise(reshape.bijection, x, condition, inverse=inverse)
    return _with_part(reshape, part, y.reshape(len(y), *(reshape.shape if inverse else reshape.out_shape)))


def _side_by_side(bijection, x, condition, inverse):
    parts, axis = bijection.bijections, bijection.axis + 1
    if isinstance(bijection, Stack):
        blocks, join = jnp.moveaxis(x, axis, 0), jnp.stack
    else:
        sizes = [(peel(part).out_shape if inverse else peel(part).shape)[bijection.axis] for part in parts]
        blocks, join = jnp.split(x, [sum(sizes[:i]) for i in range(1, len(sizes))], axis), jnp.concatenate
    found = [initialise(part, block, condition, inverse=inverse) for part, block in zip(parts, blocks, strict=True)]
    new = eqx.tree_at(lambda whole: whole.bijections, bijection, tuple(part for part, _ in found))
    return new, join([y for _, y in found], axis)


def _through(bijection, x, condition, inverse):
    # Unwrapped, for it may itself be in a wrapper.
    return _flagged(*(backward_batch if inverse else forward_batch)(unwrap_own(bijection), x, condition))


def _flagged(y: Array, log_det: LogDet) -> Array:
    return jnp.where(log_det.valid.reshape(-1, *[1] * (y.ndim - 1)), y, jnp.nan)


def _whole_rows(x: Array) -> Array:
    """NaN in every coordinate of a row that is not finite."""
    finite = jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(finite, x, jnp.nan)


def _check_same_kind(new, old):
    def kind(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype) if eqx.is_array(leaf) else None, tree)

    if jax.tree.structure(new) != jax.tree.structure(old) or kind(new) != kind(old):
        raise ValueError(
            f"_init_from_data of {type(old).__name__} changed more than the values of its arrays: "
            "keep its structure, shapes and dtypes (equinox.tree_at)."
        )
