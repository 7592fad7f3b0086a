"""The network of a continuous flow: a vector field that changes with time."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._module import Module
from flowlib.nn._activation import checked_activation
from flowlib.nn._mlp import squash
from flowlib.nn._weight_norm import uniform_arrays


class TimedLayer(Module):
    """h -> (W h + b) * sigmoid(G u + g) + B u, where u is the time and the condition."""

    weight: Float[Array, "*stack out_size in_size"]
    bias: Float[Array, "*stack out_size"]
    gate_weight: Float[Array, "*stack out_size inputs"]
    gate_bias: Float[Array, "*stack out_size"]
    shift_weight: Float[Array, "*stack out_size inputs"]

    def __call__(self, h: Float[Array, " in_size"], u: Float[Array, " inputs"]) -> Float[Array, " out_size"]:
        gate = jax.nn.sigmoid(self.gate_weight @ u + self.gate_bias)
        return (self.weight @ h + self.bias) * gate + self.shift_weight @ u


class TimeMLP(Module):
    """A vector field v(t, x, condition), 0 at first: a multilayer perceptron whose layers are gated by the time.

    Each layer is h -> (W h + b) * sigmoid(G u + g) + B u with u = (t, condition), as in FFJORD, the last one with
    W = b = B = 0 at first. It is made to be the field of a `flowlib.bijections.ContinuousFlow`, for events that
    are vectors. x and the condition pass through `squash`.

    Args:
        key: a PRNG key.
        dim: the size of x, and of the output.
        cond_dim: the size of the condition. Defaults to None, a field without one.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        activation: a smooth module or module-level function of one array: a kink costs the solver small steps.

    Raises:
        ValueError: if a size is out of range.
        TypeError: if `key` is no key, or `activation` no function.

    References:
        Grathwohl et al. (2019), https://arxiv.org/abs/1810.01367, appendix B.
    """

    layers: tuple[TimedLayer, ...]
    activation: Callable

    def __init__(
        self,
        key: PRNGKeyArray,
        dim: int,
        cond_dim: int | None = None,
        *,
        width: int,
        depth: int,
        activation: Callable = jnp.tanh,
    ):
        dim, inputs = check_count(dim, "dim"), 1 + (0 if cond_dim is None else check_count(cond_dim, "cond_dim"))
        width, depth = check_count(width, "width"), check_count(depth, "depth", 0)
        sizes = [dim, *[width] * depth, dim]
        shapes, fans = [], []
        for below, above in itertools.pairwise(sizes):
            shapes += [(above, below), (above,), (above, inputs), (above,), (above, inputs)]
            fans += [below, below, inputs, inputs, inputs]
        drawn = uniform_arrays(check_key(key), shapes, fans)
        layers = [TimedLayer(*drawn[i : i + 5]) for i in range(0, len(drawn), 5)]
        layers[-1] = eqx.tree_at(_outputs, layers[-1], replace_fn=jnp.zeros_like)
        self.layers = tuple(layers)
        self.activation = checked_activation(activation)

    def __call__(
        self, t: Float[Array, ""], x: Float[Array, " dim"], condition: Float[Array, " cond_dim"] | None = None
    ) -> Float[Array, " dim"]:
        u = jnp.asarray(t, x.dtype)[None]
        if condition is not None:
            u = jnp.concatenate([u, squash(condition.astype(x.dtype))])
        h = squash(x)
        for layer in self.layers[:-1]:
            h = self.activation(layer(h, u))
        return self.layers[-1](h, u)


def _outputs(layer):
    return layer.weight, layer.bias, layer.shift_weight
