"""The normal distribution with independent coordinates."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractSymmetricQuantile
from flowlib.distributions._special import HALF_LOG_2PI
from flowlib.distributions._statistics import AbstractQuantile


class StandardNormal(AbstractSymmetricQuantile):
    """Independent N(0, 1) coordinates: log p(x) = -sum(x^2)/2 - size log(2 pi)/2.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)

    def _log_densities(self, x: Array) -> Array:
        return -0.5 * x**2 - HALF_LOG_2PI

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.normal(key, shape)

    def _mean(self):
        return 0.0

    def _variance(self):
        return 1.0

    def _entropy(self):
        return math.prod(self.shape) * (0.5 + HALF_LOG_2PI)

    def _cdf(self, x: Array) -> Array:
        return ndtr(x)

    def _quantile(self, q: Array) -> Array:
        return ndtri(q)

    def _log_cdf(self, x: Array) -> Array:
        return log_ndtr(x)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        near, none = log_q > _FAR_TAIL, log_q == -jnp.inf
        near_q = jnp.where(near, log_q, _FAR_TAIL)
        middle = near_q > -math.log(2)
        lower = ndtri(jnp.exp(jnp.where(middle, _FAR_TAIL, near_q)))
        upper = -ndtri(-jnp.expm1(jnp.where(middle, near_q, _FAR_TAIL)))
        far = _far_quantile(jnp.where(near | none, _FAR_TAIL, log_q))
        return jnp.where(near, jnp.where(middle, upper, lower), jnp.where(none, -jnp.inf, far))


class Normal(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent normal coordinates: log p(x) = -((x - loc) / scale)^2/2 - log scale - log(2 pi)/2, summed.

    `scipy.stats.norm(loc, scale)`. The arguments broadcast to the shape of an event. Has mean,
    variance, entropy, cdf and quantiles in closed form.

    Args:
        loc: means. Defaults to 0.
        scale: positive standard deviations. Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: StandardNormal
    bijection: Affine

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.bijection = Affine(loc, scale)
        self.base_dist = StandardNormal(self.bijection.shape)


# From here on down, Newton's method on the logarithm; above, the quantile function keeps its digits.
_FAR_TAIL = -20.0


def _far_quantile(log_q: Array) -> Array:
    # The start solves x^2 / 2 + log(2 pi x^2) / 2 = -log q but for a small term; steps square its relative error.
    square = -2 * jax.lax.stop_gradient(log_q)
    x = -jnp.sqrt(square - jnp.log(2 * math.pi * square))
    for _ in range(4):
        # The hazard phi(x) / Phi(x), the slope of log Phi.
        log_cdf = log_ndtr(x)
        hazard = jnp.exp(-0.5 * x**2 - HALF_LOG_2PI - log_cdf)
        x, last = x - (log_cdf - jax.lax.stop_gradient(log_q)) / hazard, (x, log_cdf, hazard)
    x, log_cdf, hazard = last
    # The last step again, for the derivative in log q.
    return x - (log_cdf - log_q) / hazard
