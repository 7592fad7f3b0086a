"""Random numbers in few operations, for each more is compiled too."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray


def draw_together(
    sampler: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shapes: list[tuple[int, ...]]
) -> list[Array]:
    """Arrays of several shapes by one call of a sampler such as `jax.random.normal`, rather than one call each."""
    sizes = [math.prod(shape) for shape in shapes]
    parts = jnp.split(sampler(key, (sum(sizes),)), [sum(sizes[:i]) for i in range(1, len(sizes))])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def shuffled(key: PRNGKeyArray, rows: Int[Array, " n"]) -> Int[Array, " n"]:
    """The rows in random order, by one sort on 64 random bits a row.

    `jax.random.permutation` sorts two or more times on 32 bits, each time with a key of its own.
    """
    high, low = jr.bits(key, (2, len(rows)), jnp.uint32)
    return jax.lax.sort((high, low, rows), num_keys=2, is_stable=False)[-1]
