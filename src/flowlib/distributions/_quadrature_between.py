"""Expectations between two ends, by quadrature over quantiles."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._module import stop_gradient
from flowlib.distributions._between import tails

# Nodes on each side of the median.
_NODES = 64
# In units of log probability: nodes are spread evenly up to about here, and in proportion to their distance beyond.
_EVEN = 4.0


class Quadrature(NamedTuple):
    """Points and weights, which sum to the probability between the ends over exp(log_scale), on a leading axis.

    The last two points stand for all beyond them, where a density falls as a power if `power`, the inverse of its
    exponent, is not small; it is 0 at all others. `low` and `high` are the ends, those of the distribution where it
    ends before.
    """

    x: Array
    weights: Array
    log_densities: Array
    power: Array
    log_scale: Array
    low: Array
    high: Array

    def mean(self) -> Array:
        """The mean of each coordinate."""
        return self._average(self._beyond(1) * self.x)

    def variance(self) -> Array:
        """The variance of each coordinate."""
        # The value of the weight under the root keeps squares far out from overflow.
        value = jax.lax.stop_gradient(self.weights)
        change = self.weights / jnp.where(value > 0, value, 1)
        squares = change * (jnp.sqrt(value) * (self.x - self.mean())) ** 2
        return (self._beyond(2) * squares).sum(0) / self.weights.sum(0)

    def entropy(self) -> Array:
        """The entropy of each coordinate."""
        return self.log_scale + jnp.log(self.weights.sum(0)) - self._average(self.log_densities)

    def _average(self, values: Array) -> Array:
        return (self.weights * values).sum(0) / self.weights.sum(0)

    def _beyond(self, order: int) -> Array:
        """What moments beyond the last points are, over those at them: a/(a - order) with the exponent a."""
        return 1 / jnp.maximum(1 - order * self.power, jnp.finfo(self.x.dtype).eps)


def quadrature_between(dist: Any, lower: Array, upper: Array) -> Quadrature:
    """Gauss-Legendre quadrature in each independent coordinate of `dist`, on both sides of its median.

    With w the log probability of the smaller tail, an expectation is the integral of g(x(w)) exp(w), which is smooth
    up to the ends, be they finite or not and the density zero, finite or infinite there. A change of variables
    w = top - s, s = a ((1 + length / a)^t - 1), t in (0, 1), puts nodes where exp(w) is large.

    The points are fixed: parameters move the weights, by the ratio of densities, so that derivatives are
    covariances with the score, and neither cdf nor quantiles need have one.
    """
    fixed = stop_gradient(dist)
    below, above, _ = tails(fixed, lower, upper)
    # Below the median, in the lower tail, and above it, in the upper; one of them may be empty.
    half = -math.log(2)
    top = jnp.minimum(jnp.stack([below[1], above[0]]), half)
    bottom = jnp.minimum(jnp.stack([below[0], above[1]]), half)
    # The exponential of what is beyond would underflow.
    length = jnp.minimum(top - bottom, 0.9 * math.log(jnp.finfo(top.dtype).max))
    t, gauss = (a.reshape(-1, *[1] * top.ndim).astype(top.dtype) for a in _GAUSS_LEGENDRE)
    rate = jnp.log1p(length / _EVEN)
    s = _EVEN * jnp.expm1(rate * t)
    scale = jnp.where(length > 0, top, -jnp.inf).max(0)
    share = jnp.exp(jnp.minimum(top - scale, 0))
    # All beyond the last point, and the end of the distribution.
    last = jnp.stack([length, jnp.full_like(length, jnp.inf)])
    x = jax.vmap(jax.vmap(fixed._inverse_log_tail), (0, None))(
        top - jnp.concatenate([s, last]), jnp.stack([jnp.zeros(dist.shape, bool), jnp.ones(dist.shape, bool)])
    )
    low, high = jnp.maximum(x[-1, 0], lower), jnp.minimum(x[-1, 1], upper)
    open_ends = jnp.isinf(jnp.stack([low, high]))
    beyond = jnp.where(open_ends & (length > 0), jnp.exp(-length), 0)
    weights = share * jnp.concatenate([gauss * rate * (s + _EVEN) * jnp.exp(-s), beyond[None]])
    x = jnp.clip(x[:-1], _next(low, jnp.inf), _next(high, -jnp.inf))
    x, weights = jax.lax.stop_gradient((x.reshape(-1, *dist.shape), weights.reshape(-1, *dist.shape)))
    log_densities = jax.vmap(dist._log_densities)(x)
    slope = jax.vmap(lambda x: jax.jvp(dist._log_densities, (x,), (jnp.ones_like(x),))[1])(x[-2:])
    # Of x^-(a + 1) the logarithm has the slope -(a + 1) / x, and the probability beyond x is x / a of the density.
    power = jnp.where(open_ends, 1 / jnp.where(open_ends, -1 - x[-2:] * slope, 1), 0)
    power = jnp.concatenate([jnp.zeros_like(x[:-2]), power])
    change = log_densities + jnp.log(jnp.where(power > 0, power, 1))
    ratio = jnp.exp(change - jax.lax.stop_gradient(change))
    return Quadrature(x, weights * ratio, log_densities, power, scale, low, high)


def _gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """On (0, 1)."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return (points + 1) / 2, weights / 2


_GAUSS_LEGENDRE = _gauss_legendre(_NODES)


def _next(end: Array, towards: float) -> Array:
    """The next normal number inside, where the density is finite even if it is not at the end."""
    tiny = math.copysign(float(jnp.finfo(end.dtype).tiny), towards)
    return jnp.where(end == 0, tiny, jnp.nextafter(end, jnp.full_like(end, towards)))
