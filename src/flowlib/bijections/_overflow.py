"""Numbers kept where their exponentials are finite."""

import math

import jax.numpy as jnp
from jaxtyping import Array


def exponents(x: Array, log_factor: float = 0.0) -> Array:
    """x, or the number of that sign whose exponential, times a factor, is about the largest float.

    An infinite exponential would have the gradient 0 times infinity where its own counts for nothing.
    """
    largest = math.log(jnp.finfo(x.dtype).max) - 1e-3 - log_factor
    return jnp.where(x > largest, largest, jnp.where(x < -largest, -largest, x))
