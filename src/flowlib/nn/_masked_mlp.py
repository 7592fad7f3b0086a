"""The masked network of autoregressive flows."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import Module
from flowlib.masks import rank_based_mask
from flowlib.nn._activation import checked_activation
from flowlib.nn._mlp import activate, last_layer, squash, uniform_weights
from flowlib.nn._vector_net import AbstractVectorNet


class MaskedLinear(Module):
    """x -> (mask * weight) x + bias, for each column x."""

    weight: Float[Array, "*stack out_size in_size"]
    bias: Float[Array, "*stack out_size"] | None
    mask: Bool[Array, "*stack out_size in_size"]

    def __call__(self, x: Float[Array, "in_size n"]) -> Float[Array, "out_size n"]:
        y = self.masked @ x
        return y if self.bias is None else y + self.bias[:, None]

    @property
    def masked(self) -> Float[Array, "*stack out_size in_size"]:
        """The weights that count."""
        return jnp.where(self.mask, self.weight, 0)


class MaskedMLP(AbstractVectorNet):
    """A perceptron in which output i sees input j only if rank_out[i] > rank_in[j] (MADE, arXiv:1502.03509).

    Hidden units get the ranks between, evenly; with fewer units than ranks some inputs would lose
    their way to the next outputs, so that then a linear map, masked alike, leads past the hidden
    layers. The output starts at 0.

    Args:
        key: a PRNG key.
        in_ranks: the rank of each input; conditions have rank -1.
        out_ranks: the rank of each output.
        lowest: the lowest rank of a hidden unit.
        highest: one more than the highest rank of a hidden unit.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        activation: a module or module-level function of one array.

    Raises:
        ValueError: if a size is out of range.
        TypeError: if `activation` is no function.
    """

    hidden: tuple[MaskedLinear, ...]
    last: MaskedLinear
    skip: MaskedLinear | None
    activation: Callable

    def __init__(
        self,
        key: PRNGKeyArray,
        in_ranks: Int[Array, " in_size"],
        out_ranks: Int[Array, " out_size"],
        *,
        lowest: int,
        highest: int,
        width: int,
        depth: int,
        activation: Callable = jax.nn.relu,
    ):
        width, depth = check_count(width, "nn_width"), check_count(depth, "nn_depth", 0)
        n_ranks = highest - lowest
        hidden_ranks = jnp.asarray(unit_ranks(width, lowest, highest), in_ranks.dtype)
        ranks = [in_ranks, *[hidden_ranks] * depth]
        weights = uniform_weights(key, [len(r) for r in ranks])
        masks = (rank_based_mask(below, above, eq=True) for below, above in itertools.pairwise(ranks))
        self.hidden = tuple(MaskedLinear(w, b, mask) for (w, b), mask in zip(weights, masks, strict=True))
        self.last = _zero(ranks[-1], out_ranks, bias=True)
        self.skip = _zero(in_ranks, out_ranks, bias=False) if depth > 0 and width < n_ranks else None
        self.activation = checked_activation(activation)

    @property
    def out_size(self) -> int:
        return self.last.weight.shape[-2]

    def columns(self, x: Float[Array, "in_size n"], plus: Float[Array, " plus"] | None = None) -> Array:
        x = squash(x)
        h = x
        for layer in self.hidden:
            h = activate(self.activation, layer(h))
        products = [(self.last.masked, h)]
        if self.skip is not None:
            products.append((self.skip.masked, x))
        return last_layer(products, self.last.bias, plus)


def unit_ranks(width: int, lowest: int, highest: int) -> np.ndarray:
    """The ranks of hidden units: ascending, from `lowest` to below `highest`, each about as often."""
    return lowest + np.arange(width) * (highest - lowest) // width


def _zero(in_ranks: Array, out_ranks: Array, *, bias: bool) -> MaskedLinear:
    mask = rank_based_mask(in_ranks, out_ranks)
    return MaskedLinear(jnp.zeros(mask.shape), jnp.zeros(len(out_ranks)) if bias else None, mask)
