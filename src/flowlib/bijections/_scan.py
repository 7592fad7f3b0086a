"""One bijection applied again and again with different parameters."""

from collections.abc import Iterator

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
from flowlib.support import Support, fits, image


class Scan(AbstractBijection):
    """A chain of layers that differ only in their arrays, compiled once however many there are.

    It equals `Chain` of the layers `scan[0], ..., scan[len(scan) - 1]`, in value, log-det and
    gradient. Make the stack with `eqx.filter_vmap(make_layer)(keys)`. Each direction costs the
    sum of the layers'.

    Args:
        bijection: a bijection whose every array has an extra leading axis, the layers.

    Raises:
        ValueError: if there are no arrays, their leading axes differ, or a layer's output is no
            valid input for the next (shape or support).
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijection: AbstractBijection):
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
        return _scan(forward, self.bijection, x, condition, LogDet.zero(x), reverse=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return _scan(backward, self.bijection, y, condition, LogDet.zero(y), reverse=True)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return _scan(forward_batch, self.bijection, x, condition, LogDet.zero(x, x.shape[:1]), reverse=False)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return _scan(backward_batch, self.bijection, y, condition, LogDet.zero(y, y.shape[:1]), reverse=True)

    def __len__(self) -> int:
        return next(leaf.shape[0] for leaf in jax.tree.leaves(self.bijection) if eqx.is_array(leaf))

    def __getitem__(self, index: int) -> AbstractBijection:
        index = range(len(self))[index]
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.bijection)

    def __iter__(self) -> Iterator[AbstractBijection]:
        return (self[i] for i in range(len(self)))


def _scan(step, bijection, x, condition, log_det, *, reverse):
    arrays, rest = eqx.partition(bijection, eqx.is_array)

    def body(carry, layer_arrays):
        x, total = carry
        x, log_det = step(eqx.combine(layer_arrays, rest), x, condition)
        return (x, total + log_det), None

    (x, log_det), _ = jax.lax.scan(body, (x, log_det), arrays, reverse=reverse)
    return x, log_det
