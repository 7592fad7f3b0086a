"""Block neural autoregressive networks."""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._module import Module
from flowlib.bijections._bijection import AbstractBijection, check_is_bijection, forward
from flowlib.bijections._numerical_inverse import FunctionBijection, solve_bijection, solve_one
from flowlib.bijections._tanh import LeakyTanh
from flowlib.masks import block_tril_mask

# A layer's inputs are scaled by this and its outputs back, so that an untrained network works in
# the nearly straight part of its activation and starts near the identity.
_GAIN = 0.2


class BlockLinear(Module):
    """A linear map from dim blocks to dim blocks, positive within a block and free from earlier blocks.

    The weights within a block are exp(log_diagonal); their logarithm is what the log-det needs.
    """

    log_diagonal: Float[Array, "*stack dim block_out block_in"]
    lower: Float[Array, "*stack out_size in_size"]
    bias: Float[Array, "*stack out_size"]
    mask: Bool[Array, "*stack out_size in_size"]

    def __init__(self, key: PRNGKeyArray, dim: int, block_out: int, block_in: int, *, gain: float):
        diagonal_key, lower_key, bias_key = jr.split(key, 3)
        jitter = 0.03 * jr.normal(diagonal_key, (dim, block_out, block_in))
        self.log_diagonal = math.log(gain / block_in) + jitter
        shape = (dim * block_out, dim * block_in)
        self.lower = 0.05 * gain * jr.normal(lower_key, shape) / math.sqrt(shape[1])
        self.bias = 0.1 * _GAIN * jr.normal(bias_key, shape[:1]) if block_out > 1 else jnp.zeros(shape[0])
        self.mask = jnp.asarray(block_tril_mask((block_out, block_in), dim, k=-1))

    def __call__(self, x: Float[Array, "dim block_in"]) -> Float[Array, "dim block_out"]:
        within = jnp.einsum("doi,di->do", jnp.exp(self.log_diagonal), x)
        return within + (jnp.where(self.mask, self.lower, 0) @ x.reshape(-1) + self.bias).reshape(within.shape)


class BlockAutoregressiveNetwork(AbstractBijection):
    """A monotone network with block-triangular weights (De Cao et al. 2019, arXiv:1904.04676).

    Output i increases in input i and depends freely on inputs before it, so that the Jacobian is
    triangular; its diagonal is a product of positive blocks, kept in logarithms. `transform`
    costs one pass; `inverse` is numerical, with a bounded error and implicit gradients: about
    ten passes a coordinate. It starts near the identity.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition, which enters the first layer. Defaults to None.
        depth: the number of hidden layers.
        block_dim: hidden units a coordinate.
        activation: an increasing map of the reals onto the reals: a bijection of shape () or a
            function of one number. Defaults to `LeakyTanh(3)`, since with tanh itself (as in the
            paper) the image would be bounded and `inverse` undefined outside it.

    Raises:
        ValueError: if a size is out of range or the activation has another shape.
    """

    layers: tuple[BlockLinear, ...]
    condition_weight: Array | None
    activation: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dim: int,
        cond_dim: int | None = None,
        depth: int,
        block_dim: int,
        activation: AbstractBijection | Callable[[Array], Array] | None = None,
    ):
        dim, depth, block_dim = (
            check_count(dim, "dim"),
            check_count(depth, "depth", 0),
            check_count(block_dim, "block_dim"),
        )
        if activation is None:
            activation = LeakyTanh(3.0)
        elif not isinstance(activation, AbstractBijection):
            activation = FunctionBijection(activation, ())
        check_is_bijection(activation, "BlockAutoregressiveNetwork")
        if activation.shape != () or activation.cond_shape is not None:
            raise ValueError(
                f"BlockAutoregressiveNetwork expected an unconditional activation of shape (), got {activation.shape}."
            )
        keys = jr.split(check_key(key), depth + 2)
        blocks = [1, *[block_dim] * depth, 1]
        gains = [1.0] if depth == 0 else [_GAIN, *[1.0] * (depth - 1), 1 / _GAIN]
        self.layers = tuple(
            BlockLinear(k, dim, b_out, b_in, gain=gain)
            for k, b_in, b_out, gain in zip(keys[1:], blocks, blocks[1:], gains, strict=False)
        )
        self.condition_weight = None
        self.cond_shape = None
        if cond_dim is not None:
            self.cond_shape = (check_count(cond_dim, "cond_dim"),)
            self.condition_weight = 0.1 * _GAIN * jr.normal(keys[0], (dim * blocks[1], cond_dim)) / math.sqrt(cond_dim)
        self.activation = activation
        self.shape = (dim,)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        h = x[:, None]
        # log of d(unit)/d(its coordinate): (dim, block), since each coordinate enters through one column.
        log_slope = jnp.zeros_like(h)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            log_slope = jax.nn.logsumexp(layer.log_diagonal + log_slope[:, None, :], axis=-1)
            if i == 0 and self.condition_weight is not None and condition is not None:
                h = h + (self.condition_weight @ condition.astype(x.dtype)).reshape(h.shape)
            if i < len(self.layers) - 1:
                h, log_det = jax.vmap(jax.vmap(partial(forward, self.activation)))(h)
                log_slope = log_slope + log_det.value
        return h[:, 0], log_slope.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return solve_one(self, y, condition, "triangular")

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return solve_bijection(self, y, condition, "triangular")
