"""Pixels of images into channels."""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._arrays import as_shape, check_count
from flowlib.bijections._bijection import AbstractBijection

Layout = Literal["CHW", "HWC"]


class Squeeze(AbstractBijection):
    """Each square of f by f pixels becomes one pixel with f^2 times the channels; the log-det is 0.

        "CHW"     (C, H, W) -> (C f^2, H/f, W/f)    y[c f^2 + i f + j, h, w] = x[c, f h + i, f w + j]
        "HWC"     (H, W, C) -> (H/f, W/f, C f^2)    y[h, w, (i f + j) C + c] = x[f h + i, f w + j, c]

    The first is the order of PyTorch's `pixel_unshuffle`, the second that of TensorFlow's `space_to_depth`.
    Both directions are one transposition.

    Args:
        shape: the shape of an image.
        factor: f. Defaults to 2.
        layout: which axis has the channels. Defaults to "CHW".

    Raises:
        ValueError: if the image has not three axes, or height or width are no multiples of the factor.

    References:
        Dinh et al. 2017, arXiv:1605.08803, section 3.6.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    factor: int = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...], factor: int = 2, *, layout: Layout = "CHW"):
        if layout not in get_args(Layout):
            raise ValueError(f"Squeeze expected layout to be one of {get_args(Layout)}, got {layout!r}.")
        self.shape = image_shape(shape, "Squeeze", layout)
        self.factor = check_count(factor, "factor")
        self.layout = layout
        height, width = self.shape[1:] if layout == "CHW" else self.shape[:2]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Squeeze expected a height and a width that are multiples of {self.factor}, got {height} and {width}."
            )

    @property
    def out_shape(self) -> tuple[int, ...]:
        f = self.factor
        if self.layout == "CHW":
            channels, height, width = self.shape
            return (channels * f**2, height // f, width // f)
        height, width, channels = self.shape
        return (height // f, width // f, channels * f**2)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        f = self.factor
        if self.layout == "CHW":
            _, height, width = self.out_shape
            parts = x.reshape(-1, height, f, width, f).transpose(0, 2, 4, 1, 3)
        else:
            height, width, _ = self.out_shape
            parts = x.reshape(height, f, width, f, -1).transpose(0, 2, 1, 3, 4)
        return parts.reshape(self.out_shape), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        f = self.factor
        if self.layout == "CHW":
            _, height, width = self.out_shape
            parts = y.reshape(-1, f, f, height, width).transpose(0, 3, 1, 4, 2)
        else:
            height, width, _ = self.out_shape
            parts = y.reshape(height, width, f, f, -1).transpose(0, 2, 1, 3, 4)
        return parts.reshape(self.shape), 0.0


class CheckerboardSqueeze(AbstractBijection):
    """(C, H, W) -> (2C, H, W/2): the squares of one colour of a checkerboard first, then those of the other.

    The first C channels hold the squares where row + column is even, packed along the row, and the
    last C the rest. Splitting the channels then splits by the checkerboard. The log-det is 0. Both
    directions are a selection and a transposition.

    Args:
        shape: the shape of an image.

    Raises:
        ValueError: if the image has not three axes or its width is odd.

    References:
        Dinh et al. 2017, arXiv:1605.08803, section 3.4; Ho et al. 2019, arXiv:1902.00275.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...]):
        self.shape = image_shape(shape, "CheckerboardSqueeze")
        if self.shape[2] % 2:
            raise ValueError(f"CheckerboardSqueeze expected an even width, got {self.shape[2]}.")

    @property
    def out_shape(self) -> tuple[int, ...]:
        channels, height, width = self.shape
        return (2 * channels, height, width // 2)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        channels, height, width = self.shape
        pairs = x.reshape(channels, height, width // 2, 2).transpose(3, 0, 1, 2)
        return self._swapped_in_odd_rows(pairs).reshape(self.out_shape), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        channels, height, width = self.shape
        pairs = self._swapped_in_odd_rows(y.reshape(2, channels, height, width // 2))
        return pairs.transpose(1, 2, 3, 0).reshape(self.shape), 0.0

    def _swapped_in_odd_rows(self, pairs):
        """The left and the right one of each two neighbours to the even and the odd one, or back."""
        even = np.arange(self.shape[1])[:, None] % 2 == 0
        return jnp.where(even, pairs, pairs[::-1])


def image_shape(shape: tuple[int, ...], where: str, layout: Layout = "CHW") -> tuple[int, ...]:
    """`shape` as a tuple.

    Raises:
        ValueError: if it has not three axes.
    """
    shape = as_shape(shape)
    if len(shape) != 3:
        raise ValueError(f"{where} expected the shape of an image, {tuple(layout)}, got {shape}.")
    return shape
