"""Student's t distribution."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import betainc, ndtr
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib.bijections import Affine
from flowlib.constraints import broadcast, finite, positive
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution, AbstractSymmetric
from flowlib.distributions._numerical_quantile import AbstractNumericalQuantile
from flowlib.distributions._special import HALF_LOG_2PI, digamma_excess, log1p_square, stirling_remainder
from flowlib.distributions._statistics import AbstractQuantile


class _StandardStudentT(AbstractSymmetric, AbstractNumericalQuantile):
    """log p(x) = -(df + 1)/2 log(1 + x^2/df) + log Gamma((df + 1)/2) - log Gamma(df/2) - log(pi df)/2."""

    _df: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, df: Array):
        self._df = positive(df, "df")
        self.shape = df.shape

    @property
    def df(self) -> Array:
        return unwrap(self._df)

    def _log_densities(self, x: Array) -> Array:
        return -0.5 * (self.df + 1) * log1p_square(x / jnp.sqrt(self.df)) + _log_peak(self.df)

    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        # The chi-square in logarithms: for small df it underflows, while the draw itself does not overflow.
        key_normal, key_gamma = jr.split(key)
        half = jnp.broadcast_to(0.5 * self.df, shape)
        log_gamma = jr.loggamma(key_gamma, half, dtype=half.dtype)
        return jr.normal(key_normal, shape, half.dtype) * jnp.exp(0.5 * (jnp.log(half) - log_gamma))

    def _mean(self):
        return jnp.where(self.df > 1, 0, jnp.nan)

    def _variance(self):
        finite_variance = self.df > 2
        variance = self.df / (jnp.where(finite_variance, self.df, 3) - 2)
        return jnp.where(finite_variance, variance, jnp.where(self.df > 1, jnp.inf, jnp.nan))

    def _entropy(self):
        half = 0.5 * self.df
        digammas = jnp.log1p(1 / self.df) + digamma_excess(half + 0.5) - digamma_excess(half)
        return ((half + 0.5) * digammas - _log_peak(self.df)).sum()

    def _cdf(self, x: Array) -> Array:
        large = self.df > _LARGE_DF
        by_beta = _cdf_by_incomplete_beta(x, jnp.where(large, 1, self.df))
        return jnp.where(large, _cdf_by_normal(x, jnp.where(large, self.df, _LARGE_DF)), by_beta)

    def _log_tail(self, x: Array, upper: Array) -> Array:
        return self._log_cdf(jnp.where(upper, -x, x))

    def _from_line(self, t: Array) -> Array:
        return jnp.sinh(t)

    def _line(self, dtype: Any) -> tuple[float, float]:
        greatest = math.log(jnp.finfo(dtype).max)
        return -greatest, greatest

    def _start(self) -> Array:
        return jnp.zeros_like(self.df)


class StudentT(AbstractLocScaleDistribution, AbstractQuantile):
    """Independent Student t coordinates, with z = (x - loc) / scale and summed over coordinates.

    log p(x) = -(df + 1)/2 log(1 + z^2/df) + log Gamma((df + 1)/2) - log Gamma(df/2) - log(pi df)/2 - log scale.

    `scipy.stats.t(df, loc, scale)`. The arguments broadcast to the shape of an event. Accurate for
    any df, as small as 0.1 and so large that it is a normal. Has mean (NaN for df <= 1), variance
    (inf for df <= 2, NaN for df <= 1), entropy and cdf in closed form, and quantiles to rounding. The cdf has no
    derivative in df.

    Args:
        df: positive degrees of freedom, not necessarily whole.
        loc: medians. Defaults to 0.
        scale: positive scales. Defaults to 1.

    Raises:
        ValueError: if df or a scale is not positive, a value not finite, or they do not broadcast.
    """

    base_dist: _StandardStudentT
    bijection: Affine

    def __init__(self, df: ArrayLike, loc: ArrayLike = 0, scale: ArrayLike = 1):
        degrees, loc, scale = broadcast(finite(df, "df"), finite(loc, "loc"), finite(scale, "scale"))
        self.base_dist = _StandardStudentT(degrees)
        self.bijection = Affine(loc, scale)

    @property
    def df(self) -> Array:
        """The degrees of freedom, a plain array of shape `shape`."""
        return self._base().df


# From here on the expansion below is exact to 1e-13, while the incomplete beta function of JAX loses
# digits in proportion to its arguments.
_LARGE_DF = 50.0


def _log_peak(df: Array) -> Array:
    """The log density at 0: a quotient of Gamma functions by Stirling's formula, whose leading terms cancel."""
    half = 0.5 * df
    remainders = stirling_remainder(half + 0.5) - stirling_remainder(half)
    return half * jnp.log1p(0.5 / half) - 0.5 + remainders - HALF_LOG_2PI


def _cdf_by_incomplete_beta(x: Array, df: Array) -> Array:
    # P(|T| < |x|) near the centre and P(T > |x|) in the tails: each argument keeps its digits there. At the
    # centre itself, and where a square would not be representable, by the leading terms of their series.
    ratio = x / jnp.sqrt(df)
    size = jnp.abs(ratio)
    at_centre, far = size < 1e-4, size > 1e9
    moderate = jnp.where(at_centre | far, 1, size)
    central = moderate < 1
    inner, outer = jnp.where(central, moderate, 1) ** 2, jnp.where(central, 1, 1 / moderate) ** 2
    half = jnp.full_like(df, 0.5)
    # One call for both, since it takes long to compile.
    a, b = jnp.where(central, half, 0.5 * df), jnp.where(central, 0.5 * df, half)
    share = 0.5 * betainc(a, b, jnp.where(central, inner / (1 + inner), outer / (1 + outer)))
    power = jnp.exp(_log_peak(df) - df * jnp.log(jnp.where(far, size, 1))) / jnp.sqrt(df)
    tail = jnp.where(central, 0.5 - share, jnp.where(far, power, share))
    cubic = 0.5 + jnp.exp(_log_peak(df)) * x * (1 - (df + 1) / 6 * jnp.where(at_centre, ratio, 0) ** 2)
    cdf = jnp.where(at_centre, cubic, jnp.where(x < 0, tail, 1 - tail))
    # Comparisons have lost the NaN.
    return jnp.where(jnp.isnan(x), jnp.nan, cdf)


def _cdf_by_normal(x: Array, df: Array) -> Array:
    """G. W. Hill, Algorithm 395: Student's t-distribution, 1970: the normal deviate with the same probability."""
    # Clipped where every power below is finite and the probability is 0 or 1 in any precision.
    # At 0 a square that stands for it, and whose own square is still representable.
    square = jnp.maximum(jnp.clip(x / jnp.sqrt(df), -1e11, 1e11) ** 2, 1e-17)
    z = jnp.clip(x * jnp.sqrt((df - 0.5) / df * jnp.log1p(square) / square), -50, 50)
    z2, b = z**2, 48 * jnp.minimum(df - 0.5, 1e8) ** 2
    second = ((4 * z2 + 33) * z2 + 240) * z2 + 855
    return ndtr(z * (1 + (z2 + 3) / b - second / (10 * b * (b + 0.8 * z2**2 + 100))))
