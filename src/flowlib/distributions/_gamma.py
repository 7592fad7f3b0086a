"""The gamma distribution."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammainc, gammaincc, ndtr
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib.constraints import broadcast, finite, positive
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._numerical_quantile import AbstractNumericalQuantile
from flowlib.distributions._special import (
    HALF_LOG_2PI,
    digamma_excess,
    power_term,
    safe_log,
    stirling_remainder,
    zero_times_infinity,
)
from flowlib.support import Positive, Support


class Gamma(AbstractBatchSampler, AbstractNumericalQuantile):
    """Independent gamma coordinates, with a the concentration and summed over coordinates, on x >= 0.

    log p(x) = (a - 1) log x - x / scale - a log scale - log Gamma(a).

    `scipy.stats.gamma(a, scale=scale)`. At x = 0 it is -inf for a > 1, finite for a = 1 and +inf for
    a < 1; draws stay above 0. The arguments broadcast to the shape of an event. Accurate for any
    concentration, large ones included. Has mean, variance, entropy and cdf in
    closed form, and quantiles to rounding.

    Args:
        concentration: positive shape parameters a.
        scale: positive scales, the inverses of the rates.

    Raises:
        ValueError: if a parameter is not positive and finite, or they do not broadcast.
    """

    _concentration: Array | AbstractUnwrappable[Array]
    _scale: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, concentration: ArrayLike, scale: ArrayLike):
        concentration, scale = broadcast(finite(concentration, "concentration"), finite(scale, "scale"))
        self._concentration = positive(concentration, "concentration")
        self._scale = positive(scale, "scale")
        self.shape = concentration.shape

    @property
    def concentration(self) -> Array:
        """The concentrations, a plain array of shape `shape`."""
        return unwrap(self._concentration)

    @property
    def scale(self) -> Array:
        """The scales, a plain array of shape `shape`."""
        return unwrap(self._scale)

    @property
    def support(self) -> Support:
        return Positive(closed=True)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        a = self.concentration
        clash = zero_times_infinity((x == 0) & (a > 1), (x == 0) & (a < 1))
        return jnp.where(clash, -jnp.inf, self._log_densities(jnp.where(clash, a * self.scale, x)).sum())

    def _log_densities(self, x: Array) -> Array:
        # Relative to the mean: the leading terms of log Gamma(a) then cancel on paper.
        a, scale = self.concentration, self.scale
        mean, log_mean = a * scale, jnp.log(a) + jnp.log(scale)
        power = power_term(a - 1, x, x - mean, mean, log_mean)
        peak = -0.5 * jnp.log(a) - jnp.log(scale) - stirling_remainder(a) - HALF_LOG_2PI
        return power - (x - mean) / scale + peak

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        a = jnp.broadcast_to(self.concentration, (size, *self.shape))
        draws = jnp.exp(jr.loggamma(key, a, dtype=a.dtype) + jnp.log(self.scale))
        # A small concentration underflows to 0, where the density is infinite.
        return jnp.maximum(draws, jnp.finfo(a.dtype).tiny)

    def _mean(self) -> Array:
        return self.concentration * self.scale

    def _variance(self) -> Array:
        return self.concentration * self.scale**2

    def _entropy(self) -> Array:
        # a + log Gamma(a) + (1 - a) digamma(a), without the leading terms, which cancel.
        a = self.concentration
        remainders = stirling_remainder(a) + (1 - a) * digamma_excess(a)
        return (0.5 * jnp.log(a) + HALF_LOG_2PI + remainders + jnp.log(self.scale)).sum()

    def _cdf(self, x: Array) -> Array:
        return _standard_cdf(gammainc, 1, self.concentration, jnp.maximum(x, 0) / self.scale)

    def _log_survival(self, x: Array) -> Array:
        return safe_log(_standard_cdf(gammaincc, -1, self.concentration, jnp.maximum(x, 0) / self.scale))

    def _from_line(self, t: Array) -> Array:
        return jnp.exp(t)

    def _line(self, dtype: Any) -> tuple[float, float]:
        return math.log(jnp.finfo(dtype).tiny), math.log(jnp.finfo(dtype).max) - 1

    def _start(self) -> Array:
        return jnp.log(self.concentration) + jnp.log(self.scale)


def _standard_cdf(incomplete: Callable[[Array, Array], Array], side: int, a: Array, z: Array) -> Array:
    """The probability below z for `gammainc` and side 1, above z for `gammaincc` and side -1."""
    # The incomplete gamma function of JAX loses digits in proportion to a; the expansion gains them.
    from_here = 100.0 if a.dtype == jnp.float32 else 1e5
    large = a > from_here
    exact = incomplete(jnp.where(large, 1, a), jnp.where(large, 1, z))
    expanded = _cdf_by_normal(side, jnp.where(large, a, from_here), jnp.where(large, z, from_here))
    return jnp.where(large, expanded, exact)


def _cdf_by_normal(side: int, a: Array, z: Array) -> Array:
    """N. M. Temme, The asymptotic expansion of the incomplete gamma functions, 1979, with one correction term."""
    # Clipped where the probability is 0 or 1 in any precision.
    mu = jnp.clip((z - a) / a, -0.9, 10)
    near = jnp.abs(mu) < 0.1
    close, far = jnp.where(near, mu, 0), jnp.where(near, 1, mu)
    # 2 (mu - log1p(mu)) / mu^2, by its series where it would cancel.
    series = jnp.zeros_like(mu)
    for k in reversed(range(16)):
        series = 2 / (k + 2) - close * series
    eta = mu * jnp.sqrt(jnp.where(near, series, 2 * (far - jnp.log1p(far)) / far**2))
    eta_far = jnp.where(near, 1, eta)
    correction = jnp.where(near, -1 / 3 + eta / 12 - 2 * eta**2 / 135 + eta**3 / 864, 1 / far - 1 / eta_far)
    correction = jnp.exp(-0.5 * a * eta**2 - HALF_LOG_2PI) / jnp.sqrt(a) * correction
    return ndtr(side * eta * jnp.sqrt(a)) - side * correction
