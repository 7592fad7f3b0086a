"""Monotone functions on an interval, continued in straight lines with the slopes at its ends."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from flowlib.bijections._interval import Interval, clipped
from flowlib.bijections._solve import Function, solve_scalar

# From the point and the parameters.
LogSlope = Callable[[Array, PyTree], Array]


def forward_with_tails(
    fn: Function, log_slope: LogSlope, x: Float[Array, "*lanes"], args: PyTree, interval: Interval
) -> tuple[Array, Array]:
    """fn(x, args) inside the interval, straight lines outside; and the log slope."""
    inner = clipped(x, interval)
    log_slopes = log_slope(inner, args)
    return fn(inner, args) + jnp.exp(log_slopes) * (x - inner), log_slopes


def inverse_with_tails(
    fn: Function, log_slope: LogSlope, y: Float[Array, "*lanes"], args: PyTree, interval: Interval
) -> tuple[Array, Array]:
    """The x of `forward_with_tails` where it is y, by a search in the interval; and the log slope of the inverse."""
    ends = jnp.full_like(y, interval[0]), jnp.full_like(y, interval[1])
    low, high = fn(ends[0], args), fn(ends[1], args)
    inner = clipped(y, (low, high))
    start = ends[0] + (inner - low) / (high - low) * (interval[1] - interval[0])
    x = solve_scalar(fn, inner, args, start=start, bracket=ends)
    log_slopes = log_slope(x, args)
    return x + (y - inner) * jnp.exp(-log_slopes), -log_slopes
