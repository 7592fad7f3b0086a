"""A bijection turned around."""

import equinox as eqx
from jaxtyping import Array

from flowlib._module import peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    backward,
    backward_batch,
    check_is_bijection,
    forward,
    forward_batch,
)
from flowlib.support import Support


class Invert(AbstractBijection):
    """y = f^-1(x): `transform` and `inverse` of the wrapped bijection exchanged, with their costs.

    Args:
        bijection: the bijection f.

    Raises:
        TypeError: if it is not a bijection.
    """

    bijection: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijection: AbstractBijection):
        check_is_bijection(bijection, "Invert")
        self.bijection = bijection
        self.shape = peel(bijection).out_shape
        self.cond_shape = peel(bijection).cond_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return peel(self.bijection).shape

    @property
    def domain(self) -> Support:
        return peel(self.bijection).codomain

    @property
    def codomain(self) -> Support:
        return peel(self.bijection).domain

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return backward(self.bijection, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return forward(self.bijection, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return backward_batch(self.bijection, x, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return forward_batch(self.bijection, y, condition)
