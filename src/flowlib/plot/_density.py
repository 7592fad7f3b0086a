"""A density, with data and samples over it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.distributions import AbstractDistribution
from flowlib.plot._arguments import as_rows, check_condition, checked_dist
from flowlib.plot._axes import as_limits, axes_or_new, limits_of, set_limits
from flowlib.plot._columns import column_names, columns_of

if TYPE_CHECKING:
    import matplotlib.axes

# Draws for a marginal, and bins along each axis.
_DRAWS, _BINS = 50_000, 60


def plot_density(
    dist: AbstractDistribution,
    *,
    data: Any = None,
    samples: ArrayLike | None = None,
    key: PRNGKeyArray | None = None,
    condition: ArrayLike | None = None,
    columns: Sequence[int | str] | None = None,
    limits: Any = None,
    resolution: int = 200,
    levels: int | Sequence[float] | None = None,
    filled: bool = True,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """The density of events of one or two numbers: a curve with histograms, or an image with points over it.

    Costs one `log_prob` of `resolution` (of two numbers: `resolution` squared) events. Of a vector with more, `columns`
    says which one or two to show: a marginal has no formula, and is drawn as the frequency of 50,000 draws.

    Args:
        dist: a distribution with events of shape (), (1,) or (2,); with `columns`, of any vectors.
        data: events to draw too.
        samples: likewise; or how many to draw from `dist`, with `key`.
        key: a JAX PRNG key, for samples.
        condition: one condition, of a conditional distribution.
        columns: one or two columns to show, by number, or by name if `data` is a table. Defaults to None, all.
        limits: (low, high), or one such pair for each coordinate. Defaults to a range of nearly all data, or else
            samples. Two coordinates are drawn to one scale unless their ranges differ more than fourfold.
        resolution: points along each axis.
        levels: draw contours, so many or at these densities, rather than an image.
        filled: fill the contours.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError: for events of another shape, unknown columns, a wrong condition or limits, or samples without a key.
        TypeError: if `dist` is not a distribution.
    """
    inner = checked_dist(dist, "plot_density")
    if columns is None and inner.shape not in ((), (1,), (2,)):
        raise ValueError(
            f"plot_density can draw events of shape (), (1,) or (2,), got events of shape {inner.shape}. "
            f"For one or two columns of vectors pass columns=."
        )
    check_condition(inner, condition, "plot_density")
    resolution = check_count(resolution, "resolution", 2)
    groups = {} if data is None else {"data": as_rows(data, inner.shape, "data")}
    if samples is not None:
        groups["samples"] = as_rows(_drawn(dist, samples, key, condition), inner.shape, "samples")

    if columns is not None:
        return _marginal(dist, inner, groups, column_names(data, inner.shape[0]), columns, key, condition, limits, ax)
    ndim = 2 if inner.shape == (2,) else 1
    if limits is not None:
        limits = as_limits(limits, ndim)
    else:
        key = jr.key(0) if key is None else key
        shown = next(iter(groups.values()), None)
        limits = limits_of(as_rows(dist.sample(key, 1000, condition), inner.shape, "") if shown is None else shown)
    ax = axes_or_new(ax, 5, 5 if ndim == 2 else 3.5)
    sides = [np.linspace(low, high, resolution) for low, high in limits]
    grid = np.stack(np.meshgrid(*sides), axis=-1)
    density = np.exp(np.asarray(dist.log_prob(grid if inner.shape else grid[..., 0], condition), float))
    if ndim == 1:
        _draw_curve(ax, sides[0], density, groups)
    else:
        _draw_image(ax, sides, density, levels, filled)
        _draw_points(ax, groups, on_colour=filled or levels is None)
        set_limits(ax, limits)
    return ax


def _marginal(dist, inner, groups, labels, columns, key, condition, limits, ax):
    """One or two columns, by the frequency of draws."""
    if len(inner.shape) != 1:
        raise ValueError(f"columns are those of vectors, got events of shape {inner.shape}.")
    chosen = columns_of(columns, labels)
    if len(chosen) > 2:
        raise ValueError(f"plot_density can draw one or two columns, got {len(chosen)}: plot_pairs draws more.")
    draws = as_rows(dist.sample(jr.key(0) if key is None else key, _DRAWS, condition), inner.shape, "draws")[:, chosen]
    groups = {name: rows[:, chosen] for name, rows in groups.items()}
    limits = limits_of(next(iter(groups.values()), draws)) if limits is None else as_limits(limits, len(chosen))
    ax = axes_or_new(ax, 5, 5 if len(chosen) == 2 else 3.5)
    bins = [np.linspace(low, high, _BINS + 1) for low, high in limits]
    sides = [(edges[1:] + edges[:-1]) / 2 for edges in bins]
    volume = np.prod([edges[1] - edges[0] for edges in bins])
    density = np.histogramdd(draws, bins)[0].T / len(draws) / volume
    if len(chosen) == 1:
        _draw_curve(ax, sides[0], density, groups)
    else:
        _draw_image(ax, sides, density, None, True)
        _draw_points(ax, groups, on_colour=True)
        set_limits(ax, limits)
        ax.set_ylabel(labels[chosen[1]])
    ax.set_xlabel(labels[chosen[0]])
    return ax


def _drawn(dist, samples, key, condition):
    if np.ndim(samples) > 0 or not isinstance(samples, int | np.integer):
        return samples
    if key is None:
        raise ValueError(f"plot_density needs a key to draw {samples} samples: pass key=jax.random.key(0).")
    return dist.sample(key, int(samples), condition)


def _draw_curve(ax, x, density, groups):
    for name, rows in groups.items():
        values = rows[np.isfinite(rows)]
        edges = np.histogram_bin_edges(values, "auto", range=(x[0], x[-1]))
        heights = np.histogram(values, edges)[0] / np.diff(edges) / max(len(values), 1)
        if name == "data":
            ax.stairs(heights, edges, fill=True, color="0.8", label=name)
        else:
            ax.stairs(heights, edges, color="tab:orange", linewidth=1.4, label=name)
    ax.plot(x, density, color="tab:blue", linewidth=1.8, label="density")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(bottom=0)
    if groups:
        ax.legend(frameon=False)


def _draw_image(ax, sides, density, levels, filled):
    if levels is not None:
        (ax.contourf if filled else ax.contour)(*sides, density, levels=levels, cmap="viridis", zorder=0)
        return
    # An image's limits are the outer edges of its pixels, the density is that at their centres.
    half = [(side[1] - side[0]) / 2 for side in sides]
    extent = [end for side, h in zip(sides, half, strict=True) for end in (side[0] - h, side[-1] + h)]
    ax.imshow(density, extent=extent, origin="lower", cmap="viridis", vmin=0, aspect="auto", zorder=0)


def _draw_points(ax, groups, on_colour):
    colours = {"data": "white" if on_colour else "0.35", "samples": "#ff4d6d"}
    for name, rows in groups.items():
        size = float(np.clip(3000 / max(len(rows), 1), 1.5, 12))
        ax.scatter(*rows.T, s=size, color=colours[name], alpha=0.7, linewidths=0, label=name)
    if len(groups) > 1:
        ax.legend(loc="upper right", markerscale=2, facecolor="0.3" if on_colour else "white", labelcolor="linecolor")
