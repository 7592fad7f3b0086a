"""The normal distribution far out in both tails: logarithms and quantiles, with their gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LOG_2 = math.log(2)
_ROOT_2 = math.sqrt(2)
_LOG_ROOT_2PI = math.log(2 * math.pi) / 2


@jax.custom_jvp
def lower_tail(x: Float[Array, "..."]) -> tuple[Array, Array]:
    """log P(Z <= x) of a standard normal Z, and its log slope: log of p(x) / P(Z <= x), about log(-x) far below 0."""
    return _lower_tail(x)


def _lower_tail(x):
    t = _size(x) / _ROOT_2
    scaled = _scaled_erfc(t)
    log_scaled = jnp.log(scaled)
    log_cdf = jnp.where(x < 0, log_scaled - t * t - _LOG_2, jnp.log(1 - jnp.exp(-t * t) * scaled / 2))
    # No difference of squares below 0.
    log_slope = jnp.where(x < 0, math.log(2 / math.pi) / 2 - log_scaled, -t * t - _LOG_ROOT_2PI - log_cdf)
    return log_cdf, log_slope


@lower_tail.defjvp
def _lower_tail_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    log_cdf, log_slope = lower_tail(x)
    _, change = jax.jvp(lambda x: _lower_tail(x)[1], (x,), (dx,))
    return (log_cdf, log_slope), (jnp.exp(log_slope) * dx, change)


def log_erfc(t: Float[Array, "..."]) -> Array:
    """log erfc(t) for t >= 0."""
    # Near 0 the logarithm of a number near 1 would lose digits.
    near = jnp.log1p(-jax.lax.erf(jnp.where(t < 1, t, 0)))
    return jnp.where(t < 1, near, jnp.log(_scaled_erfc(t)) - t * t)


@jax.custom_jvp
def normal_quantile(log_p: Float[Array, "..."]) -> Array:
    """The x with log P(Z <= x) = log_p, for log_p up to about log(1/2)."""
    t = jnp.sqrt(-2 * log_p)
    # Abramowitz and Stegun 26.2.23, off by less than 4.5e-4; far out by little too, for both are about -t.
    above = 2.515517 + t * (0.802853 + t * 0.010328)
    x = above / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    # Each step of Newton's method about squares the error.
    for _ in range(2 if x.dtype == jnp.float64 else 1):
        log_cdf, log_slope = lower_tail(x)
        x = x - (log_cdf - log_p) * jnp.exp(-log_slope)
    return x


@normal_quantile.defjvp
def _normal_quantile_jvp(primals, tangents):
    x = normal_quantile(*primals)
    return x, jnp.exp(-lower_tail(x)[1]) * tangents[0]


def _size(x):
    # Not jnp.abs, whose derivative at 0 is 0.
    return jnp.where(x < 0, -x, x)


def _scaled_erfc(t):
    """exp(t^2) erfc(t) for t >= 0."""
    far, terms = (7.0, 20) if t.dtype == jnp.float64 else (5.0, 10)
    inner, outer = jnp.where(t < far, t, far), jnp.where(t < far, far, t)
    near = jnp.exp(inner * inner) * jax.lax.erfc(inner)
    # The asymptotic series 1 - 1/(2t^2) + 3/(2t^2)^2 - ..., whose first term left out is below a rounding.
    v = 0.5 / (outer * outer)
    series = jnp.ones_like(v)
    for n in range(terms, 0, -1):
        series = 1 - (2 * n - 1) * v * series
    return jnp.where(t < far, near, series / (outer * np.sqrt(np.pi).item()))
