"""The convolutional residual network of RealNVP."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import Module
from flowlib.nn._activation import checked_activation
from flowlib.nn._convolution import Convolution
from flowlib.nn._image_net import AbstractImageNet, ChannelShifts, make_parts, plus, shifts_of, zero_convolution
from flowlib.nn._mlp import squash


class ResidualBlock(Module):
    """The convolutions of one block."""

    inner: Convolution
    outer: Convolution
    skip: Convolution


class ConvResNet(AbstractImageNet):
    """Residual blocks of two 3x3 convolutions, whose sum of skip connections makes the output: RealNVP's conditioner.

        h_0 = conv3(x),    h_k = h_(k-1) + conv3(a(conv3(a(h_(k-1))))),    output = conv1(a(sum_k skip_k(h_k)))

    with the activation a before a convolution (He et al. 2016), and 1x1 convolutions for skip_k and for the last layer,
    which is 0 at first. An output sees 2 depth + 1 pixels in each direction. Images have any height and width; outside
    of them there are zeros. A condition shifts the channels of h_0, and those between the two convolutions of each
    block, by linear maps of it. Costs about pixels * width^2 * 19 depth.

    Args:
        key: a PRNG key.
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        width: the channels of each hidden layer.
        depth: the number of blocks.
        activation: a module or module-level function, applied to each number.
        weight_norm: whether the length and the direction of each output's weights are parameters of their own
            (https://arxiv.org/abs/1602.07868), in all layers but the last.
        cond_dim: the size of a condition. Defaults to None, no conditions.

    Raises:
        ValueError: if a size is out of range; when called, if the image or the condition has another shape.
        TypeError: if `activation` is no function.

    References:
        Dinh, Sohl-Dickstein and Bengio (2017), https://arxiv.org/abs/1605.08803;
        He, Zhang, Ren and Sun (2016), https://arxiv.org/abs/1603.05027.
    """

    first: Convolution
    first_skip: Convolution
    # All blocks, stacked.
    blocks: ResidualBlock
    last: Convolution
    shifts: ChannelShifts | None
    activation: Callable
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
        activation: Callable = jax.nn.relu,
        weight_norm: bool = True,
        cond_dim: int | None = None,
    ):
        in_channels, out_channels = check_count(in_channels, "in_channels"), check_count(out_channels, "out_channels")
        width, depth = check_count(width, "width"), check_count(depth, "depth", 0)
        (self.first, self.first_skip), block, self.shifts = make_parts(
            key,
            [(3, in_channels, width), (1, width, width)],
            [(3, width, width), (3, width, width), (1, width, width)],
            depth,
            weight_norm=weight_norm,
            cond_dim=cond_dim,
            places=depth + 1,
            width=width,
        )
        self.blocks = ResidualBlock(*block)
        self.last = zero_convolution(1, width, out_channels)
        self.activation = checked_activation(activation)
        self.in_channels = in_channels
        self.cond_dim = cond_dim

    def batch(
        self, x: Float[Array, "n h w in_channels"], condition: Float[Array, "_ cond_dim"] | None = None
    ) -> Float[Array, "n h w out_channels"]:
        shifts = shifts_of(self.shifts, condition)
        h = plus(self.first(squash(x)), None if shifts is None else shifts[0])

        def take(carry, block_and_shift):
            (h, total), (block, shift) = carry, block_and_shift
            h = h + block.outer(self.activation(plus(block.inner(self.activation(h)), shift)))
            return (h, total + block.skip(h)), None

        # One program for all blocks: compiling a convolution takes longer than many a fit.
        blocks = (self.blocks, None if shifts is None else shifts[1:])
        (_, total), _ = jax.lax.scan(take, (h, self.first_skip(h)), blocks)
        return self.last(self.activation(total))
