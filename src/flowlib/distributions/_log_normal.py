"""The log-normal distribution."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib._module import unwrap_own
from flowlib.bijections import Exp
from flowlib.distributions._normal import Normal
from flowlib.distributions._statistics import AbstractQuantile
from flowlib.distributions._transformed import AbstractTransformed


class LogNormal(AbstractTransformed, AbstractQuantile):
    """exp of independent normal coordinates, on x > 0: log p(x) = log N(log x; loc, scale) - log x, summed.

    `scipy.stats.lognorm(s=scale, scale=exp(loc))`. The arguments broadcast to the shape of an
    event. Has mean, variance, entropy, cdf and quantiles in closed form.

    Args:
        loc: means of log x. Defaults to 0.
        scale: positive standard deviations of log x. Defaults to 1.

    Raises:
        ValueError: if a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: Normal
    bijection: Exp

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        self.base_dist = Normal(loc, scale)
        self.bijection = Exp(self.base_dist.shape)

    @property
    def loc(self) -> Array:
        """The mean of log x, a plain array of shape `shape`."""
        return self._normal().loc

    @property
    def scale(self) -> Array:
        """The standard deviation of log x, a plain array of shape `shape`."""
        return self._normal().scale

    def _normal(self) -> Normal:
        return unwrap_own(self.base_dist)

    def _mean(self) -> Array:
        return jnp.exp(self.loc + self.scale**2 / 2)

    def _variance(self) -> Array:
        # expm1 keeps the digits of a small scale.
        return jnp.expm1(self.scale**2) * jnp.exp(2 * self.loc + self.scale**2)

    def _entropy(self) -> Array:
        return self._normal()._entropy() + self.loc.sum()

    def _log_densities(self, x: Array) -> Array:
        log_x = jnp.log(x)
        return self._normal()._log_densities(log_x) - log_x

    def _cdf(self, x: Array) -> Array:
        # 0 and below map to -inf, whose probability is 0; NaN stays NaN.
        outside, log_x = _log(x)
        return jnp.where(outside, 0, self._normal()._cdf(log_x))

    def _log_cdf(self, x: Array) -> Array:
        outside, log_x = _log(x)
        return jnp.where(outside, -jnp.inf, self._normal()._log_cdf(log_x))

    def _log_survival(self, x: Array) -> Array:
        outside, log_x = _log(x)
        return jnp.where(outside, 0, self._normal()._log_survival(log_x))

    def _quantile(self, q: Array) -> Array:
        return jnp.exp(self._normal()._quantile(q))

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return jnp.exp(self._normal()._inverse_log_cdf(log_q))

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return jnp.exp(self._normal()._inverse_log_survival(log_q))


def _log(x: Array) -> tuple[Array, Array]:
    outside = x <= 0
    return outside, jnp.log(jnp.where(outside, 1, x))
