"""Supports of columns that are told by their names."""

from collections.abc import Mapping
from typing import Any

from flowlib._array_name import ArrayName


def support_of_columns(support: Any, shape: tuple[int, ...], name: ArrayName | str = "x") -> Any:
    """A dict of supports by name, or number, of a column as a list with one for each; anything else as it is.

    Columns that are not in it are real.

    Raises:
        ValueError: if there is no such column, or the rows did not come with names.
    """
    if not isinstance(support, Mapping):
        return support
    if len(shape) != 1:
        raise ValueError(f"support expected one entry for events of shape {shape}, got a dict of columns.")
    names = name.columns if isinstance(name, ArrayName) else None
    columns: list[Any] = ["real"] * shape[0]
    for column, spec in support.items():
        columns[_number(column, names, shape[0])] = spec
    return columns


def _number(column: Any, names: tuple[str, ...] | None, count: int) -> int:
    if names is not None and column in names:
        if names.count(column) > 1:
            raise ValueError(f"support names {column!r}, but there are {names.count(column)} columns of that name.")
        return names.index(column)
    if isinstance(column, int) and not isinstance(column, bool) and 0 <= column < count:
        return column
    known = f"the columns of x, {list(names)}" if names is not None else f"numbers of columns below {count}"
    hint = "" if names is not None else ": names come with a table, such as a DataFrame, and x is none"
    raise ValueError(f"support expected {known}, got {column!r}{hint}.")
