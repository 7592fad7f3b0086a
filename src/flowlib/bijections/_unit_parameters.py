"""What planar, radial and Sylvester maps share: bounds that keep them invertible, and parameters from a condition."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.nn import MLP

# Slopes stay above this, so that the maps can be inverted in floating point.
_MIN_SLOPE = 1e-3


def above_minus_one(free: Array) -> Array:
    """An increasing function of all numbers to those above -0.999, about as large as its argument, and 0 at 0."""
    return (1 - _MIN_SLOPE) * (jax.nn.softplus(free + math.log(math.e - 1)) - 1)


def positive_from_one(free: Array) -> Array:
    """An increasing function of all numbers to those above 0.001, and 1 at 0."""
    return 1 + above_minus_one(free)


def tanh_along(a: Array, overlap: Array) -> Array:
    """Increasing in a, where the overlap is above -1."""
    return a + overlap * jnp.tanh(a)


def tanh_and_slope(a: Array) -> tuple[Array, Array]:
    """tanh a and its derivative, to full relative precision where that is small."""
    return jnp.tanh(a), 1 / jnp.cosh(jnp.clip(a, -40, 40)) ** 2


def make_conditioner(
    key: PRNGKeyArray,
    cond_dim: int | None,
    out_size: int,
    width_size: int = 50,
    depth: int = 1,
    activation: Callable = jax.nn.relu,
) -> tuple[MLP | None, tuple[int, ...] | None]:
    """The network that adds to the parameters, and the shape of its condition; None without one."""
    if cond_dim is None:
        return None, None
    cond_dim = check_count(cond_dim, "cond_dim")
    network = MLP(key, cond_dim, out_size, width=width_size, depth=depth, activation=activation)
    return network, (cond_dim,)


def for_condition(params: Array, conditioner: MLP | None, condition: Array | None) -> Array:
    """The parameters, to which the network adds what it makes of the condition."""
    if conditioner is None or condition is None:
        return params
    return params + conditioner(condition.astype(params.dtype))
