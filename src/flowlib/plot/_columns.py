"""Columns by number or by name."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def column_names(data: Any, count: int, names: Sequence[str] | None = None) -> list[str]:
    """What each column is called: as given, as in a table, or by its number.

    Raises:
        ValueError: if there are not as many names as columns.
    """
    found = getattr(data, "columns", None) if names is None else names
    labels = [f"column {i}" for i in range(count)] if found is None else [str(name) for name in found]
    if len(labels) != count:
        raise ValueError(f"names expected one for each of {count} columns, got {len(labels)}.")
    return labels


def columns_of(columns: Iterable[int | str], labels: Sequence[str]) -> list[int]:
    """The numbers of columns that are given by number or name.

    Raises:
        ValueError: for a column that there is not, or none at all.
    """
    numbers = []
    for column in columns:
        if isinstance(column, str) and column in labels:
            numbers.append(labels.index(column))
        elif isinstance(column, int | np.integer) and -len(labels) <= column < len(labels):
            numbers.append(int(column) % len(labels))
        else:
            raise ValueError(f"columns expected numbers below {len(labels)} or names among {labels}, got {column!r}.")
    if not numbers:
        raise ValueError("columns expected at least one column, got none.")
    return numbers
