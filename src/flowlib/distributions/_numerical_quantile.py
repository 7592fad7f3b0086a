"""Quantiles where the cdf has no inverse in closed form, to rounding."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._module import stop_gradient
from flowlib.distributions._special import log1m_exp, safe_log
from flowlib.distributions._statistics import AbstractQuantile

# Enough to halve the range of all floats to the distance of two neighbours.
_MOST_STEPS = 80


class AbstractNumericalQuantile(AbstractQuantile):
    """Quantiles by Newton's method and bisection, in the smaller tail and in logarithms.

    The search goes along a line t, which an increasing function takes onto the support, so that small and large
    numbers have all their digits. Derivatives are implicit, in q and in the parameters in which the cdf has one.
    """

    @abstractmethod
    def _from_line(self, t: Array) -> Array:
        """The point of the support at t."""

    @abstractmethod
    def _line(self, dtype: Any) -> tuple[float, float]:
        """The t of the least and of the greatest number to be found."""

    @abstractmethod
    def _start(self) -> Array:
        """A t to begin at."""

    def _log_tail(self, x: Array, upper: Array) -> Array:
        """`_log_survival` where `upper`, `_log_cdf` elsewhere."""
        return jnp.where(upper, self._log_survival(x), self._log_cdf(x))

    def _quantile(self, q: Array) -> Array:
        upper = q > 0.5
        return self._inverse_log_tail(safe_log(jnp.where(upper, 1 - q, q)), upper)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        upper = log_q > -math.log(2)
        return self._inverse_log_tail(jnp.where(upper, log1m_exp(log_q), log_q), upper)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        lower = log_q > -math.log(2)
        return self._inverse_log_tail(jnp.where(lower, log1m_exp(log_q), log_q), ~lower)

    def _inverse_log_tail(self, log_q: Array, upper: Array) -> Array:
        certain = jnp.isinf(log_q)
        target = jnp.where(certain, -1, log_q)
        t = _implicit(*_search(*stop_gradient((self, target)), upper), self, target, upper)
        return self._from_line(jnp.where(certain, jnp.where(upper, jnp.inf, -jnp.inf), t))


def _search(dist: AbstractNumericalQuantile, target: Array, upper: Array) -> tuple[Array, Array]:
    """The t at which the logarithm of the tail is the target, and its slope there."""

    def is_open(state):
        *_, searching, n = state
        return searching.any() & (n < _MOST_STEPS)

    def step(state):
        t, low, high, last, _, searching, n = state
        x, rise = jax.jvp(dist._from_line, (t,), (jnp.ones_like(t),))
        value = dist._log_tail(x, upper)
        slope = jnp.where(upper, -1, 1) * rise * jnp.exp(dist._log_densities(x) - value)
        # Of the survival, more is further down.
        left = jnp.where(upper, target - value, value - target)
        low, high = jnp.where(left < 0, t, low), jnp.where(left > 0, t, high)
        newton = t - (value - target) / slope
        good = (newton > low) & (newton < high) & (jnp.abs(newton - t) < last / 2)
        moved = jnp.where(left == 0, t, jnp.where(good, newton, low / 2 + high / 2))
        length = jnp.abs(moved - t)
        searching, go_on = searching & (length > 2 * jnp.finfo(t.dtype).eps * (1 + jnp.abs(t))), searching
        return jnp.where(go_on, moved, t), low, high, length, slope, searching, n + 1

    least, greatest = (jnp.full_like(target, end) for end in dist._line(target.dtype))
    t = jnp.clip(jnp.broadcast_to(dist._start(), target.shape).astype(target.dtype), least, greatest)
    state = (t, least, greatest, greatest - least, jnp.ones_like(t), jnp.ones(t.shape, bool), jnp.zeros((), jnp.int32))
    t, *_, slope, _, _ = jax.lax.while_loop(is_open, step, state)
    return t, slope


@eqx.filter_custom_jvp
def _implicit(t, slope, dist, target, upper):
    """t, which the search found, as a function of the parameters and the target."""
    return t


@_implicit.def_jvp
def _implicit_jvp(primals, tangents):
    (t, slope, dist, _, upper), (_, _, of_dist, of_target, _) = primals, tangents
    change = jnp.zeros_like(t) if of_target is None else of_target
    if any(leaf is not None for leaf in jax.tree.leaves(of_dist)):
        _, moved = eqx.filter_jvp(lambda dist: dist._log_tail(dist._from_line(t), upper), (dist,), (of_dist,))
        change = change - moved
    usable = jnp.isfinite(slope) & (slope != 0)
    return t, jnp.where(usable, change, 0) / jnp.where(usable, slope, 1)
