"""What a map does to a regular grid."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike

from flowlib._arrays import check_count, default_float
from flowlib._module import peel
from flowlib.bijections import AbstractBijection
from flowlib.distributions import AbstractDistribution
from flowlib.plot._arguments import as_rows, check_condition, check_planar, flow_of
from flowlib.plot._axes import as_limits, axes_or_new, limits_of, set_limits

if TYPE_CHECKING:
    import matplotlib.axes


def plot_warped_grid(
    flow: AbstractDistribution | AbstractBijection,
    *,
    limits: Any = None,
    lines: int = 21,
    resolution: int = 200,
    condition: ArrayLike | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """A regular grid in the base, as the map takes it to the data.

    Lines of equal first coordinate are blue, of equal second coordinate orange. Costs 2 `lines` times `resolution`
    events, from base to data.

    Args:
        flow: a `Transformed` distribution, or a bijection of two numbers.
        limits: of the grid, (low, high) or one such pair for each coordinate. Defaults to a range of nearly all of the
            base, and of a bijection to (-3, 3).
        lines: how many lines in each direction.
        resolution: points on each line.
        condition: one condition, where one is needed.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError: for events of another size, or a wrong condition or limits.
        TypeError: if `flow` is neither a flow nor a bijection.
    """
    lines, resolution = check_count(lines, "lines", 2), check_count(resolution, "resolution", 2)
    map_, shape, default = _map_of(flow, condition)
    low_high = as_limits(default if limits is None else limits, 2)
    ends = [np.linspace(low, high, lines) for low, high in low_high]
    along = [np.linspace(low, high, resolution) for low, high in low_high]
    upright = np.stack(np.broadcast_arrays(ends[0][:, None], along[1]), axis=-1)
    level = np.stack(np.broadcast_arrays(along[0], ends[1][:, None]), axis=-1)
    grid = jnp.asarray(np.stack([upright, level]).reshape(-1, *shape), default_float())
    warped = np.asarray(map_(grid)).reshape(2, lines, resolution, 2)

    ax = axes_or_new(ax)
    from matplotlib.collections import LineCollection

    for paths, colour in zip(warped, ["tab:blue", "tab:orange"], strict=True):
        ax.add_collection(LineCollection(list(paths), colors=colour, linewidths=0.8, alpha=0.9))
    set_limits(ax, limits_of(warped.reshape(-1, 2)))
    return ax


def _map_of(flow, condition):
    """The map of a batch of events, the shape of what goes in, and the default limits."""
    bijection = peel(flow)
    if isinstance(bijection, AbstractBijection):
        for shape in (bijection.shape, bijection.out_shape):
            check_planar(shape, "plot_warped_grid")
        return jax.vmap(partial(bijection.transform, condition=condition)), bijection.shape, (-3.0, 3.0)
    dist = flow_of(flow, "plot_warped_grid")
    base = peel(dist.base_dist)
    for shape in (dist.shape, base.shape):
        check_planar(shape, "plot_warped_grid")
    check_condition(dist, condition, "plot_warped_grid")
    draws = base.sample(jr.key(0), 1000, None if base.cond_shape is None else condition)
    return partial(dist.from_base, condition=condition), base.shape, limits_of(as_rows(draws, base.shape, "draws"))
