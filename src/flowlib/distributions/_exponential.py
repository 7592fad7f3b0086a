"""The exponential distribution."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib.constraints import finite, positive
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._statistics import AbstractQuantile
from flowlib.support import Positive, Support


class Exponential(AbstractBatchSampler, AbstractQuantile):
    """Independent exponential coordinates: log p(x) = log rate - rate x, summed, on x >= 0.

    `scipy.stats.expon(scale=1 / rate)`; an event has the shape of `rate`. Has mean, variance,
    entropy, cdf and quantiles in closed form.

    Args:
        rate: positive rates, the inverses of the means. Defaults to 1.

    Raises:
        ValueError: if a rate is not positive and finite.
    """

    _rate: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, rate: ArrayLike = 1):
        rate = finite(rate, "rate")
        self._rate = positive(rate, "rate")
        self.shape = rate.shape

    @property
    def rate(self) -> Array:
        """The rates, a plain array of shape `shape`."""
        return unwrap(self._rate)

    @property
    def support(self) -> Support:
        return Positive(closed=True)

    def _log_densities(self, x: Array) -> Array:
        return jnp.log(self.rate) - self.rate * x

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        return jr.exponential(key, (size, *self.shape), self.rate.dtype) / self.rate

    def _mean(self) -> Array:
        return 1 / self.rate

    def _variance(self) -> Array:
        return 1 / self.rate**2

    def _entropy(self) -> Array:
        return (1 - jnp.log(self.rate)).sum()

    def _cdf(self, x: Array) -> Array:
        return -jnp.expm1(-self.rate * jnp.maximum(x, 0))

    def _quantile(self, q: Array) -> Array:
        return -jnp.log1p(-q) / self.rate

    def _log_survival(self, x: Array) -> Array:
        return -self.rate * jnp.maximum(x, 0)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return -log_q / self.rate
