"""The residual network of vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import Module
from flowlib.nn._activation import checked_activation
from flowlib.nn._mlp import activate, last_layer, squash, uniform_weights
from flowlib.nn._vector_net import AbstractVectorNet
from flowlib.nn._weight_norm import lengths, rescaled


class Dense(Module):
    """x -> weight x + bias, for each column x; with a `scale`, that is the length of each row of the weight."""

    weight: Float[Array, "*stack out_size in_size"]
    bias: Float[Array, "*stack out_size"]
    scale: Float[Array, "*stack out_size"] | None

    def __call__(self, x: Float[Array, "in_size n"]) -> Float[Array, "out_size n"]:
        weight = self.weight if self.scale is None else rescaled(self.weight.T, self.scale).T
        return weight @ x + self.bias[:, None]


class ResidualMLP(AbstractVectorNet):
    """h_0 = W x + b, h_k = h_(k-1) + A_k(a(B_k(a(h_(k-1))))), and a last layer of a(h_depth), which is 0 at first.

    A residual network in the order of He et al. (2016), with the activation a before each layer of a block; so is the
    conditioner of neural spline flows. It keeps the gradient where an MLP of as many layers would lose it. A and B are
    affine. With weight normalisation the direction and the length of each row of their matrices, and of W, are
    parameters of their own.

    Args:
        key: a PRNG key.
        in_size: the size of the input; 0 leaves only biases.
        out_size: the size of the output.
        width: the size of each hidden layer.
        depth: the number of blocks, of two layers each.
        activation: a module or module-level function of one array.
        weight_norm: whether to normalise weights.

    Raises:
        ValueError: if a size is out of range.
        TypeError: if `activation` is no function.

    References:
        He, Zhang, Ren and Sun (2016), https://arxiv.org/abs/1603.05027; Salimans and Kingma (2016),
        https://arxiv.org/abs/1602.07868; Durkan et al. (2019), https://arxiv.org/abs/1906.04032.
    """

    first: Dense | None
    blocks: tuple[tuple[Dense, Dense], ...]
    last: Dense
    activation: Callable

    def __init__(
        self,
        key: PRNGKeyArray,
        in_size: int,
        out_size: int,
        *,
        width: int,
        depth: int,
        activation: Callable = jax.nn.relu,
        weight_norm: bool = True,
    ):
        in_size, out_size = check_count(in_size, "in_size", 0), check_count(out_size, "out_size")
        width, depth = check_count(width, "width"), check_count(depth, "depth", 0)
        # Without inputs a hidden layer would be one more constant.
        sizes = [in_size, *[width] * (2 * depth + 1)] if in_size else []
        layers = [
            Dense(weight, bias, lengths(weight.T) if weight_norm else None)
            for weight, bias in uniform_weights(key, sizes)
        ]
        self.first = layers[0] if layers else None
        self.blocks = tuple(zip(layers[1::2], layers[2::2], strict=True))
        self.last = Dense(jnp.zeros((out_size, width if in_size else 0)), jnp.zeros(out_size), None)
        self.activation = checked_activation(activation)

    @property
    def out_size(self) -> int:
        return self.last.bias.shape[-1]

    def columns(self, x: Float[Array, "in_size n"], plus: Float[Array, " plus"] | None = None) -> Array:
        h = squash(x)
        if self.first is not None:
            h = self.first(h)
            for inner, outer in self.blocks:
                h = h + outer(activate(self.activation, inner(activate(self.activation, h))))
            h = activate(self.activation, h)
        return last_layer([(self.last.weight, h)], self.last.bias, plus)
