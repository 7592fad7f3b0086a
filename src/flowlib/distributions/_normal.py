"""The standard normal."""

import math
from typing import ClassVar

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.distributions._distribution import AbstractDistribution
from flowlib.support import Real, Support


class StandardNormal(AbstractDistribution):
    """Independent N(0, 1) coordinates: log p(x) = -sum(x^2)/2 - size log(2 pi)/2.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    @property
    def support(self) -> Support:
        return Real()

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return -0.5 * (x**2).sum() - 0.5 * math.log(2 * math.pi) * x.size

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        return jr.normal(key, self.shape)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        return jr.normal(key, (size, *self.shape))
