"""A grid of images."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike

from flowlib._arrays import check_count
from flowlib.plot._axes import as_limits, axes_or_new

if TYPE_CHECKING:
    import matplotlib.axes

# Pixels between two images.
_GAP = 1


def plot_images(
    images: ArrayLike,
    *,
    n_columns: int | None = None,
    limits: Any = None,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Images side by side in one picture.

    Args:
        images: of shape (n, height, width), or (n, channels, height, width) with 1 channel (grey) or 3 (colours).
        n_columns: images in a row. Defaults to as many as rows.
        limits: the values of black and white. Defaults to (0, 255) for integers, (0, 1) for numbers in that range, and
            else the least and the greatest.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError: for arrays of another shape, or wrong limits.
    """
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or pixels.size == 0:
        raise ValueError(
            "plot_images expected images of shape (n, height, width), (n, 1, height, width) or (n, 3, height, width), "
            f"got {np.shape(images)}."
        )
    low, high = _default_limits(pixels) if limits is None else as_limits(limits, 1)[0]
    n_columns = int(np.ceil(np.sqrt(len(pixels)))) if n_columns is None else check_count(n_columns, "n_columns")
    n_columns = min(n_columns, len(pixels))
    mosaic = _tiled(np.clip((pixels.astype(float) - low) / (high - low), 0, 1), n_columns)
    height, width = mosaic.shape[:2]
    scale = 1.1 * max(n_columns, 3) / width
    ax = axes_or_new(ax, scale * width, scale * height)
    ax.imshow(mosaic, vmin=0, vmax=1, cmap="gray")
    ax.set_axis_off()
    return ax


def centres(number: int, size: int) -> np.ndarray:
    """Where in the picture the middles of so many rows or columns of images lie, each of so many pixels."""
    return _GAP + (size - 1) / 2 + (size + _GAP) * np.arange(number)


def _default_limits(pixels):
    if pixels.dtype.kind in "iu":
        return 0.0, 255.0
    low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    if pixels.dtype == bool or (low >= 0 and high <= 1):
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _tiled(pixels: np.ndarray, n_columns: int) -> np.ndarray:
    """(n, channels, height, width) as one picture (height, width) or (height, width, 3), white between."""
    n, channels, height, width = pixels.shape
    n_rows = -(-n // n_columns)
    padded = np.ones((n_rows * n_columns, channels, height + _GAP, width + _GAP))
    padded[:n, :, _GAP:, _GAP:] = pixels
    rows = padded.reshape(n_rows, n_columns, channels, height + _GAP, width + _GAP).transpose(0, 3, 1, 4, 2)
    picture = rows.reshape(n_rows * (height + _GAP), n_columns * (width + _GAP), channels)
    picture = np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=1.0)
    return picture[..., 0] if channels == 1 else picture
