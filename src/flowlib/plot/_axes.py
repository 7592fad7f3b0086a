"""What the plots share: matplotlib at its first use, new axes, and their limits."""

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes

# Of the points that limits are made for, the part left out at each end, and the margin that is then added.
_LEFT_OUT, _MARGIN = 0.005, 0.1
# Coordinates whose ranges differ by less than this factor are drawn to one scale.
_ONE_SCALE = 4.0


def require_matplotlib() -> None:
    """Raise unless matplotlib can be imported."""
    try:
        importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        message = "flowlib.plot needs matplotlib: pip install flowlib[plot]"
        raise ModuleNotFoundError(message, name="matplotlib") from None


def axes_or_new(
    ax: "matplotlib.axes.Axes | None", width: float = 5.0, height: float = 5.0, layout: str | None = "constrained"
) -> "matplotlib.axes.Axes":
    """`ax`, or the axes of a new figure of this size in inches."""
    require_matplotlib()
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout=layout)[1]


def panels_or_new(axes: Any, number: int, side: float = 2.4) -> np.ndarray:
    """So many of `axes`, or of new ones in a figure of about twice as many columns as rows.

    Raises:
        ValueError: if there are fewer.
    """
    require_matplotlib()
    if axes is not None:
        found = np.asarray(axes, dtype=object).ravel()
        if len(found) < number:
            raise ValueError(f"axes expected at least {number}, one for each stage of the flow, got {len(found)}.")
        return found[:number]
    import matplotlib.pyplot as plt

    n_columns = number if number <= 5 else int(np.ceil(np.sqrt(2 * number)))
    n_rows = -(-number // n_columns)
    size = (side * n_columns, side * 1.12 * n_rows)
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    for unused in grid.flat[number:]:
        unused.remove()
    return grid.ravel()[:number]


def as_limits(limits: Any, ndim: int) -> np.ndarray:
    """`(low, high)` for all coordinates, or one such pair for each, as an array with a row for each.

    Raises:
        ValueError: for anything else.
    """
    try:
        rows = np.broadcast_to(np.asarray(limits, float), (ndim, 2))
    except (TypeError, ValueError):
        rows = np.zeros((ndim, 2))
    if not (np.isfinite(rows).all() and (rows[:, 0] < rows[:, 1]).all()):
        raise ValueError(f"limits expected (low, high) or one such pair for each coordinate, got {limits!r}.")
    return rows


def limits_of(points: np.ndarray) -> np.ndarray:
    """Limits around nearly all of the finite points (n, d), the same width in all coordinates if that suits them."""
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.tile([-1.0, 1.0], (points.shape[1], 1))
    low, high = np.quantile(points, [_LEFT_OUT, 1 - _LEFT_OUT], axis=0)
    centre, half = (low + high) / 2, (high - low) / 2
    if half.max() <= _ONE_SCALE * half.min():
        half = np.full_like(half, half.max())
    half = (1 + _MARGIN) * np.where(half > 0, half, 1.0)
    return np.stack([centre - half, centre + half], axis=1)


def set_limits(ax: "matplotlib.axes.Axes", limits: np.ndarray) -> None:
    """Limits in two dimensions, to one scale unless the ranges differ much."""
    ax.set(xlim=limits[0], ylim=limits[1])
    widths = limits[:, 1] - limits[:, 0]
    if widths.max() <= _ONE_SCALE * widths.min():
        ax.set_aspect("equal")
    else:
        ax.set_box_aspect(1)
