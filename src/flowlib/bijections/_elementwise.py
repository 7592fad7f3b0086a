"""Parameter-free maps of each coordinate: identity, exponential, sigmoid and softplus."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Interval, Positive, Support


class Identity(AbstractBijection):
    """y = x, on the reals. Both directions are free and the log-det is 0.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return x, 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return y, 0.0


class Exp(AbstractBijection):
    """y = exp(x), from the reals onto the positive numbers; log |dy/dx| = x. Both directions O(size).

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    @property
    def codomain(self) -> Support:
        return Positive()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jnp.exp(x), x.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # XLA takes a subnormal number for 0, whose logarithm would make a density inf - inf.
        tiny = jnp.finfo(y.dtype).tiny
        x = jnp.where(y < tiny, math.log(tiny), jnp.log(jnp.where(y < tiny, 1, y)))
        return x, -x.sum()


class Sigmoid(AbstractBijection):
    """y = 1 / (1 + exp(-x)), from the reals onto (0, 1). Both directions O(size).

    log |dy/dx| = -softplus(x) - softplus(-x), which stays finite where y rounds to 0 or 1.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    @property
    def codomain(self) -> Support:
        return Interval(0.0, 1.0)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jax.nn.sigmoid(x), _sigmoid_log_slope(x).sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # log1p(-y), not log(1 - y): the latter rounds for small y.
        x = jnp.log(y) - jnp.log1p(-y)
        return x, (-jnp.log(y) - jnp.log1p(-y)).sum()


class SoftPlus(AbstractBijection):
    """y = log(1 + exp(x)), from the reals onto the positive numbers. Both directions O(size).

    log |dy/dx| = -softplus(-x); the inverse is x = y + log(1 - exp(-y)).

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    @property
    def codomain(self) -> Support:
        return Positive()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jax.nn.softplus(x), -jax.nn.softplus(-x).sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # expm1 keeps the digits of small y, where 1 - exp(-y) would cancel.
        log_slope = jnp.log(-jnp.expm1(-y))
        return y + log_slope, -log_slope.sum()


def _sigmoid_log_slope(x: Array) -> Array:
    return -jax.nn.softplus(x) - jax.nn.softplus(-x)
