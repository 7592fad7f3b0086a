"""Monotone functions on an interval, continued in straight lines with the slopes at its ends."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from flowlib.bijections._bijection import AbstractBijection, event_log_det
from flowlib.bijections._interval import Interval, clipped
from flowlib.bijections._solve import Function, solve_scalar

# From the point and the parameters.
LogSlope = Callable[[Array, PyTree], Array]


class AbstractLinearTails(AbstractBijection):
    """An elementwise map that is an increasing function on an interval and goes on in straight lines, with lanes.

    `transform` evaluates the function, `inverse` searches the interval.
    """

    interval: eqx.AbstractVar[Interval]
    _takes_lanes: ClassVar[bool] = True

    @abstractmethod
    def _inside(self) -> tuple[Function, LogSlope, PyTree]:
        """The function on the interval, its log slope, and the arguments of both beside x."""

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        y, log_slope = forward_with_tails(*self._inside(), x, self.interval)
        return y, event_log_det(log_slope, self.shape)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        x, log_slope = inverse_with_tails(*self._inside(), y, self.interval)
        return x, event_log_det(log_slope, self.shape)


def forward_with_tails(
    fn: Function, log_slope: LogSlope, args: PyTree, x: Float[Array, "*lanes"], interval: Interval
) -> tuple[Array, Array]:
    """fn(x, args) inside the interval, straight lines outside; and the log slope."""
    inner = clipped(x, interval)
    log_slopes = log_slope(inner, args)
    return fn(inner, args) + jnp.exp(log_slopes) * (x - inner), log_slopes


def inverse_with_tails(
    fn: Function, log_slope: LogSlope, args: PyTree, y: Float[Array, "*lanes"], interval: Interval
) -> tuple[Array, Array]:
    """The x of `forward_with_tails` where it is y, by a search in the interval; and the log slope of the inverse."""
    ends = jnp.full_like(y, interval[0]), jnp.full_like(y, interval[1])
    low, high = fn(ends[0], args), fn(ends[1], args)
    inner = clipped(y, (low, high))
    start = ends[0] + (inner - low) / (high - low) * (interval[1] - interval[0])
    x = solve_scalar(fn, inner, args, start=start, bracket=ends)
    log_slopes = log_slope(x, args)
    return x + (y - inner) * jnp.exp(-log_slopes), -log_slopes
