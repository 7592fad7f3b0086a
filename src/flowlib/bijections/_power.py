"""Powers of positive numbers."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Positive, Support


class Power(AbstractBijection):
    """y = x^p, from the positive numbers onto themselves; log |dy/dx| = log |p| + (p - 1) log x.

    With p > 0, zero belongs to both sides; slopes and log-dets there are 0 or infinite, as in
    the limit. Both directions O(size).

    Args:
        exponent: p, a fixed number other than 0 (it is not trained).
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if the exponent is 0 or not finite.
    """

    exponent: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, exponent: float, shape: tuple[int, ...] = ()):
        self.exponent = float(exponent)
        if self.exponent == 0 or not math.isfinite(self.exponent):
            raise ValueError(f"Power expected a finite exponent other than 0, got {exponent}.")
        self.shape = as_shape(shape)

    @property
    def domain(self) -> Support:
        return Positive(closed=self.exponent > 0)

    @property
    def codomain(self) -> Support:
        return Positive(closed=self.exponent > 0)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return _power(x, self.exponent)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return _power(y, 1 / self.exponent)


def _power(x: Array, exponent: float) -> tuple[Array, Array]:
    # A negative subnormal number may count as zero where it is compared and as itself in the power.
    x = jnp.where(jnp.signbit(x), -x, x)
    # Exponent 1 apart, because 0 log 0 is NaN in floating point.
    if exponent == 1:
        return x, jnp.zeros((), x.dtype)
    return x**exponent, (math.log(abs(exponent)) + (exponent - 1) * jnp.log(x)).sum()
