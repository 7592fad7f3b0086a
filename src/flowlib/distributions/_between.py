"""Probabilities between two ends, with their digits in both tails."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib.distributions._special import log1m_exp


def log_probability_between(dist: Any, lower: Array, upper: Array) -> Array:
    """log P(lower_i < X_i <= upper_i) of each coordinate of one event, which keeps its digits in both tails.

    From the tail in which there is less: in the other, the probabilities of both ends are nearly 1.
    """
    below, above, from_above = tails(dist, lower, upper)
    near, far = jnp.where(from_above, above[0], below[1]), jnp.where(from_above, above[1], below[0])
    some = near > -jnp.inf
    return jnp.where(some, near + log1m_exp(jnp.where(some, far - jnp.where(some, near, 0), -1)), -jnp.inf)


def tails(dist: Any, lower: Array, upper: Array) -> tuple[tuple[Array, Array], tuple[Array, Array], Array]:
    """The logarithms of cdf and survival at both ends, and whether there is less above `lower` than below `upper`."""
    ends = [jnp.broadcast_to(end, dist.shape) for end in (lower, upper)]
    # Both at once, since some cdfs take long to compile.
    both = jnp.stack(ends)
    infinite = jnp.isinf(both)
    below, above = jax.vmap(dist._log_tails)(jnp.where(infinite, 0, both))
    # At infinite ends the limits, whose derivatives are 0.
    below = jnp.where(infinite, jnp.where(both < 0, -jnp.inf, 0), below)
    above = jnp.where(infinite, jnp.where(both > 0, -jnp.inf, 0), above)
    return (below[0], below[1]), (above[0], above[1]), above[0] < below[1]
