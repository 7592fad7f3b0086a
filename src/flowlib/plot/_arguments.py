"""The arguments of the plots: what they are of, and which events can be drawn."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import real_array
from flowlib._module import peel
from flowlib.distributions import AbstractDistribution, AbstractTransformed, Dequantized


def checked_dist(dist: Any, where: str) -> AbstractDistribution:
    """`dist`, out of a paramax wrapper, if it is a distribution."""
    inner = peel(dist)
    if not isinstance(inner, AbstractDistribution):
        raise TypeError(f"{where} expected a distribution, got {type(inner).__name__}.")
    return inner


def flow_of(dist: Any, where: str) -> AbstractTransformed:
    """The flow of real numbers that a distribution is, or that it rounds.

    Raises:
        TypeError: if there is none.
    """
    inner = peel(dist)
    if isinstance(inner, Dequantized):
        inner = peel(inner.dist)
    if not isinstance(inner, AbstractTransformed):
        raise TypeError(f"{where} expected a flow, a Transformed distribution, got {type(inner).__name__}.")
    return inner


def as_reals(dist: Any, events: ArrayLike) -> Array:
    """Events for `flow_of(dist)`: whole numbers in the middle of their cells."""
    inner, x = peel(dist), real_array(events, "events")
    return x + jnp.asarray(0.5 * np.asarray(inner.columns), x.dtype) if isinstance(inner, Dequantized) else x


def value_range(dist: Any) -> tuple[float, float] | None:
    """The least and the greatest of the whole numbers that there are, if `dist` is of such."""
    inner = peel(dist)
    values = inner.values if isinstance(inner, Dequantized) else None
    if values is None or not 0 < values.upper - values.lower < math.inf:
        return None
    return values.lower, values.upper


def check_condition(dist: AbstractDistribution, condition: ArrayLike | None, where: str) -> None:
    """Raise a ValueError unless there is one condition, and no batch of them, where one is needed."""
    shape = None if condition is None else jnp.shape(condition)
    if shape != dist.cond_shape:
        wanted = "none" if dist.cond_shape is None else f"one of shape {dist.cond_shape}"
        raise ValueError(f"{where} expected as condition {wanted}, got {'none' if shape is None else shape}.")


def as_rows(events: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A batch of events as an array (n, size of an event).

    Raises:
        ValueError: if they have another shape.
    """
    array = np.asarray(real_array(events, name))
    if array.ndim < len(shape) or array.shape[array.ndim - len(shape) :] != shape:
        raise ValueError(f"{name} expected events of shape {shape}, got an array of shape {array.shape}.")
    return array.reshape(-1, math.prod(shape))


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether events of a shape are images: (height, width), or (channels, height, width) with 1 or 3 channels."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def check_planar(shape: tuple[int, ...], where: str) -> None:
    """Raise a ValueError unless events of a shape are points in the plane."""
    if math.prod(shape) != 2:
        raise ValueError(f"{where} can draw events of two numbers, got events of shape {shape}.")
