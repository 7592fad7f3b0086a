"""Networks whose slopes are bounded, for residual layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._module import Module
from flowlib.nn._mlp import squash, uniform_weights

# After so many squarings the bound of a matrix of rank r is at most r^(1/256) times its norm: 1.8% at 100.
_SQUARINGS = 6


class LipschitzMLP(Module):
    """A multilayer perceptron g with |g(x) - g(x')| <= lipschitz |x - x'|, whatever its parameters.

    Each of its matrices is divided by a bound of its spectral norm where this exceeds lipschitz^(1 / number of
    matrices), and the activation, tanh, has slopes up to 1. The bound of the norm is never too small, and the same at
    every call, without a state: |(W^T W)^64|^(1/128) with the Frobenius norm. The output starts at 0, whatever the
    input, and stays bounded far out.

    Args:
        key: a PRNG key.
        dim: the size of the input and of the output.
        width: the size of each hidden layer.
        depth: the number of hidden layers, at least 1.
        cond_dim: the size of a condition, in which slopes are not bounded. Defaults to None.
        lipschitz: the bound, in (0, 1).

    Raises:
        ValueError: if a size or the bound is out of range.

    References:
        Behrmann et al. 2019, section 2.1 (arXiv:1811.00995); Delattre et al. 2023 (arXiv:2305.16173), for the bound.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    cond_weight: Array | None
    lipschitz: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        dim: int,
        *,
        width: int,
        depth: int,
        cond_dim: int | None = None,
        lipschitz: float = 0.9,
    ):
        dim, width, depth = check_count(dim, "dim"), check_count(width, "nn_width"), check_count(depth, "nn_depth")
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must be in (0, 1), got {lipschitz}.")
        # The condition is one more part of the input, for the scale of its weights.
        cond_size = 0 if cond_dim is None else check_count(cond_dim, "cond_dim")
        drawn = uniform_weights(check_key(key), [dim + cond_size, *[width] * depth])
        first = drawn[0][0]
        self.weights = (first[:, :dim], *(weight for weight, _ in drawn[1:]), jnp.zeros((dim, width)))
        self.biases = (*(bias for _, bias in drawn), jnp.zeros(dim))
        self.cond_weight = first[:, dim:] if cond_size else None
        self.lipschitz = float(lipschitz)

    def bounded(self) -> tuple[Array, ...]:
        """The matrices as they are used."""
        largest = self.lipschitz ** (1 / len(self.weights))
        return tuple(weight * (largest / jnp.maximum(spectral_bound(weight), largest)) for weight in self.weights)

    def shift(self, condition: Float[Array, " cond_dim"]) -> Float[Array, " width"]:
        """What a condition adds to the first hidden layer."""
        assert self.cond_weight is not None
        return jnp.matmul(self.cond_weight, squash(condition.astype(self.cond_weight.dtype)), precision="highest")

    @staticmethod
    def outputs_and_slopes(
        weights: tuple[Array, ...], biases: tuple[Array, ...], x: Float[Array, "dim n"], shift: Array | float = 0.0
    ) -> tuple[Float[Array, "dim n"], list[Float[Array, "width n"]]]:
        """The outputs for columns, and the slopes of the activations in each hidden layer, of bounded matrices.

        `shift` is added in the first layer.
        """
        slopes = []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = jnp.matmul(weight, x, precision="highest") + bias[:, None]
            x = x + shift if not slopes else x
            x = jnp.tanh(x)
            slopes.append(1 - x * x)
        return jnp.matmul(weights[-1], x, precision="highest") + biases[-1][:, None], slopes

    def __call__(self, x: Float[ArrayLike, " dim"], condition: Array | None = None) -> Float[Array, " dim"]:
        """g(x), given a condition if the network takes one."""
        shift = 0.0 if self.cond_weight is None or condition is None else self.shift(condition)[:, None]
        return self.outputs_and_slopes(self.bounded(), self.biases, jnp.asarray(x)[:, None], shift)[0][:, 0]


def spectral_bound(weight: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """An upper bound of the largest singular value: |(W^T W)^64|^(1/128) with the Frobenius norm.

    At most rank(W)^(1/256) times what it bounds. Unlike power iteration, which approaches the norm from below and can
    start orthogonal to what it looks for, it holds for every matrix, without a state (Delattre et al. 2023,
    arXiv:2305.16173).
    """
    size = jax.lax.stop_gradient(jnp.abs(weight).max())
    scaled = weight / jnp.where(size > 0, size, 1)
    tall = weight.shape[0] > weight.shape[1]
    gram = (
        jnp.matmul(scaled.T, scaled, precision="highest") if tall else jnp.matmul(scaled, scaled.T, precision="highest")
    )

    def square(carry, _):
        unit, log_norm = carry
        product = jnp.matmul(unit, unit, precision="highest")
        unit, log_change = _normalised(product)
        return (unit, 2 * log_norm + log_change), None

    (_, log_norm), _ = jax.lax.scan(square, _normalised(gram), length=_SQUARINGS)
    return size * jnp.exp(log_norm / 2 ** (_SQUARINGS + 1))


def _normalised(matrix: Array) -> tuple[Array, Array]:
    """The matrix with a Frobenius norm of 1, and the logarithm of what that was; zero stays as it is."""
    total = (matrix * matrix).sum()
    norm = jnp.sqrt(jnp.where(total > 0, total, 1))
    return matrix / norm, jnp.log(norm)
