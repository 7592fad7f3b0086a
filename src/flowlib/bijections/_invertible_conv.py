"""Convolutions of images with a kernel of one pixel."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import as_shape, check_count
from flowlib._module import unwrap_own
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._plu import PLU, make_plu, same_log_det


class InvertibleConv1x1(AbstractBijection):
    """y[:, i, j] = W x[:, i, j]: `InvertibleLinear` at every pixel, with one W, to mix the channels of an image.

    log |det dy/dx| = height width sum log |s|, O(channels). Each direction O(channels^2) a pixel.

    Args:
        key: a PRNG key for the initial W; not used with `init`.
        shape: the shape of an event, (channels, height, width).
        init: W at first, of shape (channels, channels). Defaults to a random rotation (or reflection).

    Raises:
        ValueError: if `shape` has not three axes, or `init` has another shape, is not finite or singular.

    References:
        Kingma and Dhariwal 2018, section 3.2 (arXiv:1807.03039).
    """

    plu: PLU
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, key: PRNGKeyArray, *, shape: tuple[int, ...], init: ArrayLike | None = None):
        self.shape = as_shape(shape)
        if len(self.shape) != 3:
            raise ValueError(f"InvertibleConv1x1 expected a shape (channels, height, width), got {self.shape}.")
        self.plu = make_plu(key, check_count(self.shape[0], "channels"), init, "InvertibleConv1x1")

    @property
    def matrix(self) -> Float[Array, "channels channels"]:
        """W."""
        return unwrap_own(self).plu.matrix()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self.plu.apply(x.reshape(len(x), -1)).reshape(x.shape), self._log_det()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self.plu.solve(y.reshape(len(y), -1)).reshape(y.shape), -self._log_det()

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return self._to_images(self.plu.apply(self._to_columns(x))), same_log_det(self._log_det(), x)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return self._to_images(self.plu.solve(self._to_columns(y))), same_log_det(-self._log_det(), y)

    def _log_det(self) -> Array:
        return self.shape[1] * self.shape[2] * self.plu.log_det()

    # All pixels of all images are columns of one product or solve.

    def _to_columns(self, x: Array) -> Array:
        return jnp.moveaxis(x, 1, 0).reshape(self.shape[0], -1)

    def _to_images(self, columns: Array) -> Array:
        channels, *pixels = self.shape
        return jnp.moveaxis(columns.reshape(channels, -1, *pixels), 0, 1)
