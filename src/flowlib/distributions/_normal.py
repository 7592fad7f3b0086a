"""The normal distribution with independent coordinates."""

import math

import equinox as eqx
import jax.random as jr
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.bijections import Affine
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractStandard
from flowlib.distributions._special import HALF_LOG_2PI
from flowlib.distributions._statistics import AbstractQuantile


class StandardNormal(AbstractStandard, AbstractQuantile):
    """Independent N(0, 1) coordinates: log p(x) = -sum(x^2)/2 - size log(2 pi)/2.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return -0.5 * (x**2).sum() - HALF_LOG_2PI * x.size

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
