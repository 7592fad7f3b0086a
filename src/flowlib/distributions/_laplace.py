"""The Laplace distribution."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractSymmetricQuantile
from flowlib.distributions._special import log1m_exp
from flowlib.distributions._statistics import AbstractQuantile


class _StandardLaplace(AbstractSymmetricQuantile):
    """log p(x) = -|x| - log 2."""

    shape: tuple[int, ...] = eqx.field(static=True, converter=as_shape)

    def _log_densities(self, x: Array) -> Array:
        # |x| as a maximum has derivative 0 at 0, as symmetry asks; that of jnp.abs is 1 there.
        return -jnp.maximum(x, -x) - math.log(2)

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.laplace(key, shape)

    def _mean(self):
        return 0.0

    def _variance(self):
        return 2.0

    def _entropy(self):
        return math.prod(self.shape) * (1 + math.log(2))

    def _cdf(self, x: Array) -> Array:
        tail = 0.5 * jnp.exp(-jnp.abs(x))
        return jnp.where(x < 0, tail, 1 - tail)

    def _quantile(self, q: Array) -> Array:
        lower = q < 0.5
        size = jnp.log(2 * jnp.where(lower, q, 1 - q))
        return jnp.where(lower, size, -size)

    def _log_cdf(self, x: Array) -> Array:
        upper = jnp.log1p(-0.5 * jnp.exp(-jnp.maximum(x, 0)))
        return jnp.where(x < 0, x - math.log(2), upper)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        lower = log_q < -math.log(2)
        upper = -log1m_exp(jnp.where(lower, -1, log_q)) - math.log(2)
        return jnp.where(lower, log_q + math.log(2), upper)


class Laplace(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent Laplace coordinates: log p(x) = -|x - loc| / scale - log(2 scale), summed.

    `scipy.stats.laplace(loc, scale)`. The arguments broadcast to the shape of an event. Its kink at
    `loc` has derivative 0. Has mean, variance, entropy, cdf and quantiles in closed form.

    Args:
        loc: means. Defaults to 0.
        scale: positive mean absolute deviations. Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: _StandardLaplace
    bijection: Affine

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.bijection = Affine(loc, scale)
        self.base_dist = _StandardLaplace(self.bijection.shape)
