"""The logistic distribution."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractSymmetricQuantile
from flowlib.distributions._special import log1m_exp
from flowlib.distributions._statistics import AbstractQuantile


class _StandardLogistic(AbstractSymmetricQuantile):
    """log p(x) = -softplus(x) - softplus(-x), even in rounding."""

    shape: tuple[int, ...] = eqx.field(static=True, converter=as_shape)

    def _log_densities(self, x: Array) -> Array:
        return -(jax.nn.softplus(x) + jax.nn.softplus(-x))

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.logistic(key, shape)

    def _mean(self):
        return 0.0

    def _variance(self):
        return math.pi**2 / 3

    def _entropy(self):
        return math.prod(self.shape) * 2.0

    def _cdf(self, x: Array) -> Array:
        return jax.nn.sigmoid(x)

    def _quantile(self, q: Array) -> Array:
        return jnp.log(q) - jnp.log1p(-q)

    def _log_cdf(self, x: Array) -> Array:
        return -jax.nn.softplus(-x)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return log_q - log1m_exp(log_q)


class Logistic(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent logistic coordinates: log p(x) = -softplus(z) - softplus(-z) - log scale, summed.

    Here z = (x - loc) / scale. `scipy.stats.logistic(loc, scale)`. The arguments broadcast to the
    shape of an event. Has mean, variance, entropy, cdf and quantiles in closed form.

    Args:
        loc: means. Defaults to 0.
        scale: positive scales; the standard deviation is pi scale / sqrt(3). Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: _StandardLogistic
    bijection: Affine

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.bijection = Affine(loc, scale)
        self.base_dist = _StandardLogistic(self.bijection.shape)
