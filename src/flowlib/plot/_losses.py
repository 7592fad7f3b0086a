"""The losses of a fit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flowlib._arrays import check_count
from flowlib.plot._axes import axes_or_new

if TYPE_CHECKING:
    import matplotlib.axes

_COLOURS = {"train": "tab:blue", "val": "tab:orange"}


def plot_losses(
    losses: Any, *, window: int | None = None, ax: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """The losses of a fit over its epochs or steps.

    Args:
        losses: what a fit returned: its losses, or the whole pair. Those of `fit_to_data` are curves of the training
            and validation loss, with a dot at the lowest; of an ensemble, a curve for each member; those of a fit
            without epochs, the loss of each step with a running mean.
        window: steps in the running mean. Defaults to a fiftieth of all.
        ax: where to draw. Defaults to a new figure.

    Raises:
        TypeError: for what are no losses.
    """
    if isinstance(losses, tuple) and len(losses) == 2:
        losses = losses[1]
    members = [losses] if isinstance(losses, Mapping) else losses
    of_epochs = isinstance(members, Sequence) and len(members) > 0 and isinstance(members[0], Mapping)
    steps = None if of_epochs else _as_steps(losses)
    ax = axes_or_new(ax, 6, 3.8)
    if steps is None:
        _draw_epochs(ax, members)
    else:
        _draw_steps(ax, steps, max(1, len(steps) // 50) if window is None else check_count(window, "window"))
    ax.set(xlabel="epoch" if steps is None else "step", ylabel="loss")
    return ax


def _as_steps(losses):
    try:
        values = np.asarray(losses, float)
    except (TypeError, ValueError):
        values = None
    if values is None or values.ndim != 1:
        raise TypeError(f"plot_losses expected the losses that a fit returned, got {type(losses).__name__}.")
    return values


def _draw_epochs(ax, members):
    alpha = 1.0 if len(members) == 1 else 0.6
    for i, member in enumerate(members):
        for name, values in member.items():
            if not len(values):
                continue
            values = np.asarray(values, float)
            label = {"train": "training", "val": "validation"}.get(name, name) if i == 0 else None
            ax.plot(values, color=_COLOURS.get(name), alpha=alpha, linewidth=1.5, label=label)
        # The losses that "best" was judged by: those of the validation rows, if there were any.
        judged = np.asarray(member["val"] if member.get("val") else member.get("train", []), float)
        if np.isfinite(judged).any():
            best = int(np.nanargmin(judged))
            ax.plot(best, judged[best], "o", color=_COLOURS["val" if member.get("val") else "train"], markersize=5)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)


def _draw_steps(ax, values, window):
    if window == 1:
        ax.plot(values, color=_COLOURS["train"], linewidth=1.0)
        return
    ax.plot(values, color=_COLOURS["train"], linewidth=0.7, alpha=0.3, label="each step")
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    ax.plot(np.arange(window - 1, len(values)), means, color=_COLOURS["train"], linewidth=1.6,
            label=f"mean of {window} steps")  # fmt: skip
    ax.legend(frameon=False)
