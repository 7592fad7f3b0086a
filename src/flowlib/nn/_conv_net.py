"""The convolutional network of Glow."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.nn._activation import checked_activation
from flowlib.nn._convolution import Convolution
from flowlib.nn._image_net import AbstractImageNet, ChannelShifts, make_parts, plus, shifts_of, zero_convolution
from flowlib.nn._mlp import squash


class ConvNet(AbstractImageNet):
    """Convolutions one after another, the last of them 0 at first: the conditioner of Glow.

    Images have any height and width; outside of them there are zeros. A condition shifts each hidden layer's channels
    by a linear map of it. Costs pixels * (in_channels * width * 9 + width^2 + width * out_channels * 9) for
    the default kernels.

    Args:
        key: a PRNG key.
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        width: the channels of each hidden layer.
        kernel_sizes: the side of the kernel of each layer, two layers at least.
        activation: a module or module-level function, applied to each number.
        cond_dim: the size of a condition. Defaults to None, no conditions.

    Raises:
        ValueError: if a size is out of range; when called, if the image or the condition has another shape.
        TypeError: if `activation` is no function.

    References:
        Kingma and Dhariwal (2018), https://arxiv.org/abs/1807.03039, appendix B.
    """

    layers: tuple[Convolution, ...]
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
        kernel_sizes: tuple[int, ...] = (3, 1, 3),
        activation: Callable = jax.nn.relu,
        cond_dim: int | None = None,
    ):
        in_channels, out_channels = check_count(in_channels, "in_channels"), check_count(out_channels, "out_channels")
        width = check_count(width, "width")
        sizes = [check_count(size, "kernel_sizes") for size in kernel_sizes]
        if len(sizes) < 2:
            raise ValueError(f"kernel_sizes expected two sizes at least, got {tuple(kernel_sizes)}.")
        kernels = [(size, width if i else in_channels, width) for i, size in enumerate(sizes[:-1])]
        hidden, _, self.shifts = make_parts(
            key, kernels, weight_norm=False, cond_dim=cond_dim, places=len(kernels), width=width
        )
        self.layers = (*hidden, zero_convolution(sizes[-1], width, out_channels))
        self.activation = checked_activation(activation)
        self.in_channels = in_channels
        self.cond_dim = cond_dim

    def batch(
        self, x: Float[Array, "n h w in_channels"], condition: Float[Array, "_ cond_dim"] | None = None
    ) -> Float[Array, "n h w out_channels"]:
        x = squash(x)
        shifts = shifts_of(self.shifts, condition)
        for i, layer in enumerate(self.layers[:-1]):
            x = self.activation(plus(layer(x), None if shifts is None else shifts[i]))
        return self.layers[-1](x)
