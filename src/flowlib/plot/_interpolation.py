"""From one event to another, through the base."""

from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from flowlib._arrays import check_count
from flowlib.distributions import AbstractDistribution
from flowlib.plot._arguments import as_reals, check_condition, flow_of, is_image, value_range
from flowlib.plot._axes import axes_or_new, limits_of, set_limits
from flowlib.plot._images import plot_images

if TYPE_CHECKING:
    import matplotlib.axes


def plot_interpolation(
    flow: AbstractDistribution,
    start: ArrayLike,
    end: ArrayLike,
    *,
    steps: int = 9,
    path: Literal["linear", "spherical"] = "linear",
    condition: ArrayLike | None = None,
    limits: Any = None,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """The events on the way between two, where the way is a simple one between their points in the base.

    Images are a row from `start` to `end`. Points in the plane are a line with a dot at each step, which can be drawn
    over a `plot_density`, whose limits then stay.

    Args:
        flow: a `Transformed` distribution of images, (height, width) or (1 or 3, height, width), or of two numbers.
        start: one event, or a batch of them, each with a row or line of its own.
        end: likewise, of the same shape.
        steps: how many events, both ends included.
        path: "linear", or "spherical", along a great circle while the norm changes evenly. A normal base of many
            dimensions has hardly any points of the norms that a straight line passes through.
        condition: one condition, of a conditional flow.
        limits: of images, the values of black and white, as in `plot_temperatures`.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError: for events of another shape, a wrong condition or path.
        TypeError: if `flow` is not a flow.
    """
    inner = flow_of(flow, "plot_interpolation")
    if not is_image(inner.shape) and inner.shape != (2,):
        raise ValueError(
            "plot_interpolation can draw events of shape (2,), (height, width), (1, height, width) or "
            f"(3, height, width), got events of shape {inner.shape}."
        )
    check_condition(inner, condition, "plot_interpolation")
    steps = check_count(steps, "steps", 2)
    if path not in ("linear", "spherical"):
        raise ValueError(f'path expected "linear" or "spherical", got {path!r}.')
    first, last = (inner.to_base(as_reals(flow, x), condition) for x in (start, end))
    if first.shape != last.shape:
        raise ValueError(f"start and end expected one shape, got {first.shape} and {last.shape}.")

    base_shape = first.shape[first.ndim - len(inner.base_dist.shape) :]
    first, last = (np.asarray(z).reshape(-1, np.prod(base_shape, dtype=int)) for z in (first, last))
    z = _between(first, last, steps, path).reshape(-1, *base_shape)
    x = np.asarray(inner.from_base(jnp.asarray(z), condition))
    if inner.shape != (2,):
        limits = value_range(flow) if limits is None else limits
        return plot_images(x, n_columns=steps, limits=limits, ax=ax)
    fresh = ax is None
    ax = axes_or_new(ax)
    lines = x.reshape(-1, steps, 2)
    for line in lines:
        ax.plot(*line.T, ".-", color="tab:red", linewidth=1.2, markersize=5)
        ax.plot(*line[[0, -1]].T, "o", color="tab:red", markeredgecolor="white", markersize=7)
    if fresh:
        set_limits(ax, limits_of(x))
    return ax


def _between(first: np.ndarray, last: np.ndarray, steps: int, path: str) -> np.ndarray:
    """Points (n, steps, d) from each of `first` (n, d) to the same row of `last`."""
    part = np.linspace(0, 1, steps, dtype=first.dtype)[:, None]
    first, last = first[:, None], last[:, None]
    straight = (1 - part) * first + part * last
    if path == "linear":
        return straight
    lengths = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (first, last)]
    product = (first * last).sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.arccos(np.clip(product / (lengths[0] * lengths[1]), -1, 1))
        direction = np.sin((1 - part) * angle) * first / lengths[0] + np.sin(part * angle) * last / lengths[1]
        around = direction / np.sin(angle) * ((1 - part) * lengths[0] + part * lengths[1])
    # Points in one line with 0 have no great circle of their own.
    return np.where(np.sin(angle) > 1e-4, around, straight)
