"""The Cauchy distribution."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractSymmetricQuantile
from flowlib.distributions._special import log1p_square
from flowlib.distributions._statistics import AbstractQuantile


class _StandardCauchy(AbstractSymmetricQuantile):
    """log p(x) = -log(1 + x^2) - log pi."""

    shape: tuple[int, ...] = eqx.field(static=True, converter=as_shape)

    def _log_densities(self, x: Array) -> Array:
        return -log1p_square(x) - math.log(math.pi)

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.cauchy(key, shape)

    def _mean(self):
        return math.nan

    def _variance(self):
        return math.nan

    def _entropy(self):
        return math.prod(self.shape) * math.log(4 * math.pi)

    def _cdf(self, x: Array) -> Array:
        # arctan2(1, -x) is the angle pi/2 + arctan(x), without cancellation in the lower tail.
        return jnp.arctan2(jnp.ones_like(x), -x) / math.pi

    def _quantile(self, q: Array) -> Array:
        # tan(pi (q - 1/2)) = -1 / tan(pi q); by symmetry only small q are needed, where pi q is exact enough.
        lower = q < 0.5
        tail = jnp.where(lower, q, 1 - q)
        centre = jnp.abs(q - 0.5) < 0.25
        far = 1 / jnp.tan(math.pi * jnp.where(centre, 0.25, tail))
        near = jnp.tan(math.pi * (jnp.where(centre, q, 0.5) - 0.5))
        return jnp.where(centre, near, jnp.where(lower, -far, far))


class Cauchy(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent Cauchy coordinates: log p(x) = -log(1 + z^2) - log(pi scale) with z = (x - loc) / scale, summed.

    `scipy.stats.cauchy(loc, scale)`. The arguments broadcast to the shape of an event. Has entropy,
    cdf and quantiles in closed form; it has no mean and no variance, which are NaN.

    Args:
        loc: medians. Defaults to 0.
        scale: positive half widths at half maximum. Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: _StandardCauchy
    bijection: Affine

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.bijection = Affine(loc, scale)
        self.base_dist = _StandardCauchy(self.bijection.shape)
