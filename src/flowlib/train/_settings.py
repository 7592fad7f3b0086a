"""Which arguments of a fit a checkpoint is bound to: a decision about each, so that none can be forgotten."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

# Part of what the fit computes: another value is another fit.
BOUND = "bound"
# Part of it too, but told by what the fit finds in the data (see `FitPlan.settings`).
DATA = "data"
# What may be another one in the next run: how far the fit goes, what is returned of it, and what the host does.
FREE = "free"

_HOST = dict.fromkeys(
    (
        *("show_progress", "callbacks", "max_seconds", "max_steps"),
        *("checkpoint", "checkpoint_every", "checkpoint_keep", "checkpoint_errors"),
    ),
    FREE,
)

DECISIONS: Mapping[str, str] = MappingProxyType(
    {
        **_HOST,
        "key": BOUND,
        "dist": BOUND,
        "data": DATA,
        "loss_fn": BOUND,
        "learning_rate": BOUND,
        "optimizer": BOUND,
        "max_epochs": FREE,
        "max_patience": BOUND,
        "batch_size": BOUND,
        "val_prop": BOUND,
        "return_best": FREE,
        "weights": DATA,
        "val_data": DATA,
        "val_weights": DATA,
        "standardise": BOUND,
        "support": BOUND,
        "max_patience_steps": BOUND,
        "min_improvement": BOUND,
        "max_skipped": BOUND,
        "ema": BOUND,
        "steps_per_epoch": BOUND,
        # A fit may go on with other devices.
        "mesh": FREE,
    }
)


class Moments(NamedTuple):
    """Location and scale of the first rows of a stream, which may come in another order in each run."""

    rows: int
    means: list[float]
    scales: list[float]

    def unlike(self, saved: Any) -> str:
        """In what the two cannot be of the same data, or nothing."""
        rows, means, scales = saved
        chance = 8 / max(min(self.rows, rows), 1) ** 0.5
        for i, parts in enumerate(zip(self.means, means, self.scales, scales, strict=True)):
            now, then, scale, before = parts
            wide = max(scale, before)
            apart = abs(now - then) > max(1.0, chance) * wide
            if apart or (wide > 3 * min(scale, before) and min(self.rows, rows) > _ENOUGH):
                return f"column {i} of its first rows is {now:.4g} +- {scale:.4g} and was {then:.4g} +- {before:.4g}"
        return ""


# Of so many rows a scale says something.
_ENOUGH = 30


def moments_of(array: Any) -> Moments:
    """Of the columns of an array of rows."""
    rows = np.asarray(array, float).reshape(len(array), -1)
    # Numbers near the largest float have no moments, which tells them apart too.
    with np.errstate(over="ignore", invalid="ignore"):
        return Moments(len(rows), rows.mean(axis=0).tolist(), rows.std(axis=0).tolist())


# The names that messages have always used.
_SHOWN = {"dist": "distribution"}


def bound_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint is bound to, of all arguments of a fit, by the names that messages use.

    Raises:
        KeyError: for an argument about which nothing has been decided.
    """
    return {_SHOWN.get(name, name): value for name, value in arguments.items() if DECISIONS[name] == BOUND}
