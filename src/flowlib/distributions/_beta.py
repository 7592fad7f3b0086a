"""The beta distribution."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import betainc
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
from flowlib.support import Interval, Support


class Beta(AbstractBatchSampler, AbstractNumericalQuantile):
    """Independent beta coordinates, summed over coordinates, on 0 <= x <= 1.

    log p(x) = (alpha - 1) log x + (beta - 1) log(1 - x) - log B(alpha, beta).

    `scipy.stats.beta(alpha, beta)`. At x = 0 it is -inf for alpha > 1, finite for alpha = 1 and +inf
    for alpha < 1, and likewise at 1 for beta; draws stay off both ends. The arguments broadcast to
    the shape of an event. The density is accurate for any parameters, large ones included. Has
    mean, variance, entropy and cdf in closed form, and quantiles to the rounding of the cdf, which has no
    derivative in alpha and beta, and in float32 an error of about 3e-7 (alpha + beta).

    Args:
        alpha: positive shape parameters of the lower end.
        beta: positive shape parameters of the upper end.

    Raises:
        ValueError: if a parameter is not positive and finite, or they do not broadcast.
    """

    _alpha: Array | AbstractUnwrappable[Array]
    _beta: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, alpha: ArrayLike, beta: ArrayLike):
        alpha, beta = broadcast(finite(alpha, "alpha"), finite(beta, "beta"))
        self._alpha = positive(alpha, "alpha")
        self._beta = positive(beta, "beta")
        self.shape = alpha.shape

    @property
    def alpha(self) -> Array:
        """The parameters of the lower end, a plain array of shape `shape`."""
        return unwrap(self._alpha)

    @property
    def beta(self) -> Array:
        """The parameters of the upper end, a plain array of shape `shape`."""
        return unwrap(self._beta)

    @property
    def support(self) -> Support:
        return Interval(0.0, 1.0, closed=True)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        alpha, beta, total = self._parameters()
        at_zero, at_one = x == 0, x == 1
        zeros = (at_zero & (alpha > 1)) | (at_one & (beta > 1))
        clash = zero_times_infinity(zeros, (at_zero & (alpha < 1)) | (at_one & (beta < 1)))
        return jnp.where(clash, -jnp.inf, self._log_densities(jnp.where(clash, alpha / total, x)).sum())

    def _log_densities(self, x: Array) -> Array:
        # Relative to the mean: the leading terms of log B then cancel on paper.
        alpha, beta, total = self._parameters()
        mean, rest, log_total = alpha / total, beta / total, jnp.log(total)
        lower = power_term(alpha - 1, x, x - mean, mean, jnp.log(alpha) - log_total)
        upper = power_term(beta - 1, 1 - x, mean - x, rest, jnp.log(beta) - log_total)
        return lower + upper + self._log_peak()

    def _parameters(self) -> tuple[Array, Array, Array]:
        return self.alpha, self.beta, self.alpha + self.beta

    def _log_peak(self):
        """The log density at the mean, but for the remainders a Gaussian peak."""
        alpha, beta, total = self._parameters()
        remainders = stirling_remainder(total) - stirling_remainder(alpha) - stirling_remainder(beta)
        return 0.5 * (3 * jnp.log(total) - jnp.log(alpha) - jnp.log(beta)) - HALF_LOG_2PI + remainders

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        alpha, beta, _ = self._parameters()
        draws = jr.beta(key, alpha, beta, (size, *self.shape), alpha.dtype)
        # A small parameter rounds to an end, where the density is infinite.
        info = jnp.finfo(alpha.dtype)
        return jnp.clip(draws, info.tiny, 1 - info.epsneg)

    def _mean(self) -> Array:
        return self.alpha / (self.alpha + self.beta)

    def _variance(self) -> Array:
        alpha, beta, total = self._parameters()
        return (alpha / total) * (beta / total) / (total + 1)

    def _entropy(self) -> Array:
        # digamma(a) = log a + excess, and the logarithms cancel against those in log B.
        alpha, beta, total = self._parameters()
        excesses = (alpha - 1) * digamma_excess(alpha) + (beta - 1) * digamma_excess(beta)
        return ((total - 2) * digamma_excess(total) - excesses - self._log_peak()).sum()

    def _cdf(self, x: Array) -> Array:
        return betainc(self.alpha, self.beta, jnp.clip(x, 0, 1))

    def _log_survival(self, x: Array) -> Array:
        return safe_log(betainc(self.beta, self.alpha, 1 - jnp.clip(x, 0, 1)))

    def _log_tail(self, x: Array, upper: Array) -> Array:
        alpha, beta = jnp.where(upper, self.beta, self.alpha), jnp.where(upper, self.alpha, self.beta)
        return safe_log(betainc(alpha, beta, jnp.where(upper, 1 - x, x)))

    def _from_line(self, t: Array) -> Array:
        return jax.nn.sigmoid(t)

    def _line(self, dtype: Any) -> tuple[float, float]:
        return math.log(jnp.finfo(dtype).tiny), -math.log(jnp.finfo(dtype).epsneg)

    def _start(self) -> Array:
        return jnp.log(self.alpha) - jnp.log(self.beta)
