"""A flow layer by layer."""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from flowlib.distributions import AbstractDistribution
from flowlib.plot._axes import limits_of, panels_or_new, set_limits
from flowlib.plot._stages import Direction, stages_of


def plot_layers(
    flow: AbstractDistribution,
    x: ArrayLike | None = None,
    *,
    key: PRNGKeyArray | None = None,
    n: int = 1000,
    condition: ArrayLike | None = None,
    direction: Direction = "sample",
    color_by: Any = "angle",
    axes: Any = None,
) -> np.ndarray:
    """Events of two numbers between the layers: a panel for where they start and one after each layer.

    A point has the same colour in all panels. Coordinates are in the order of the data in all of them, so that
    permutations between layers are not seen. Each panel has limits of its own. Costs one `sample`, or one `log_prob`.

    Args:
        flow: a `Transformed` distribution.
        x: the events to follow. Defaults to draws.
        key: a JAX PRNG key, for the draws.
        n: how many.
        condition: as in `log_prob` and `sample`.
        direction: "sample" for panels from the base to the data, "data" for the other way, with titles such as
            "3: Coupling⁻¹" after the inverse of layer 3.
        color_by: "angle" of the points in the base, "quadrant", or a value or colour for each point.
        axes: where to draw, at least one more than there are layers. Defaults to a new figure.

    Returns:
        The axes, one for each stage.

    Raises:
        ValueError: for events of another size, too few axes, or neither events nor a key.
        TypeError: if `flow` is not a flow.
    """
    stages = stages_of(flow, x, key, n, condition, direction, color_by, "plot_layers")
    panels = panels_or_new(axes, len(stages.points))
    for ax, points, title in zip(panels, stages.points, stages.titles, strict=True):
        ax.scatter(*points.T, s=float(np.clip(3000 / max(len(points), 1), 1.5, 12)), c=stages.colours, linewidths=0)
        ax.set_title(title, fontsize="medium")
        ax.tick_params(labelsize="small")
        set_limits(ax, limits_of(points))
    return panels
