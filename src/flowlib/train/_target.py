"""The target of a variational fit, called on draws."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def target_of_draws(
    target: Callable[..., Any], mapped: tuple[Array, ...], batch: tuple[Array, ...]
) -> Float[Array, " draws"]:
    """The target of each draw, mapped over the first arrays (events, and conditions if there are any).

    Raises:
        ValueError: unless it returns a scalar.
        TypeError: if it fails, or returns whole numbers.
    """
    draws, shape = len(mapped[0]), mapped[0].shape[1:]
    try:
        values = jax.vmap(lambda *event: target(*event, *batch))(*mapped)
    except (IndexError, TypeError, ValueError) as error:
        # JAX's messages go on for lines of where tracers were made, which the chained traceback has.
        raise TypeError(
            f"target failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
            f"It sees ONE event, of shape {shape}, not a batch, and is mapped over draws inside of jit: write it for "
            f"one event, with jax.numpy instead of NumPy and jnp.where instead of if."
        ) from error
    if getattr(values, "shape", None) != (draws,):
        got = f"shape {values.shape[1:]}" if isinstance(values, jax.Array) else type(values).__name__
        raise ValueError(f"target expected to return a scalar for one event of shape {shape}, got {got}.")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"target expected to return a float, got {values.dtype}, which has no gradient.")
    return values
