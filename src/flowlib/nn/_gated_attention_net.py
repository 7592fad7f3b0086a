"""The network of Flow++: gated convolutions and gated self-attention."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import as_shape, check_count
from flowlib._module import Module
from flowlib.nn._convolution import Convolution
from flowlib.nn._image_net import AbstractImageNet, ChannelShifts, make_parts, plus, shifts_of, zero_convolution
from flowlib.nn._mlp import squash

_EPSILON = 1e-5


class LayerNorm(Module):
    """The channels of each pixel, brought to mean 0 and variance 1, times a gain, plus a bias (arXiv:1607.06450)."""

    gain: Float[Array, "*stack width"]
    bias: Float[Array, "*stack width"]

    def __call__(self, x: Float[Array, "n h w width"]) -> Float[Array, "n h w width"]:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return self.gain * centred / jnp.sqrt(variance + _EPSILON) + self.bias


class GatedAttentionBlock(Module):
    """A gated convolution and a gated self-attention, each added to its input and followed by layer normalisation."""

    convolution: Convolution
    convolution_gate: Convolution
    queries_keys_values: Convolution
    attention_gate: Convolution
    convolution_norm: LayerNorm
    attention_norm: LayerNorm
    heads: int = eqx.field(static=True)

    def __call__(self, x: Array, shift: Array | None, position: Array) -> Array:
        h = plus(self.convolution(concat_elu(x)), shift)
        x = self.convolution_norm(x + _gated(self.convolution_gate(concat_elu(h))))
        h = attention(self.queries_keys_values(x + position), self.heads)
        return self.attention_norm(x + _gated(self.attention_gate(h)))


class GatedAttentionNet(AbstractImageNet):
    """Blocks of gated convolution and gated multi-head self-attention between two convolutions: Flow++'s conditioner.

    A block, with r(x) = elu([x, -x]), LN the layer normalisation of each pixel, and gate(h) = a sigmoid(b)
    where [a, b] is a 1x1 convolution of h:

        x <- LN(x + gate(r(conv3(r(x)))))
        x <- LN(x + gate(attention(conv1(x + position))))

    Each pixel attends to all pixels of the image; `position` is a trained array, the same for all blocks. All
    convolutions are weight-normalised (https://arxiv.org/abs/1602.07868) but for the last, which is 0 at first. A
    condition shifts the channels after the first convolution and after that of each block, by linear maps of it.
    There is no dropout. Costs about depth * (pixels * width^2 * 27 + 2 pixels^2 * width), and the attention takes
    memory for heads * pixels^2 numbers a row, which is much beyond some hundred pixels.

    Args:
        key: a PRNG key.
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        width: the channels of each hidden layer, a multiple of `heads`.
        depth: the number of blocks.
        image_shape: the height and the width of the images.
        heads: the number of attention heads.
        cond_dim: the size of a condition. Defaults to None, no conditions.

    Raises:
        ValueError: if a size is out of range, or `width` is no multiple of `heads`; when called, if the image or the
            condition has another shape.

    References:
        Ho et al. (2019), https://arxiv.org/abs/1902.00275, section 3 and figure 2.
    """

    first: Convolution
    position: Float[Array, "*stack height width channels"]
    # All blocks, stacked.
    blocks: GatedAttentionBlock
    last: Convolution
    shifts: ChannelShifts | None
    in_channels: int = eqx.field(static=True)
    cond_dim: int | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        depth: int,
        image_shape: tuple[int, int],
        heads: int = 4,
        cond_dim: int | None = None,
    ):
        in_channels, out_channels = check_count(in_channels, "in_channels"), check_count(out_channels, "out_channels")
        width, depth, heads = check_count(width, "width"), check_count(depth, "depth", 0), check_count(heads, "heads")
        if width % heads:
            raise ValueError(f"GatedAttentionNet expected a width that is a multiple of heads={heads}, got {width}.")
        height_width = as_shape(image_shape, "image_shape")
        if len(height_width) != 2:
            raise ValueError(f"image_shape expected (height, width), got {image_shape!r}.")
        (self.first,), block, self.shifts = make_parts(
            key,
            [(3, in_channels, width)],
            [(3, 2 * width, width), (1, 2 * width, 2 * width), (1, width, 3 * width), (1, width, 2 * width)],
            depth,
            weight_norm=True,
            cond_dim=cond_dim,
            places=depth + 1,
            width=width,
        )
        self.position = jnp.zeros((*height_width, width))
        norm, other_norm = (LayerNorm(jnp.ones((depth, width)), jnp.zeros((depth, width))) for _ in range(2))
        self.blocks = GatedAttentionBlock(block[0], block[1], block[2], block[3], norm, other_norm, heads)
        self.last = zero_convolution(3, width, out_channels)
        self.in_channels = in_channels
        self.cond_dim = cond_dim

    def batch(
        self, x: Float[Array, "n h w in_channels"], condition: Float[Array, "_ cond_dim"] | None = None
    ) -> Float[Array, "n h w out_channels"]:
        if x.shape[1:3] != self.position.shape[:2]:
            raise ValueError(
                f"GatedAttentionNet expected images of image_shape {self.position.shape[:2]}, got {x.shape[1:3]}."
            )
        shifts = shifts_of(self.shifts, condition)
        x = plus(self.first(squash(x)), None if shifts is None else shifts[0])

        def take(x, block_and_shift):
            block, shift = block_and_shift
            return block(x, shift, self.position), None

        x, _ = jax.lax.scan(take, x, (self.blocks, None if shifts is None else shifts[1:]))
        return self.last(x)


def concat_elu(x: Float[Array, "*n width"]) -> Float[Array, "*n twice_width"]:
    """elu of x and of -x, side by side on the last axis."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))


def attention(x: Float[Array, "n h w three_widths"], heads: int) -> Float[Array, "n h w width"]:
    """Multi-head self-attention over all pixels, given queries, keys and values side by side."""
    n, h, w, channels = x.shape
    queries, keys, values = jnp.moveaxis(x.reshape(n, h * w, 3, heads, channels // (3 * heads)), 2, 0)
    scores = jnp.einsum("nqhd,nkhd->nhqk", queries, keys) / math.sqrt(queries.shape[-1])
    mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), values)
    return mixed.reshape(n, h, w, channels // 3)


def _gated(x):
    value, gate = jnp.split(x, 2, -1)
    return value * jax.nn.sigmoid(gate)
