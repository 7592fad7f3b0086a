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
from flowlib.distributions._statistics import AbstractInverseCdf, checked_product
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Between, Support


class Truncated(AbstractBatchDistribution, AbstractWrapper, AbstractInverseCdf):
    """p(x) / P(lower <= X <= upper) between the ends, in independent coordinates, and 0 beyond them.

    `dist` given that each coordinate lies in its interval: one with cdf and quantiles. The probability of the interval
    and the quantiles, from which it draws, come from the tail with less in it and in logarithms, so that nothing is
    lost far out. The ends never train, and may be infinite. Has cdf and quantiles.

        Truncated(Normal(0.0, 1.0), 8.0, jnp.inf).sample(key)

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
        inner, at_end = self._inner(), (q <= 0) | (q >= 1)
        below, above, from_above = tails(inner, self.lower, self.upper)
        inside = jnp.where(at_end, 0.5, q)
        # Between the logarithms of cdf at both ends, or of survival, whichever are the smaller.
        log_q = jnp.where(from_above, _between(above[1], above[0], 1 - inside), _between(below[0], below[1], inside))
        # Of 0 and 1, those of `dist`, which the ends cut off.
        log_q, upper = jnp.where(at_end, -jnp.inf, log_q), jnp.where(at_end, q >= 1, from_above)
        return jnp.clip(inner._inverse_log_tail(log_q, upper), self.lower, self.upper)


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
