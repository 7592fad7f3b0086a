"""Positions on a circle that are given in another turn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def in_first_turn(x: Array, lower: Any, upper: Any) -> Array:
    """x in [lower, upper] as it is; elsewhere x less a whole number of turns. Infinities and NaN stay.

    The ends are static numbers. The derivative is 1. The error is that of one turn, not of x, up to some thousand turns
    in float32.
    """
    low, high = np.asarray(lower, x.dtype), np.asarray(upper, x.dtype)
    width = np.asarray(upper, np.float64) - np.asarray(lower, np.float64)
    finite = jnp.isfinite(x)
    there = jnp.where(finite, x, low)
    turns = jax.lax.stop_gradient(jnp.floor((there - low) / width.astype(x.dtype)))
    moved = there
    # A number of turns times a few digits of the width is exact.
    for part in _parts(width, x.dtype):
        moved = moved - turns * part
    # Of the derivative nothing is lost where rounding has reached beyond an end.
    value = jax.lax.stop_gradient(moved)
    moved = jnp.clip(value, low, high) + (moved - value)
    return jnp.where(finite & ((x < low) | (x > high)), moved, x)


def _parts(width: Any, dtype: Any) -> list[np.ndarray]:
    """Three numbers of sum `width`, the first two of half as many digits as the dtype has."""
    digits, parts, rest = (jnp.finfo(dtype).nmant + 1) // 2, [], width
    for _ in range(2):
        unit = 2.0 ** (np.frexp(rest)[1] - digits)
        parts.append(np.floor(rest / unit) * unit)
        rest = rest - parts[-1]
    return [np.asarray(part, dtype) for part in (*parts, rest)]
