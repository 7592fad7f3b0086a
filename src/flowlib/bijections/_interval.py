"""What maps of an interval share: the check of its ends, and points brought inside."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

# (lower, upper).
Interval = tuple[float, float]


def checked_interval(interval: Any, where: str) -> Interval:
    """(lower, upper) as floats; one number b stands for (-b, b).

    Raises:
        ValueError: unless both are finite and lower < upper.
    """
    lower, upper = interval if isinstance(interval, tuple) else (-interval, interval)
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise ValueError(f"{where} expected an interval with lower < upper, got ({lower}, {upper}).")
    return float(lower), float(upper)


def clipped(x: Array, interval: tuple[Any, Any]) -> Array:
    """x, or the end that is nearest; a map that sees this cannot spoil the gradient of rows inside by those outside.

    Not `jnp.clip`: at an end its derivative is a half.
    """
    lower, upper = interval
    return jnp.where(x < lower, lower, jnp.where(x > upper, upper, x))


def within(x: Array, interval: tuple[Any, Any]) -> Array:
    """x, a rounding beyond the interval taken back in the value, not in the derivative."""
    return x + jax.lax.stop_gradient(jnp.clip(x, *interval) - x)
