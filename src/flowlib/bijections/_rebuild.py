"""A scan over layers whose gradient computes each layer's input again from its output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._ranks import broadcasting
from flowlib.bijections._bijection import AbstractBijection, LogDet

# Every so many layers the exact input is kept.
ANCHOR_EVERY = 8


class Directions(NamedTuple):
    """How to take a layer, how to undo it, and whether the layers are taken from the last to the first."""

    step: Callable[..., tuple[Array, LogDet]]
    undo: Callable[..., tuple[Array, LogDet]]
    reverse: bool


def costly_part(node: Any) -> str | None:
    """The name of the first bijection in a tree, itself included, that has a direction not analytic or not cheap."""
    if isinstance(node, AbstractBijection) and not node._cheap_both_ways:
        return type(node).__name__
    if isinstance(node, eqx.Module):
        children = vars(node).values()
    else:
        children = node if isinstance(node, tuple | list) else node.values() if isinstance(node, dict) else ()
    return next(filter(None, map(costly_part, children)), None)


@eqx.filter_custom_vjp
def rebuilding_scan(
    moving: tuple[Any, Array, Array | None], layers: Any, directions: Directions, zero: LogDet
) -> tuple[Array, LogDet]:
    """Take all layers, and keep for the gradient the output and an exact input every `ANCHOR_EVERY` layers.

    Args:
        moving: what may be differentiated: the stacked floating arrays of the layers, the input and the condition.
        layers: everything else in the layers, stacked too.
        directions: how to take and undo one layer.
        zero: the log-det to start from.
    """
    y, log_det, _ = _with_anchors(moving, layers, directions, zero)
    return y, log_det


@rebuilding_scan.def_fwd
def _forward(perturbed, moving, layers, directions, zero):
    y, log_det, anchors = _with_anchors(moving, layers, directions, zero)
    return (y, log_det), (y, log_det.value, anchors)


@rebuilding_scan.def_bwd
@broadcasting
def _backward(residuals, grad_out, perturbed, moving, layers, directions, zero):
    y, log_det, anchors = residuals
    arrays, _, condition = moving
    grad_y, grad_log_det = grad_out[0], grad_out[1].value
    grad_y = jnp.zeros_like(y) if grad_y is None else grad_y
    grad_log_det = jnp.zeros_like(log_det) if grad_log_det is None else grad_log_det
    seen, labels = eqx.partition(condition, eqx.is_inexact_array)
    fixed, rest = eqx.partition(layers, eqx.is_array)

    def rebuild(carry, layer):
        y, grad_y, grad_seen = carry
        arrays, fixed, number = layer
        x, _ = directions.undo(eqx.combine(arrays, fixed, rest), y, condition)
        x = jnp.where(number % ANCHOR_EVERY == 0, anchors[number // ANCHOR_EVERY], x)

        def take(arrays, x, seen):
            y, log_det = directions.step(eqx.combine(arrays, fixed, rest), x, eqx.combine(seen, labels))
            return y, log_det.value

        _, transpose = jax.vjp(take, arrays, x, seen)
        grad_arrays, grad_x, more = transpose((grad_y, grad_log_det))
        return (x, grad_x, jax.tree.map(jnp.add, grad_seen, more)), grad_arrays

    start = (y, grad_y, jax.tree.map(jnp.zeros_like, seen))
    (_, grad_x, grad_seen), grad_arrays = jax.lax.scan(
        rebuild, start, (arrays, fixed, _numbers(arrays, directions)), reverse=not directions.reverse
    )
    return grad_arrays, grad_x, grad_seen


def _with_anchors(moving, layers, directions, zero):
    arrays, x, condition = moving
    fixed, rest = eqx.partition(layers, eqx.is_array)
    numbers = _numbers(arrays, directions)

    def take(carry, layer):
        x, total, anchors = carry
        arrays, fixed, number = layer
        # Out of range, and so dropped, for all layers but those with an anchor.
        place = jnp.where(number % ANCHOR_EVERY == 0, number // ANCHOR_EVERY, len(anchors))
        anchors = anchors.at[place].set(x, mode="drop")
        x, log_det = directions.step(eqx.combine(arrays, fixed, rest), x, condition)
        return (x, total + log_det, anchors), None

    anchors = jnp.zeros((-(-len(numbers) // ANCHOR_EVERY), *x.shape), x.dtype)
    layers = (arrays, fixed, numbers)
    (y, log_det, anchors), _ = jax.lax.scan(take, (x, zero, anchors), layers, reverse=directions.reverse)
    return y, log_det, anchors


def _numbers(arrays, directions):
    """0, 1, ... in the order in which the layers are taken."""
    numbers = jnp.arange(len(jax.tree.leaves(arrays)[0]))
    return numbers[::-1] if directions.reverse else numbers
