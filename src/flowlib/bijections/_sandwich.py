"""A bijection in another coordinate system."""

import equinox as eqx
from jaxtyping import Array

from flowlib.bijections._bijection import AbstractBijection, backward, backward_batch, forward, forward_batch
from flowlib.bijections._chain import Chain
from flowlib.bijections._invert import Invert
from flowlib.support import Support


class Sandwich(AbstractBijection):
    """y = (g^-1 o f o g)(x), with f = inner and g = outer.

    Each direction costs one of f, and both of g.

    Args:
        inner: f.
        outer: g, whose output f can take and whose inverse can take the output of f.

    Raises:
        ValueError: if shapes, condition shapes or supports do not fit.
        TypeError: if either is not a bijection.
    """

    inner: AbstractBijection
    outer: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, inner: AbstractBijection, outer: AbstractBijection):
        self.inner = inner
        self.outer = outer
        chain = self._chain()
        self.shape = chain.shape
        self.cond_shape = chain.cond_shape

    @property
    def domain(self) -> Support:
        return self._chain().domain

    @property
    def codomain(self) -> Support:
        return self._chain().codomain

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return forward(self._chain(), x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return backward(self._chain(), y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return forward_batch(self._chain(), x, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return backward_batch(self._chain(), y, condition)

    def _chain(self) -> Chain:
        return Chain([self.outer, self.inner, Invert(self.outer)])
