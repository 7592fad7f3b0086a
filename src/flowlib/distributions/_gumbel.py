"""The Gumbel distribution of maxima."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractStandard
from flowlib.distributions._special import log1m_exp
from flowlib.distributions._statistics import AbstractQuantile

EULER = 0.5772156649015329
_FAR = 40.0


class _StandardGumbel(AbstractStandard, AbstractQuantile):
    """log p(x) = -x - exp(-x)."""

    shape: tuple[int, ...] = eqx.field(static=True, converter=as_shape)

    def _log_densities(self, x: Array) -> Array:
        return -(x + jnp.exp(-x))

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.gumbel(key, shape)

    def _mean(self):
        return EULER

    def _variance(self):
        return math.pi**2 / 6

    def _entropy(self):
        return math.prod(self.shape) * (1 + EULER)

    def _cdf(self, x: Array) -> Array:
        # Below -20 the result is 0 in any precision, and exp(-x) would overflow on the way.
        return jnp.exp(-jnp.exp(-jnp.maximum(x, -20)))

    def _quantile(self, q: Array) -> Array:
        return -jnp.log(-jnp.log(q))

    def _log_cdf(self, x: Array) -> Array:
        return -jnp.exp(-x)

    def _log_survival(self, x: Array) -> Array:
        # exp(-x) is its own 1 - exp(-exp(-x)), but for a relative error of half of it.
        far = x > _FAR
        near = jnp.clip(x, -20, _FAR)
        return jnp.where(far, -x, log1m_exp(-jnp.exp(-near)))

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return -jnp.log(-log_q)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        far = log_q < -_FAR
        return jnp.where(far, -log_q, -jnp.log(-log1m_exp(jnp.where(far, -_FAR, log_q))))


class Gumbel(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent Gumbel coordinates: log p(x) = -z - exp(-z) - log scale with z = (x - loc) / scale, summed.

    The limit law of maxima, `scipy.stats.gumbel_r(loc, scale)`; minus a draw is one of minima. The
    arguments broadcast to the shape of an event. Has mean, variance, entropy, cdf and quantiles in
    closed form.

    Args:
        loc: modes. Defaults to 0.
        scale: positive scales. Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: _StandardGumbel
    bijection: Affine

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.bijection = Affine(loc, scale)
        self.base_dist = _StandardGumbel(self.bijection.shape)
