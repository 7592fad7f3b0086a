"""Constrained parameters: maps from an unconstrained array, as module-level functions for `paramax.Parameterize`.

A map is applied where the parameter is used, and its output is valid for every finite input.
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jaxtyping import Array

from flowlib._arrays import check_positive, check_values, is_concrete, real_array

if TYPE_CHECKING:
    # A method sees the plain array and the caller the wrapper, which no one type says.
    Parameter = Any
else:
    Parameter = Array | paramax.AbstractUnwrappable[Array]

# softplus underflows below about -100 in float32, and a logarithm of the result would be infinite.
# The floor is a normal float32, smaller than any scale that float32 arithmetic could use.
_FLOOR = 1e-30


def softplus_positive(raw: Array) -> Array:
    """softplus(raw), kept above 1e-30 so that its logarithm is finite."""
    return jax.nn.softplus(raw) + _FLOOR


def positive(value: Any, name: str) -> paramax.Parameterize:
    """A positive parameter that starts at `value`.

    Raises:
        ValueError: if a value is not positive and finite.
    """
    value = real_array(value, name)
    check_positive(value, name)
    return paramax.Parameterize(softplus_positive, inverse_softplus(value))


def inverse_softplus(value: Array | np.ndarray) -> Array:
    """The raw value whose softplus is `value`."""
    # NumPy for concrete values: eager JAX would compile each operation for each shape.
    xp = np if is_concrete(value) else jnp
    value = np.asarray(value) if is_concrete(value) else value
    # log(exp(v) - 1) = v + log(1 - exp(-v)), which neither overflows nor cancels.
    return jnp.asarray(value + xp.log(-xp.expm1(-value)), value.dtype)


def finite(value: Any, name: str) -> Array:
    """An unconstrained parameter that starts at `value`, which must be finite."""
    value = real_array(value, name)
    check_values(value, name, np.isfinite, "finite")
    return value


def broadcast(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in their common shape, without compiling anything when they are concrete."""
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise ValueError(f"Parameters of shapes {shapes} do not broadcast.") from None
    return tuple(
        jnp.asarray(np.broadcast_to(np.asarray(array), shape)) if is_concrete(array) else jnp.broadcast_to(array, shape)
        for array in arrays
    )


# The default transformer of the flows keeps each layer's scale in (1/100, 100). A bound above as
# well as below, because eight unbounded layers in a row overflow float32 on a far outlier.
_MAX_LOG_SCALE = math.log(100.0)


def bounded_scale(raw: Array) -> Array:
    """exp(raw / (1 + |raw| / log 100)): 1 with slope 1 at raw = 0, and always within (1/100, 100)."""
    return jnp.exp(raw / (1 + jnp.abs(raw) / _MAX_LOG_SCALE))


def unit_vector(raw: Array) -> Array:
    """raw / |raw|; the zero vector stays zero, with finite gradients."""
    # Dividing by the largest entry first keeps the squares from under- and overflowing.
    largest = jax.lax.stop_gradient(jnp.abs(raw).max())
    raw = raw / jnp.where(largest > 0, largest, 1)
    square = raw @ raw
    return raw / jnp.sqrt(jnp.where(square > 0, square, 1))


def lower_triangular(raw: Array) -> Array:
    """The lower triangle of a matrix, its diagonal made positive."""
    return _with_positive_diagonal(raw, jnp.tril(raw))


def upper_triangular(raw: Array) -> Array:
    """The upper triangle of a matrix, its diagonal made positive."""
    return _with_positive_diagonal(raw, jnp.triu(raw))


def _with_positive_diagonal(raw: Array, triangle: Array) -> Array:
    return jnp.where(jnp.eye(raw.shape[-1], dtype=bool), softplus_positive(jnp.diagonal(raw)), triangle)


def normalised_lower_triangular(raw: Array, raw_scale: Array) -> Array:
    """The lower triangle with a positive diagonal, each row scaled to a length of its own (arXiv:1602.07868)."""
    rows = jax.vmap(unit_vector)(lower_triangular(raw))
    return softplus_positive(raw_scale)[:, None] * rows
