"""The hyperbolic tangent, and a version of it with linear tails that maps the reals onto the reals."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Interval, Support


class Tanh(AbstractBijection):
    """y = tanh(x), from the reals onto (-1, 1); log |dy/dx| = 2 (log 2 - x - softplus(-2x)). Both directions O(size).

    Beyond |x| = 9 float32 rounds y to +-1, where the inverse is infinite: see `LeakyTanh`.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    @property
    def codomain(self) -> Support:
        return Interval(-1.0, 1.0)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jnp.tanh(x), _log_slope(x).sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # (1 - y)(1 + y), not 1 - y^2: the latter loses the digits that matter near the ends.
        return jnp.arctanh(y), -(jnp.log1p(-y) + jnp.log1p(y)).sum()


class LeakyTanh(AbstractBijection):
    """y = tanh(x) for |x| <= max_val, and beyond it the tangent at +-max_val. Both directions O(size).

    Value and slope are continuous, so it maps the reals onto the reals.

    Args:
        max_val: where the linear tails begin, in (0, 8]; beyond 8, float32 cannot tell tanh from 1.
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if `max_val` is out of range.
    """

    max_val: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, max_val: float, shape: tuple[int, ...] = ()):
        if not 0 < max_val <= 8:
            raise ValueError(f"LeakyTanh expected max_val in (0, 8], got {max_val}.")
        self.max_val = float(max_val)
        self.shape = as_shape(shape)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        _, log_slope = self._tail()
        inner = jnp.clip(x, -self.max_val, self.max_val)
        # Outside, x - inner is the distance past the edge; inside it is 0.
        y = jnp.tanh(inner) + math.exp(log_slope) * (x - inner)
        return y, jnp.where(jnp.abs(x) < self.max_val, _log_slope(inner), log_slope).sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        edge, log_slope = self._tail()
        size, sign = jnp.abs(y), jnp.sign(y)
        in_tail = size >= edge
        inner = jnp.where(in_tail, 0, size)
        # arctanh with one logarithm; log1p, for log would round it at small y.
        x = jnp.where(
            in_tail, self.max_val + (size - edge) / math.exp(log_slope), jnp.log1p(2 * inner / (1 - inner)) / 2
        )
        # (1 - y)(1 + y), not 1 - y^2: the latter loses the digits that matter near the ends.
        return sign * x, -jnp.where(in_tail, log_slope, jnp.log((1 - inner) * (1 + inner))).sum()

    def _tail(self):
        return math.tanh(self.max_val), -2 * math.log(math.cosh(self.max_val))


def _log_slope(x: Array) -> Array:
    # log(1 - tanh(x)^2) without the cancellation, and linear rather than overflowing for large |x|.
    size = jnp.abs(x)
    return 2 * (math.log(2.0) - size - jnp.log(1 + jnp.exp(-2 * size)))
