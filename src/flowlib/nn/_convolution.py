"""Convolutions of images with channels last."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from flowlib._module import Module
from flowlib.nn._weight_norm import rescaled

# Beyond about so many pixels at a time, the gradient of the weights no longer runs in a processor's cache.
_PIXELS = 2048


class Convolution(Module):
    """The convolution of images with a kernel, plus a bias; outside an image there are zeros.

    With a `scale`, that is the length of the weights of each output (weight normalisation).
    """

    weight: Float[Array, "*stack height width inputs outputs"]
    bias: Float[Array, "*stack outputs"]
    scale: Float[Array, "*stack outputs"] | None

    def __call__(self, x: Float[Array, "n h w inputs"]) -> Float[Array, "n h w outputs"]:
        kernel = self.weight if self.scale is None else rescaled(self.weight, self.scale)
        if kernel.shape[:2] == (1, 1):
            return x @ kernel[0, 0] + self.bias
        return convolve(x, kernel) + self.bias


def convolve(
    x: Float[Array, "n h w inputs"], kernel: Float[Array, "height width inputs outputs"]
) -> Float[Array, "n h w outputs"]:
    """The images convolved with the kernel (without turning it), of the same height and width."""
    return _convolve_on_cpu(x, kernel) if jax.default_backend() == "cpu" else _convolve(x, kernel)


def _convolve(x: Array, kernel: Array, layout: tuple[str, str, str] = ("NHWC", "HWIO", "NHWC")) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


# On a CPU XLA has fast convolutions for the layout NHWC, HWIO, NHWC only. It brings others into this layout, but not
# inside of a loop (a `Scan` of couplings, say): there they are some 50 times as slow. Of the two convolutions that JAX
# writes for a gradient, neither has this layout. So the derivative is written here such that its transpose has it.
@jax.custom_jvp
def _convolve_on_cpu(x, kernel):
    return _convolve(x, kernel)


@partial(_convolve_on_cpu.defjvp, symbolic_zeros=True)
def _jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _convolve(x, kernel)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy = dy + _convolve(dx, kernel.transpose(0, 1, 3, 2), ("NHWC", "HWOI", "NHWC"))
    if not isinstance(dkernel, SymbolicZero):
        dy = dy + _in_portions(x, dkernel)
    return y, dy


def _in_portions(x: Array, kernel: Array) -> Array:
    """`_convolve`, a few images at a time, such that the transpose in the kernel is fast."""
    n, height, width, _ = x.shape
    if n == 0:
        return _convolve(x, kernel, ("NHWC", "HWIO", "NHWC"))
    most = max(1, _PIXELS // (height * width))
    size = max(d for d in range(1, min(n, most) + 1) if n % d == 0)
    kernel = kernel.transpose(2, 0, 1, 3)

    # Of each portion the gradient keeps the images as they are.
    @partial(jax.checkpoint, prevent_cse=False)
    def convolve_portion(x):
        return _convolve(x.transpose(3, 1, 2, 0), kernel, ("CHWN", "IHWO", "HWNC")).transpose(2, 0, 1, 3)

    y = jax.lax.map(convolve_portion, x.reshape(n // size, size, *x.shape[1:]))
    return y.reshape(n, height, width, -1)
