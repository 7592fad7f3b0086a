"""Distributions cut off at ends."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import cast_floats, check_positive, check_values, float_dtype, is_concrete, real_array
from flowlib._module import peel, unwrap_own
from flowlib.constraints import broadcast
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._between import log_probability_between, tails
from flowlib.distributions._distribution import AbstractDistribution, density_batch
from flowlib.distributions._quadrature_between import Quadrature, quadrature_between
from flowlib.distributions._statistics import AbstractInverseCdf, AbstractQuantile, checked_product, moment
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Between, Support


class Truncated(AbstractBatchDistribution, AbstractWrapper, AbstractQuantile):
    """p(x) / P(lower <= X <= upper) between the ends, in independent coordinates, and 0 beyond them.

    `dist` given that each coordinate lies in its interval: one with cdf and quantiles. The probability of the interval
    and the quantiles, from which it draws, come from the tail with less in it and in logarithms, so that nothing is
    lost far out. The ends never train, and may be infinite. Has cdf and quantiles, and mean, variance and entropy.

    These three are integrals over quantiles: 130 of them in each coordinate, at Gauss-Legendre nodes in a function of
    their log probability, which serves finite and infinite ends alike. Where ends are moderate they are exact to about
    1e-12, in float32 to 1e-6; further out, to what the rounding of numbers there is of the spread. (In float32 not the
    variance of a `LogNormal` of scale 5 or more without an upper end.) Where there is no end and `dist` has no finite
    mean or variance, its tail counts as heavy: they are infinite, or NaN with two such tails and no mean. Derivatives
    are those in the parameters of `dist`, with the ends fixed; of `StudentT` in df too, in which its cdf has none.

        Truncated(Normal(0.0, 1.0), 8.0, jnp.inf).mean  # 8.1214

    Args:
        dist: p, of any shape and without a condition: a family with quantiles, or a `Joint` of such.
        lower: lower ends, which broadcast to the shape of an event; -inf for none. Defaults to -inf.
        upper: upper ends, above the lower ones; inf for none. Defaults to inf.

    Raises:
        TypeError: if `dist` is no distribution, or has no cdf or quantiles.
        ValueError: if an interval is empty or upside down, the ends do not broadcast to the shape of `dist`, or it is
            conditional.
    """

    dist: AbstractDistribution
    # Both in one order or the other, as in `Uniform`.
    _lower: Array | paramax.AbstractUnwrappable[Array]
    _upper: Array | paramax.AbstractUnwrappable[Array]

    def __init__(self, dist: AbstractDistribution, lower: ArrayLike = -jnp.inf, upper: ArrayLike = jnp.inf):
        shape = checked_product(dist, AbstractInverseCdf, "Truncated", "cdf and quantiles").shape
        ends = _end(lower, "lower", shape), _end(upper, "upper", shape)
        low, high = cast_floats(ends, float_dtype(ends))
        if is_concrete(low) and is_concrete(high):
            with np.errstate(over="ignore"):
                width = np.asarray(high, np.float64) - np.asarray(low, np.float64)
            check_positive(np.where(np.isposinf(width), 1.0, width), "upper - lower")
        self.dist = dist
        self._lower = paramax.NonTrainable(low)
        self._upper = paramax.NonTrainable(high)

    @property
    def lower(self) -> Array:
        """The lower ends, a plain array of shape `shape`."""
        return jnp.minimum(*self._ends())

    @property
    def upper(self) -> Array:
        """The upper ends, a plain array of shape `shape`."""
        return jnp.maximum(*self._ends())

    @property
    def support(self) -> Support:
        return Between(peel(self.dist).support, self.lower, self.upper)

    def _ends(self) -> tuple[Array, Array]:
        return jax.lax.stop_gradient(paramax.unwrap((self._lower, self._upper)))

    def _inner(self) -> Any:
        return unwrap_own(self.dist)

    def _log_mass(self) -> Array:
        """Of each coordinate."""
        return log_probability_between(self._inner(), self.lower, self.upper)

    def _quadrature(self) -> Quadrature:
        return quadrature_between(self._inner(), self.lower, self.upper)

    def _mean(self) -> Array:
        nodes = self._quadrature()
        below, above = self._heavy_tails(nodes, "_mean")
        infinite = jnp.where(below & above, jnp.nan, jnp.where(below, -jnp.inf, jnp.inf))
        return jnp.where(below | above, infinite, _without(nodes, below | above).mean())

    def _variance(self) -> Array:
        nodes = self._quadrature()
        below, above = self._heavy_tails(nodes, "_variance")
        # Of what has no mean, undefined.
        no_mean = self._heavy_tails(nodes, "_mean")
        infinite = jnp.where(no_mean[0] & no_mean[1], jnp.nan, jnp.inf)
        return jnp.where(below | above, infinite, _without(nodes, below | above).variance())

    def _heavy_tails(self, nodes: Quadrature, name: str) -> tuple[Array, Array]:
        """Whether a moment is infinite below and above: where there is no end, and `dist` does not have it."""
        none = ~jnp.isfinite(moment(self.dist, name))
        return none & jnp.isinf(nodes.low), none & jnp.isinf(nodes.high)

    def _entropy(self) -> Array:
        return self._quadrature().entropy().sum()

    def _log_densities(self, x: Array) -> Array:
        return self._inner()._log_densities(x) - self._log_mass()

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        return density_batch(self.dist, x) - self._log_mass().sum()

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        dtype = float_dtype(self)
        q = jr.uniform(key, (size, *self.shape), dtype, minval=jnp.finfo(dtype).tiny)
        return jax.vmap(self._quantile)(q)

    def _cdf(self, x: Array) -> Array:
        return jnp.where(jnp.isnan(x), jnp.nan, jnp.exp(self._log_cdf(x)))

    def _log_cdf(self, x: Array) -> Array:
        inside = jnp.clip(x, self.lower, self.upper)
        return log_probability_between(self._inner(), self.lower, inside) - self._log_mass()

    def _log_survival(self, x: Array) -> Array:
        inside = jnp.clip(x, self.lower, self.upper)
        return log_probability_between(self._inner(), inside, self.upper) - self._log_mass()

    def _quantile(self, q: Array) -> Array:
        upper = q > 0.5
        return self._point(jnp.where(upper, 1 - q, q), upper)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return self._point(jnp.exp(log_q), False)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return self._point(jnp.exp(log_q), True)

    def _inverse_log_tail(self, log_q: Array, upper: Array) -> Array:
        return self._point(jnp.exp(log_q), upper)

    def _point(self, share: Array, upper: Array | bool) -> Array:
        """Above which there is this share of the probability where `upper`, below which elsewhere."""
        inner, at_end = self._inner(), (share <= 0) | (share >= 1)
        below, above, from_above = tails(inner, self.lower, self.upper)
        inside = jnp.where(at_end, 0.5, share)
        under, over = jnp.where(upper, 1 - inside, inside), jnp.where(upper, inside, 1 - inside)
        # Between the logarithms of cdf at both ends, or of survival, whichever are the smaller.
        log_q = jnp.where(from_above, _between(above[1], above[0], over), _between(below[0], below[1], under))
        # Of 0 and 1, those of `dist`, which the ends cut off.
        log_q = jnp.where(at_end, -jnp.inf, log_q)
        upper = jnp.where(at_end, upper == (share <= 0), from_above)
        return jnp.clip(inner._inverse_log_tail(log_q, upper), self.lower, self.upper)


def _without(nodes: Quadrature, coordinates: Array) -> Quadrature:
    """With harmless points in these coordinates."""
    return nodes._replace(x=jnp.where(coordinates, 0, nodes.x), power=jnp.where(coordinates, 0, nodes.power))


def _between(log_low: Array, log_high: Array, share: Array) -> Array:
    """log(low + share (high - low))."""
    step, small = log_low - log_high, share < 0.5
    low = jnp.log(jnp.exp(step) - jnp.where(small, share, 0.25) * jnp.expm1(step))
    return log_high + jnp.where(small, low, jnp.log1p(jnp.where(small, 0.5, 1 - share) * jnp.expm1(step)))


def _end(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    end = real_array(value, name)
    check_values(end, name, lambda array: ~np.isnan(array), "a number")
    if np.broadcast_shapes(end.shape, shape) != shape:
        raise ValueError(f"Truncated expected {name} that broadcasts to the shape {shape}, got shape {end.shape}.")
    return broadcast(end, jnp.zeros(shape, end.dtype))[0]
