"""Bijections side by side, along an existing axis or a new one."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._module import peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_batch,
    check_shapes_match,
    checked_parts,
    forward,
    forward_batch,
    merge_cond_shapes,
)
from flowlib.support import Support, join


class Concatenate(AbstractBijection):
    """Each bijection acts on its own block of the event, as in `jnp.concatenate`.

    Costs and log-dets are the sums of the parts'. Conditional parts all see the same condition.

    Args:
        bijections: one for each block, of shapes that agree off `axis`.
        axis: the axis along which blocks are joined. Defaults to 0.

    Raises:
        ValueError: if there are no parts, or shapes or condition shapes do not agree.
        TypeError: if a part is not a bijection.
    """

    bijections: tuple[AbstractBijection, ...]
    axis: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijections: Sequence[AbstractBijection], axis: int = 0):
        self.bijections = checked_parts(bijections, "Concatenate")
        parts = [peel(bijection) for bijection in self.bijections]
        self.axis = _axis(axis, len(parts[0].shape), "Concatenate")
        self.shape = _joined([part.shape for part in parts], self.axis)
        _joined([part.out_shape for part in parts], self.axis)
        self.cond_shape = merge_cond_shapes([part.cond_shape for part in parts], "Concatenate")

    @property
    def out_shape(self) -> tuple[int, ...]:
        return _joined([peel(part).out_shape for part in self.bijections], self.axis)

    @property
    def domain(self) -> Support:
        parts = [peel(part) for part in self.bijections]
        return join([part.domain for part in parts], [part.shape[self.axis] for part in parts], self.axis)

    @property
    def codomain(self) -> Support:
        parts = [peel(part) for part in self.bijections]
        return join([part.codomain for part in parts], [part.out_shape[self.axis] for part in parts], self.axis)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._each(forward, self._in_sizes, x, condition, self.axis)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._each(backward, self._out_sizes, y, condition, self.axis)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return self._each(forward_batch, self._in_sizes, x, condition, self.axis + 1)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return self._each(backward_batch, self._out_sizes, y, condition, self.axis + 1)

    @property
    def _in_sizes(self):
        return [peel(part).shape[self.axis] for part in self.bijections]

    @property
    def _out_sizes(self):
        return [peel(part).out_shape[self.axis] for part in self.bijections]

    def _each(self, step, sizes, x, condition, axis):
        blocks = _split(x, sizes, axis)
        results = [step(part, block, condition) for part, block in zip(self.bijections, blocks, strict=True)]
        return jnp.concatenate([y for y, _ in results], axis), _total(results)


class Stack(AbstractBijection):
    """Each bijection acts on one slice along a new axis, as in `jnp.stack`.

    Costs and log-dets are the sums of the parts'. Conditional parts all see the same condition.
    Where the parts differ only in their arrays, `Vmap` compiles faster.

    Args:
        bijections: one for each slice, all of one shape.
        axis: where the new axis stands in the event's shape. Defaults to 0.

    Raises:
        ValueError: if there are no parts, or shapes or condition shapes do not agree.
        TypeError: if a part is not a bijection.
    """

    bijections: tuple[AbstractBijection, ...]
    axis: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijections: Sequence[AbstractBijection], axis: int = 0):
        self.bijections = checked_parts(bijections, "Stack")
        parts = [peel(bijection) for bijection in self.bijections]
        check_shapes_match([part.shape for part in parts], "Stack")
        check_shapes_match([part.out_shape for part in parts], "Stack")
        self.axis = _axis(axis, len(parts[0].shape) + 1, "Stack")
        self.shape = _stacked(parts[0].shape, len(parts), self.axis)
        self.cond_shape = merge_cond_shapes([part.cond_shape for part in parts], "Stack")

    @property
    def out_shape(self) -> tuple[int, ...]:
        return _stacked(peel(self.bijections[0]).out_shape, len(self.bijections), self.axis)

    @property
    def domain(self) -> Support:
        return join([peel(part).domain for part in self.bijections], [None] * len(self.bijections), self.axis)

    @property
    def codomain(self) -> Support:
        return join([peel(part).codomain for part in self.bijections], [None] * len(self.bijections), self.axis)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        slices = jnp.moveaxis(x, self.axis, 0)
        results = [forward(part, slice_, condition) for part, slice_ in zip(self.bijections, slices, strict=True)]
        return jnp.stack([y for y, _ in results], self.axis), _total(results)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        slices = jnp.moveaxis(y, self.axis, 0)
        results = [backward(part, slice_, condition) for part, slice_ in zip(self.bijections, slices, strict=True)]
        return jnp.stack([x for x, _ in results], self.axis), _total(results)


def _axis(axis: int, ndim: int, where: str) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"{where} expected an axis between {-ndim} and {ndim - 1}, got {axis}.")
    return axis % ndim


def _joined(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...]:
    rest = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
    if any(len(shape) != len(shapes[0]) for shape in shapes) or any(other != rest[0] for other in rest):
        raise ValueError(f"Concatenate expected shapes that agree off axis {axis}, got {shapes}.")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _stacked(shape: tuple[int, ...], n: int, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], n, *shape[axis:])


def _split(x: Array, sizes: list[int], axis: int) -> list[Array]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [jax.lax.slice_in_dim(x, start, start + size, axis=axis) for start, size in zip(starts, sizes, strict=True)]


def _total(results: list[tuple[Array, LogDet]]) -> LogDet:
    total = results[0][1]
    for _, log_det in results[1:]:
        total = total + log_det
    return total
