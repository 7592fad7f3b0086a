"""A flow layer by layer, moving."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.distributions import AbstractDistribution
from flowlib.plot._axes import axes_or_new, limits_of, set_limits
from flowlib.plot._stages import Direction, stages_of

if TYPE_CHECKING:
    import matplotlib.animation
    import matplotlib.axes


def animate_layers(
    flow: AbstractDistribution,
    x: ArrayLike | None = None,
    *,
    key: PRNGKeyArray | None = None,
    n: int = 1000,
    condition: ArrayLike | None = None,
    direction: Direction = "sample",
    color_by: Any = "angle",
    frames_per_layer: int = 15,
    frames_between: int = 5,
    interval: float = 40.0,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.animation.FuncAnimation":
    """The points of `plot_layers` on straight lines from each stage to the next, with limits that follow them.

    Keep a reference to the animation while it is shown. `animation.save("flow.gif", writer="pillow")` makes a file,
    `animation.to_jshtml()` a player for notebooks.

    Args:
        flow: as in `plot_layers`, as are all arguments up to `color_by`.
        x: likewise.
        key: likewise.
        n: likewise.
        condition: likewise.
        direction: likewise.
        color_by: likewise.
        frames_per_layer: frames on the way through a layer.
        frames_between: frames in which the points rest at each stage.
        interval: milliseconds a frame.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError, TypeError: as `plot_layers`.
    """
    stages = stages_of(flow, x, key, n, condition, direction, color_by, "animate_layers")
    frames_per_layer = check_count(frames_per_layer, "frames_per_layer")
    frames_between = check_count(frames_between, "frames_between", 0)
    # Another layout for each frame would be slow, and shake.
    ax = axes_or_new(ax, layout=None)
    from matplotlib.animation import FuncAnimation

    limits = [limits_of(points) for points in stages.points]
    size = float(np.clip(5000 / max(len(stages.points[0]), 1), 2, 20))
    cloud = ax.scatter(*stages.points[0].T, s=size, c=stages.colours, linewidths=0)
    ax.set_title(stages.titles[0])
    set_limits(ax, limits[0])

    def draw(place):
        start = min(int(place), len(stages.points) - 2)
        part = place - start
        cloud.set_offsets((1 - part) * stages.points[start] + part * stages.points[start + 1])
        set_limits(ax, (1 - part) * limits[start] + part * limits[start + 1])
        ax.set_title(stages.titles[round(place)])
        return (cloud,)

    places = [0.0] * (frames_between + 1)
    for start in range(len(stages.points) - 1):
        places += [start + step / frames_per_layer for step in range(1, frames_per_layer + 1)]
        places += [start + 1.0] * frames_between
    figure: Any = ax.get_figure()
    return FuncAnimation(figure, draw, frames=places, interval=interval, init_func=lambda: (cloud,))
