"""One bijection applied again and again with different parameters."""

from collections.abc import Iterator
from typing import Literal, get_args

import equinox as eqx
import jax
from jaxtyping import Array

from flowlib._module import peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_batch,
    check_is_bijection,
    forward,
    forward_batch,
)
from flowlib.bijections._rebuild import Directions, costly_part, rebuilding_scan
from flowlib.bijections._reverse_only import reverse_only
from flowlib.support import Support, fits, image

Gradient = Literal["store", "recompute", "rebuild"]


class Scan(AbstractBijection):
    """A chain of layers that differ only in their arrays, compiled once however many there are.

    It equals `Chain` of the layers `scan[0], ..., scan[len(scan) - 1]`, in value, log-det and
    gradient. Make the stack with `eqx.filter_vmap(make_layer)(keys)`. Each direction costs the
    sum of the layers'.

    Args:
        bijection: a bijection whose every array has an extra leading axis, the layers.
        gradient: what reverse-mode differentiation keeps of the forward pass.
            "store": all that each layer computed; the fastest, with memory in proportion to the layers.
            "recompute": the input of each layer, which is computed once more.
            "rebuild": the output, from which each layer's inverse rebuilds its input, and the exact input of
            every eighth layer. Memory hardly grows with the layers; each is inverted and taken once more.
            Rounding errors grow through badly conditioned layers: `rebuild_drift` measures them. Reverse mode only:
            forward mode is a TypeError.

    Raises:
        ValueError: if there are no arrays, their leading axes differ, a layer's output is no valid input for the
            next (shape or support), or a layer to rebuild has a direction that is not analytic and cheap.
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    gradient: Gradient = eqx.field(static=True, default="store")

    def __init__(self, bijection: AbstractBijection, *, gradient: Gradient = "store"):
        check_is_bijection(bijection, "Scan")
        layer = peel(bijection)
        leaves = [leaf for leaf in jax.tree.leaves(bijection) if eqx.is_array(leaf)]
        if not leaves:
            raise ValueError("Scan expected stacked arrays to scan over, got a bijection without arrays. Use Chain.")
        lengths = {leaf.shape[:1] for leaf in leaves}
        if len(lengths) != 1 or lengths == {()}:
            found = sorted(leaf.shape for leaf in leaves)
            raise ValueError(f"Scan expected arrays with one common leading axis, got shapes {found}.")
        if layer.out_shape != layer.shape:
            raise ValueError(f"Scan expected a layer that keeps its shape, got {layer.shape} -> {layer.out_shape}.")
        if not fits(layer.codomain, layer.domain):
            raise ValueError(
                f"Scan: a {type(layer).__name__} needs {layer.domain.kind} input but gives {layer.codomain.kind}."
            )
        if gradient not in get_args(Gradient):
            raise ValueError(f"Scan expected gradient to be one of {get_args(Gradient)}, got {gradient!r}.")
        costly = costly_part(bijection) if gradient == "rebuild" else None
        if costly is not None:
            raise ValueError(
                f"Scan cannot rebuild the inputs of {costly}, one direction of which is not analytic and cheap. "
                'Use gradient="recompute".'
            )
        self.gradient = gradient
        self.bijection = bijection
        self.shape = layer.shape
        self.cond_shape = layer.cond_shape

    @property
    def domain(self) -> Support:
        return peel(self.bijection).domain

    @property
    def codomain(self) -> Support:
        layer = peel(self.bijection)
        return image(layer.codomain, layer.domain, layer.codomain)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._take(Directions(forward, backward, reverse=False), x, condition, LogDet.zero(x))

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._take(Directions(backward, forward, reverse=True), y, condition, LogDet.zero(y))

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        directions = Directions(forward_batch, backward_batch, reverse=False)
        return self._take(directions, x, condition, LogDet.zero(x, x.shape[:1]))

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        directions = Directions(backward_batch, forward_batch, reverse=True)
        return self._take(directions, y, condition, LogDet.zero(y, y.shape[:1]))

    def _take(self, directions, x, condition, zero):
        if self.gradient == "rebuild":
            arrays, layers = eqx.partition(self.bijection, eqx.is_inexact_array)
            return rebuilding_scan(reverse_only((arrays, x, condition)), layers, directions, zero)
        arrays, rest = eqx.partition(self.bijection, eqx.is_array)

        def body(carry, layer_arrays):
            x, total = carry
            x, log_det = directions.step(eqx.combine(layer_arrays, rest), x, condition)
            return (x, total + log_det), None

        if self.gradient == "recompute":
            body = jax.checkpoint(body, prevent_cse=False)
        (x, log_det), _ = jax.lax.scan(body, (x, zero), arrays, reverse=directions.reverse)
        return x, log_det

    def __len__(self) -> int:
        return next(leaf.shape[0] for leaf in jax.tree.leaves(self.bijection) if eqx.is_array(leaf))

    def __getitem__(self, index: int) -> AbstractBijection:
        index = range(len(self))[index]
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.bijection)

    def __iter__(self) -> Iterator[AbstractBijection]:
        return (self[i] for i in range(len(self)))
