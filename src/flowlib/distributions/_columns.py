"""The choice of some columns of an event."""

from collections.abc import Sequence

import numpy as np


def checked_columns(columns: Sequence[bool] | None, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """A boolean for each column, the last axis; a single one where all are the same, as they are by default.

    Raises:
        ValueError: if there are not as many as columns.
    """
    if columns is None:
        return (True,)
    given = tuple(bool(column) for column in columns)
    if not shape or len(given) != shape[-1]:
        raise ValueError(f"columns expected a boolean for each column of events of {shape}, got {given}.")
    return given[:1] if len(set(given)) == 1 else given


def chosen(columns: tuple[bool, ...]) -> np.ndarray:
    """The columns as a mask of shape () or (columns,)."""
    return np.asarray(columns[0] if len(columns) == 1 else columns)
