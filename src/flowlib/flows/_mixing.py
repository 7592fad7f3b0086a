"""What mixes the coordinates between the layers of a premade flow, and what undoes all of it at the end."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._random import shuffled
from flowlib.bijections import (
    AbstractBijection,
    Chain,
    Flip,
    HouseholderProduct,
    InvertibleConv1x1,
    InvertibleLinear,
    Permute,
    QRLinear,
    Rotation,
    SVDLinear,
)

Mixing = Literal["permutation", "reverse", "linear", "lu", "qr", "svd", "householder", "rotation"]


def check_mixing(mixing: Mixing) -> Mixing:
    """The name as given.

    Raises:
        ValueError: if it is none of `Mixing`.
    """
    if mixing not in get_args(Mixing):
        raise ValueError(f"mixing must be one of {get_args(Mixing)}, got {mixing!r}.")
    return mixing


def add_mixing(key: PRNGKeyArray, layer: AbstractBijection, mixing: Mixing) -> AbstractBijection:
    """A layer of vectors, and what stands between it and the next; one dimension needs nothing."""
    (dim,) = layer.shape
    if dim == 1:
        return layer
    if mixing == "linear":
        # Before the layer, for the matrix that undoes them all follows on the last one: two in a row are one too many.
        parts = [InvertibleLinear(key, dim=dim), layer]
    elif mixing == "reverse" or dim == 2:
        parts = [*_matrix(key, dim, mixing), layer, Flip((dim,))]
    else:
        parts = [*_matrix(key, dim, mixing), layer, Permute(shuffled(key, jnp.arange(dim)))]
    return Chain(parts).merge_chains()


def _matrix(key: PRNGKeyArray, dim: int, mixing: Mixing) -> list[AbstractBijection]:
    """The trained matrix that stands beside a permutation; it starts as the identity."""
    if mixing == "lu":
        return [InvertibleLinear(key, dim=dim, init=jnp.eye(dim))]
    if mixing == "qr":
        return [QRLinear(dim)]
    if mixing == "svd":
        return [SVDLinear(dim)]
    if mixing == "householder":
        # Each reflection twice is the identity, and as many pairs as the dimension holds are all rotations.
        return [HouseholderProduct(jnp.repeat(jr.normal(key, (max(dim // 2, 1), dim)), 2, axis=0))]
    return [Rotation(dim)] if mixing == "rotation" else []


def undo_mixing(key: PRNGKeyArray, layers: Any, mixing: Mixing, dim: int, flow_layers: int) -> AbstractBijection | None:
    """What undoes the mixing of all layers together, which are stacked; None if nothing is left to undo."""
    if dim == 1:
        return None
    if mixing == "linear":
        # At the start each is a rotation, and so is their product, whose inverse is its transpose.
        return InvertibleLinear(key, dim=dim, init=product_of(layers[0]).T)
    if mixing == "reverse" or dim == 2:
        undo = [Flip((dim,))] if flow_layers % 2 else []
    else:
        total, _ = jax.lax.scan(lambda total, one: (total[one], None), jnp.arange(dim), layers[-1].permutation)
        undo = [Permute(jnp.argsort(total))]
    parts = [*undo, *_matrix(key, dim, mixing)]
    return Chain(parts) if len(parts) > 1 else parts[0] if parts else None


def product_of(linear: InvertibleLinear | InvertibleConv1x1) -> Float[Array, "dim dim"]:
    """The product of the matrices of linear layers that are stacked."""
    arrays, rest = eqx.partition(linear, eqx.is_array)

    def multiply(total, one):
        return jnp.matmul(eqx.combine(one, rest).matrix, total, precision="highest"), None

    return jax.lax.scan(multiply, jnp.eye(linear.shape[0], dtype=linear.plu.packed.dtype), arrays)[0]
