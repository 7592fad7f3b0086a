"""The sinh-arcsinh map, for skewness and the weight of tails."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._overflow import exponents
from flowlib.constraints import Parameter, broadcast, finite, positive


class SinhArcsinh(AbstractBijection):
    """y = sinh((arcsinh(x) + skewness) tailweight), elementwise on the reals, with tailweight > 0.

    log |dy/dx| = log tailweight + log cosh(arcsinh y) - log cosh(arcsinh x). With 0 and 1 it is the identity. A
    positive skewness lengthens the upper tail, and a tailweight above 1 both: far out |y| = |2x|^tailweight / 2, and
    what is beyond the largest float becomes that. Both directions O(size).

    Args:
        skewness: of any sign. Defaults to 0.
        tailweight: positive. Defaults to 1. With `skewness` it broadcasts to the shape of an event.

    Raises:
        ValueError: if tailweight is not positive, a value not finite, or they do not broadcast.

    References:
        Jones and Pewsey 2009, Sinh-arcsinh distributions, Biometrika 96; there epsilon = -skewness tailweight.
    """

    skewness: Parameter
    tailweight: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, skewness: ArrayLike = 0, tailweight: ArrayLike = 1):
        skewness, tailweight = broadcast(finite(skewness, "skewness"), finite(tailweight, "tailweight"))
        self.skewness = skewness
        self.tailweight = positive(tailweight, "tailweight")
        self.shape = skewness.shape

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        inner = jnp.arcsinh(x)
        outer = (inner + self.skewness) * self.tailweight
        return _sinh(outer), self._log_slope(inner, outer)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        outer = jnp.arcsinh(y)
        inner = outer / self.tailweight - self.skewness
        return _sinh(inner), -self._log_slope(inner, outer)

    def _log_slope(self, inner, outer):
        return (jnp.log(self.tailweight) + _log_cosh(outer) - _log_cosh(inner)).sum()


def _sinh(x):
    return jnp.sinh(exponents(x))


def _log_cosh(x):
    # Without the overflow of cosh.
    size = jnp.abs(x)
    return size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
