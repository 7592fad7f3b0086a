"""What messages call an array that a user gave, and its columns."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ArrayName:
    """The name of an array, and of its columns if it came from a table that names them.

    Made once, when the array is read, and handed on with its rows. In an f-string it is the name alone.
    """

    name: str
    columns: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.name


def position(j: int, shape: tuple[int, ...], name: str | ArrayName = "") -> str:
    """The number of a column and its name, `3 ("price")`; the position of an element of an event with more axes."""
    if len(shape) > 1:
        return str(tuple(int(i) for i in np.unravel_index(j, shape)))
    columns = name.columns if isinstance(name, ArrayName) else None
    return f'{j} ("{columns[j]}")' if columns is not None and j < len(columns) else str(j)


def cell(index: tuple[int, ...], name: str | ArrayName = "") -> str:
    """Where an element of an array of rows is: `row 4, column 3 ("price")`."""
    row, *place = index
    if not place:
        return f"row {row}"
    return f"row {row}, column {position(place[0], (), name) if len(place) == 1 else tuple(place)}"
