"""The networks that make the parameters of other bijections: a multilayer perceptron, and constants."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.nn._activation import checked_activation
from flowlib.nn._vector_net import AbstractVectorNet
from flowlib.nn._weight_norm import uniform_arrays

_LINEAR_UP_TO = 10.0


def squash(x: Array) -> Array:
    """10 asinh(x / 10): about x for |x| < 5, and logarithmic beyond.

    Conditioners see their input through it. A far outlier would otherwise give scales as large as
    itself, and eight such layers overflow float32; the logarithm still tells far from farther.
    """
    return _LINEAR_UP_TO * jnp.arcsinh(x / _LINEAR_UP_TO)


class MLP(AbstractVectorNet):
    """A multilayer perceptron whose output starts at 0, whatever the input, so that flows start as the identity.

    Args:
        key: a PRNG key.
        in_size: the size of the input; 0 leaves only biases.
        out_size: the size of the output.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        activation: a module or module-level function of one array.

    Raises:
        ValueError: if a size is out of range.
        TypeError: if `activation` is no function.
    """

    layers: tuple[eqx.nn.Linear, ...]
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
    ):
        in_size, out_size = check_count(in_size, "in_size", 0), check_count(out_size, "out_size")
        width, depth = check_count(width, "nn_width"), check_count(depth, "nn_depth", 0)
        # Without inputs a hidden layer would be one more constant.
        sizes = [in_size, *[width] * (depth if in_size else 0), out_size]
        hidden = [_linear(weight, bias) for weight, bias in uniform_weights(key, sizes[:-1])]
        last = _linear(jnp.zeros((out_size, sizes[-2])), jnp.zeros(out_size))
        self.layers = (*hidden, last)
        self.activation = checked_activation(activation)

    @property
    def out_size(self) -> int:
        return self.layers[-1].weight.shape[-2]

    def columns(self, x: Float[Array, "in_size n"], plus: Float[Array, " plus"] | None = None) -> Array:
        x = squash(x)
        for layer in self.layers[:-1]:
            x = activate(self.activation, _affine(layer, x))
        last = self.layers[-1]
        return last_layer([(last.weight, x)], last.bias, plus)


def activate(activation: Callable, x: Float[Array, "size n"]) -> Float[Array, "size n"]:
    """The activation of each column."""
    return jax.vmap(activation, -1, -1)(x)


def last_layer(
    products: list[tuple[Float[Array, "out_size _"], Float[Array, "_ n"]]],
    bias: Float[Array, " out_size"] | None,
    plus: Float[Array, " plus"] | None,
) -> Float[Array, "out_size n"]:
    """The sum of products, a bias and what is to be added to the first outputs, all as one product.

    XLA would compute a sum again in each of the many operations that read these outputs; a product it keeps.
    """
    weights, inputs = [weight for weight, _ in products], [x for _, x in products]
    if plus is not None:
        plus = jnp.pad(plus, (0, len(weights[0]) - len(plus)))
        bias = plus if bias is None else bias + plus
    if bias is not None:
        weights.append(bias[:, None])
        inputs.append(jnp.ones((1, inputs[0].shape[1]), inputs[0].dtype))
    return jnp.concatenate(weights, axis=1) @ jnp.concatenate(inputs)


def _affine(layer: eqx.nn.Linear, x: Array) -> Array:
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias[:, None]


def uniform_weights(key: PRNGKeyArray, sizes: list[int]) -> list[tuple[Array, Array]]:
    """Weights and biases of layers between such sizes, uniform within 1/sqrt(inputs): the default of PyTorch."""
    shapes, fans = [], []
    for below, above in itertools.pairwise(sizes):
        shapes += [(above, below), (above,)]
        fans += [below] * 2
    drawn = uniform_arrays(key, shapes, fans)
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def _linear(weight: Array, bias: Array) -> eqx.nn.Linear:
    out_size, in_size = weight.shape
    unfilled = eqx.filter_eval_shape(eqx.nn.Linear, in_size or 1, out_size, key=jr.key(0))
    return eqx.tree_at(lambda linear: (linear.weight, linear.bias), unfilled, (weight, bias))
