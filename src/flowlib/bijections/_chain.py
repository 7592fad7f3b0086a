"""Bijections one after another."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import equinox as eqx
from jaxtyping import Array

from flowlib._module import peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_batch,
    checked_parts,
    forward,
    forward_batch,
    merge_cond_shapes,
)
from flowlib.support import Support, fits, image


class Chain(AbstractBijection):
    """Apply bijections in order: y = (f_n o ... o f_1)(x).

    Each direction costs the sum of the parts'; log-dets add. Parts may be conditional or not; the
    conditional ones all see the same condition. A chain can be indexed, sliced, iterated and measured.
    Layers of one kind compile faster in a `Scan`.

    Args:
        bijections: the parts, first applied first.

    Raises:
        ValueError: if there are no parts, or shapes, condition shapes or supports do not link.
        TypeError: if a part is not a bijection.
    """

    bijections: tuple[AbstractBijection, ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijections: Sequence[AbstractBijection]):
        self.bijections = checked_parts(bijections, "Chain")
        parts = [peel(bijection) for bijection in self.bijections]
        for i, (part, following) in enumerate(pairwise(parts)):
            if part.out_shape != following.shape:
                raise ValueError(
                    f"Chain expected a bijection of shape {part.out_shape} at index {i + 1}, got {following.shape}."
                )
        self.shape = parts[0].shape
        self.cond_shape = merge_cond_shapes([part.cond_shape for part in parts], "Chain")
        _reached(parts)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return peel(self.bijections[-1]).out_shape

    @property
    def domain(self) -> Support:
        return peel(self.bijections[0]).domain

    @property
    def codomain(self) -> Support:
        return _reached([peel(bijection) for bijection in self.bijections])

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        total = LogDet.zero(x)
        for bijection in self.bijections:
            x, log_det = forward(bijection, x, condition)
            total = total + log_det
        return x, total

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        total = LogDet.zero(y)
        for bijection in reversed(self.bijections):
            y, log_det = backward(bijection, y, condition)
            total = total + log_det
        return y, total

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        total = LogDet.zero(x, x.shape[:1])
        for bijection in self.bijections:
            x, log_det = forward_batch(bijection, x, condition)
            total = total + log_det
        return x, total

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        total = LogDet.zero(y, y.shape[:1])
        for bijection in reversed(self.bijections):
            y, log_det = backward_batch(bijection, y, condition)
            total = total + log_det
        return y, total

    def __getitem__(self, index: int | slice) -> AbstractBijection:
        if isinstance(index, slice):
            return Chain(self.bijections[index])
        return self.bijections[index]

    def __iter__(self) -> Iterator[AbstractBijection]:
        return iter(self.bijections)

    def __len__(self) -> int:
        return len(self.bijections)

    def merge_chains(self) -> "Chain":
        """The same chain with chains inside it, at any depth, spliced in."""
        parts: list[AbstractBijection] = []
        for bijection in self.bijections:
            parts.extend(bijection.merge_chains() if isinstance(bijection, Chain) else [bijection])
        return Chain(parts)


def _reached(parts: list[AbstractBijection]) -> Support:
    reached = parts[0].codomain
    for i, part in enumerate(parts[1:], start=1):
        if not fits(reached, part.domain):
            raise ValueError(
                f"Chain: the part at index {i}, {type(part).__name__}, needs {part.domain.kind} input, "
                f"but the part before it gives {reached.kind}."
            )
        reached = image(reached, part.domain, part.codomain)
    return reached
