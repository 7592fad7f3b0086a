"""Special functions that keep their digits where the textbook forms cancel."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

# From here on the series below is exact to double precision; further down lgamma itself is small and exact.
_SERIES_FROM = 10.0
# B_2k / (2k (2k - 1)) for k = 1, 2, ...: the coefficients of 1 / a^(2k - 1).
_STIRLING = [Fraction(1, 12), Fraction(-1, 360), Fraction(1, 1260), Fraction(-1, 1680), Fraction(1, 1188)]
_STIRLING += [Fraction(-691, 360360), Fraction(1, 156), Fraction(-3617, 122400)]


def stirling_remainder(a: Array) -> Array:
    """log Gamma(a) - [(a - 1/2) log a - a + log(2 pi)/2], for a > 0.

    Densities are written with this remainder, because log Gamma(1e6) is 1e7 and float32 would keep
    it, and any difference of two of them, to the nearest 1 only.
    """
    large = a > _SERIES_FROM
    above, below = jnp.where(large, a, _SERIES_FROM), jnp.where(large, 1, a)
    square = 1 / above**2
    series = jnp.zeros_like(a)
    for coefficient in reversed(_STIRLING):
        series = series * square + float(coefficient)
    exact = gammaln(below) - ((below - 0.5) * jnp.log(below) - below + HALF_LOG_2PI)
    return jnp.where(large, series / above, exact)


def log_sum_exp(terms: Array) -> Array:
    """log sum exp over the first axis, with gradients of 0 where all terms are -inf."""
    # There the log-sum-exp has a NaN gradient, which would spoil that of other rows.
    outside = (terms == -jnp.inf).all(axis=0)
    return jnp.where(outside, -jnp.inf, jax.nn.logsumexp(jnp.where(outside, 0, terms), axis=0))


def safe_log(x: Array) -> Array:
    """log x for x >= 0, with derivative 0 at x = 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), jnp.where(x == 0, -jnp.inf, jnp.nan))


def log1m_exp(x: Array) -> Array:
    """log(1 - exp(x)) for x <= 0, with derivative 0 at x = 0, where it is -inf."""
    # log(-expm1(x)) keeps the digits near 0, and log1p(-exp(x)) those further away.
    negative, near = x < 0, x > -math.log(2)
    close = jnp.log(-jnp.expm1(jnp.where(negative & near, x, -0.5)))
    return jnp.where(negative, jnp.where(near, close, jnp.log1p(-jnp.exp(jnp.where(near, -1, x)))), -jnp.inf)


def digamma_excess(a: Array) -> Array:
    """digamma(a) - log a, for a > 0."""
    slope = jax.jvp(stirling_remainder, (a,), (jnp.ones_like(a),))[1]
    return slope - 0.5 / a


def minus_log1p(x: Array) -> Array:
    """x - log(1 + x), for x > -1, by its series where it would cancel."""
    near = jnp.abs(x) < 0.01
    close, series = jnp.where(near, x, 0), jnp.zeros_like(x)
    for k in reversed(range(2, 10)):
        series = 1 / k - close * series
    far = jnp.where(near, 1, x)
    return jnp.where(near, close**2 * series, far - jnp.log1p(far))


def log1p_square(z: Array) -> Array:
    """log(1 + z^2), without overflow of the square."""
    large = jnp.abs(z) > 1
    inner, outer = jnp.where(large, 0, z), jnp.where(large, jnp.abs(z), 1)
    return jnp.where(large, 2 * jnp.log(outer) + jnp.log1p((1 / outer) ** 2), jnp.log1p(inner**2))


def power_term(exponent: Array, x: Array, difference: Array, centre: Array, log_centre: Array) -> Array:
    """exponent log(x / centre) for x >= 0, where `difference` is x - centre.

    Near the centre it goes through the difference, whose relative error a large exponent does not
    blow up. A zero exponent gives 0 also at x = 0.
    """
    near = jnp.abs(difference) < 0.5 * centre
    close = jnp.log1p(jnp.where(near, difference, 0) / jnp.where(near, centre, 1))
    # The smallest normal number stands for 0, so that a zero exponent times its logarithm is 0 and
    # not NaN, and the derivative in the exponent stays finite.
    corner = (exponent == 0) & (x == 0)
    far = jnp.log(jnp.where(near, 1, jnp.where(corner, jnp.finfo(x.dtype).tiny, x))) - log_centre
    return exponent * jnp.where(near, close, far)


def zero_times_infinity(zeros: Array, poles: Array) -> Array:
    """Whether a product of densities has a factor 0 and a factor infinity; it is then taken to be 0, and never NaN."""
    return zeros.any() & poles.any()
