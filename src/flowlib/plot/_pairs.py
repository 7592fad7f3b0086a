"""Pairs of columns of data beside those of draws."""

from collections.abc import Sequence
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.distributions import AbstractDistribution
from flowlib.plot._arguments import as_rows, check_condition, checked_dist
from flowlib.plot._axes import limits_of, require_matplotlib
from flowlib.plot._columns import column_names, columns_of

_DATA, _DRAWS = "0.45", "#d1495b"
# More columns than these are too small to see.
_MOST = 12


def plot_pairs(
    dist: AbstractDistribution,
    data: Any,
    *,
    key: PRNGKeyArray | None = None,
    condition: ArrayLike | None = None,
    columns: Sequence[int | str] | None = None,
    names: Sequence[str] | None = None,
    n: int = 1000,
    axes: Any = None,
) -> np.ndarray:
    """A square of panels, one for each pair of columns: data below and on the diagonal, draws of `dist` beside them.

    On the diagonal are the histograms of each column, of both; below it points of the data, above it points of the
    draws, as many of each, in the same limits. What a fit has missed is where a panel differs from its mirror image.

    Args:
        dist: a distribution of vectors.
        data: rows, an array or a table whose columns have names.
        key: a JAX PRNG key for the draws. Defaults to `jax.random.key(0)`.
        condition: one condition, of a conditional distribution.
        columns: which columns, by number or by name. Defaults to the first 12.
        names: names of all columns, for the labels. Default to those of the table.
        n: the most points of each kind.
        axes: where to draw, a square array of axes. Defaults to a new figure.

    Returns:
        The axes, an array with a row and a column for each column shown.

    Raises:
        ValueError: for events that are no vectors, rows of another shape, an unknown column, or too few axes.
        TypeError: if `dist` is not a distribution.
    """
    require_matplotlib()
    inner = checked_dist(dist, "plot_pairs")
    if len(inner.shape) != 1:
        raise ValueError(f"plot_pairs can draw events that are vectors, got events of shape {inner.shape}.")
    check_condition(inner, condition, "plot_pairs")
    labels = column_names(data, inner.shape[0], names)
    chosen = columns_of(range(min(inner.shape[0], _MOST)) if columns is None else columns, labels)
    n = check_count(n, "n")
    rows = as_rows(data, inner.shape, "data")
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:n]][:, chosen]
    key = jr.key(0) if key is None else key
    draws = as_rows(dist.sample(key, len(rows), condition), inner.shape, "draws")[:, chosen]
    grid = _square(axes, len(chosen))
    limits = [limits_of(np.concatenate([rows[:, [i]], draws[:, [i]]]))[0] for i in range(len(chosen))]
    size = float(np.clip(2000 / max(len(rows), 1), 1, 8))
    for i, row in enumerate(grid):
        for j, ax in enumerate(row):
            if i == j:
                _histograms(ax, rows[:, i], draws[:, i], limits[i])
            else:
                shown, colour = (rows, _DATA) if i > j else (draws, _DRAWS)
                ax.scatter(shown[:, j], shown[:, i], s=size, color=colour, alpha=0.6, linewidths=0)
                ax.set(xlim=limits[j], ylim=limits[i])
            ax.tick_params(labelbottom=i == len(chosen) - 1, labelleft=j == 0 and i > 0)
            ax.set_xlabel(labels[chosen[j]] if i == len(chosen) - 1 else "")
            ax.set_ylabel(labels[chosen[i]] if j == 0 else "")
    grid[0, 0].legend(frameon=False, fontsize="small")
    return grid


def _histograms(ax, rows, draws, limits):
    edges = np.histogram_bin_edges(rows, "auto", range=tuple(limits))
    for values, label in ((rows, "data"), (draws, "draws")):
        heights = np.histogram(values, edges)[0] / max(len(values), 1)
        style = {"fill": True, "color": "0.8"} if label == "data" else {"color": _DRAWS, "linewidth": 1.4}
        ax.stairs(heights, edges, label=label, **style)
    ax.set(xlim=limits, yticks=[])


def _square(axes, count):
    if axes is None:
        import matplotlib.pyplot as plt

        side = min(2.0, 12 / count) * count
        return plt.subplots(count, count, figsize=(side, side), layout="constrained", squeeze=False)[1]
    grid = np.asarray(axes, dtype=object)
    if grid.shape != (count, count):
        raise ValueError(f"axes expected an array of shape {(count, count)}, got {grid.shape}.")
    return grid
