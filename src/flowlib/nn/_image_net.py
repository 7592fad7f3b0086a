"""What networks of images have in common: how they are called, how they start, and how a condition comes in."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import Module
from flowlib.nn._convolution import Convolution
from flowlib.nn._mlp import squash
from flowlib.nn._weight_norm import lengths, uniform_arrays


class AbstractImageNet(Module):
    """A network of images that takes a batch at once, with channels last.

    Called as `net(x, condition=None)` with one image of shape (in_channels, height, width) and one condition of shape
    (cond_dim,), it gives an image of shape (out_channels, height, width).
    """

    # The channels of an input, and the size of a condition or None.
    in_channels: eqx.AbstractVar[int]
    cond_dim: eqx.AbstractVar[int | None]

    @abstractmethod
    def batch(
        self, x: Float[Array, "n h w in_channels"], condition: Float[Array, "_ cond_dim"] | None = None
    ) -> Float[Array, "n h w out_channels"]:
        """The outputs for `n` images, and a condition for each, or one for all of them."""

    def __call__(
        self, x: Float[Array, "in_channels h w"], condition: Float[Array, " cond_dim"] | None = None
    ) -> Float[Array, "out_channels h w"]:
        label = type(self).__name__
        if x.ndim != 3 or len(x) != self.in_channels:
            wanted = f"({self.in_channels}, height, width)"
            raise ValueError(f"{label} expected an image of shape {wanted}, got {x.shape}.")
        got = None if condition is None else condition.shape
        if got != (None if self.cond_dim is None else (self.cond_dim,)):
            wanted = "no condition" if self.cond_dim is None else f"a condition of shape ({self.cond_dim},)"
            raise ValueError(f"{label} expected {wanted}, got {'none' if got is None else got}: see its cond_dim.")
        y = self.batch(x.transpose(1, 2, 0)[None], None if condition is None else condition[None])
        return y[0].transpose(2, 0, 1)


class ChannelShifts(Module):
    """Linear maps of a condition, one for each place at which it is added to the channels of all pixels."""

    weight: Float[Array, "*stack cond_dim places width"]

    def __call__(self, condition: Float[Array, "n cond_dim"]) -> Float[Array, "places n 1 1 width"]:
        shifts = jnp.tensordot(squash(condition), self.weight, 1)
        return jnp.moveaxis(shifts, 1, 0)[:, :, None, None]


def make_parts(
    key: PRNGKeyArray,
    kernels: list[tuple[int, int, int]],
    blocks: list[tuple[int, int, int]] | None = None,
    depth: int = 0,
    *,
    weight_norm: bool,
    cond_dim: int | None,
    places: int,
    width: int,
) -> tuple[list[Convolution], list[Convolution], ChannelShifts | None]:
    """Convolutions with kernels of (size, inputs, outputs), those of all blocks stacked, and shifts, in one draw."""
    shapes, fans = [], []
    for stack, parts in (((), kernels), ((depth,), blocks or [])):
        for size, inputs, outputs in parts:
            shapes += [(*stack, size, size, inputs, outputs), (*stack, outputs)]
            fans += [size * size * inputs] * 2
    if cond_dim is not None:
        shapes.append((check_count(cond_dim, "cond_dim"), places, width))
        fans.append(cond_dim)
    drawn = uniform_arrays(key, shapes, fans)
    shifts = None if cond_dim is None else ChannelShifts(drawn.pop())
    layers = [
        Convolution(weight, bias, lengths(weight, weight.ndim - 4) if weight_norm else None)
        for weight, bias in zip(drawn[::2], drawn[1::2], strict=True)
    ]
    return layers[: len(kernels)], layers[len(kernels) :], shifts


def zero_convolution(size: int, inputs: int, outputs: int) -> Convolution:
    """The last layer of a network, so that flows start as the identity."""
    return Convolution(jnp.zeros((size, size, inputs, outputs)), jnp.zeros(outputs), None)


def shifts_of(shifts: ChannelShifts | None, condition: Array | None) -> Array | None:
    """What is added at each place, if there are conditions."""
    return None if shifts is None or condition is None else shifts(condition)


def plus(x: Array, shift: Array | None) -> Array:
    """The sum, if there is something to add."""
    return x if shift is None else x + shift
