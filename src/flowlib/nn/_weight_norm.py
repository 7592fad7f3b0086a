"""Weights of networks: how they start, and how a direction and a length make one."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._random import draw_together
from flowlib.constraints import unit_vector


def uniform_arrays(key: PRNGKeyArray, shapes: list[tuple[int, ...]], fans: list[int]) -> list[Array]:
    """Arrays uniform within 1/sqrt(fan), the number of inputs of a layer: the default of PyTorch."""
    if not shapes:
        return []
    parts = draw_together(partial(jr.uniform, minval=-1.0), key, shapes)
    return [(1 / math.sqrt(max(fan, 1))) * part for part, fan in zip(parts, fans, strict=True)]


def lengths(weight: Float[Array, "*inputs outputs"], stack_axes: int = 0) -> Float[Array, "*stack outputs"]:
    """The length of the weights of each output, of each layer of a stack."""
    return jnp.sqrt((weight * weight).sum(tuple(range(stack_axes, weight.ndim - 1))))


def rescaled(weight: Float[Array, "*inputs outputs"], scale: Float[Array, " outputs"]) -> Array:
    """scale weight / |weight|, for the weights of each output; weights of 0 stay 0, with finite gradients.

    References:
        Salimans and Kingma (2016), https://arxiv.org/abs/1602.07868.
    """
    flat = weight.reshape(-1, weight.shape[-1])
    return (scale * jax.vmap(unit_vector, -1, -1)(flat)).reshape(weight.shape)
