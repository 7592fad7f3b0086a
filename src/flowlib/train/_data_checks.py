"""What often is a mistake in data, and how messages name rows and columns.

All of it is NumPy on the host: nothing is compiled, for whatever data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._warn import warn_user
from flowlib.errors import DataWarning

# Numbers that are worked on at a time: the copies in float64 stay small beside the data.
_PORTION = 1 << 22
# As many rows, columns or pairs are named in a message.
_NAMED = 5
_MOST_CORRELATED = 512
# Rows on which pairs of columns are looked for, how many pairs are then looked at in all rows, and how far from 1
# their correlation may be by rounding.
_SCREENED = 2000
_CONFIRMED = 100
_ROUNDING = 1e-9
_NAMES = ArrayName("x"), ArrayName("condition")


def check_columns(x: Any, condition: Any = None, names: Sequence[ArrayName] = _NAMES) -> None:
    """Warn, once for each, of what often is a mistake in data: see `DataWarning`.

    Of constant columns; of pairs of columns that determine each other (up to 512 columns; they leave
    a density that grows without bound); of a single row; of more columns than rows, beyond 1000 columns.
    """
    for message in _remarks(np.asarray(x), None if condition is None else np.asarray(condition), names):
        warn_user(message, DataWarning)


def _remarks(x: np.ndarray, condition: np.ndarray | None, names: Sequence[ArrayName]) -> Iterator[str]:
    rows, event, of = len(x), x.shape[1:], names[0]
    if rows == 1:
        yield "x has a single row, and one point determines no distribution."
        return
    columns = x.reshape(rows, -1)
    if columns.shape[1] > max(rows, 1000):
        yield f"x has {rows} rows and {columns.shape[1]} columns, more columns than rows: is it transposed?"
    constant = _is_constant(columns)
    if constant.any():
        places = listed([position(j, event, of) for j in np.flatnonzero(constant).tolist()], "column")
        yield f"x is constant in {places} (counted from zero): no density fits that. Leave them out."
    if condition is not None and (same := _is_constant(condition.reshape(rows, -1))).any():
        places = [position(j, condition.shape[1:], names[1]) for j in np.flatnonzero(same).tolist()]
        yield (
            f"condition is constant in {listed(places, 'column')} (counted from zero): nothing is learned of other "
            f"values."
        )
    if rows > 2 and columns.shape[1] <= _MOST_CORRELATED:
        pairs = _dependent_pairs(columns, np.flatnonzero(~constant))
        if pairs:
            places = [f"{position(i, event, of)} and {position(j, event, of)}" for i, j in pairs]
            yield (
                f"x has equal or perfectly correlated columns, {listed(places, 'pair', '; ')} (counted from zero). "
                f"Keep one of each pair."
            )


def portions(array: np.ndarray) -> Iterator[slice]:
    """Slices of the rows of an array, each of a few million numbers at most."""
    size = max(1, _PORTION // max(1, array[:1].size))
    return (slice(start, start + size) for start in range(0, len(array), size))


def listed(names: list[Any], kind: str, separator: str = ", ") -> str:
    """The first of the names, and how many more there are."""
    more = f"{separator}and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind}{'s' * (len(names) > 1)} {separator.join(map(str, names[:_NAMED]))}{more}"


def numbers_in(low: float, high: float, above: str = "above", below: str = "below") -> str:
    """What messages call the numbers between two ends, which may be infinite."""
    ends = [f"{above} {low:g}"] * (low != -np.inf) + [f"{below} {high:g}"] * (high != np.inf)
    if len(ends) == 2 and above == "above":
        return f"numbers between {low:g} and {high:g}"
    return " ".join(["numbers", *ends])


def _is_constant(columns: np.ndarray) -> np.ndarray:
    constant = np.ones(columns.shape[1], bool)
    for portion in portions(columns):
        constant &= (columns[portion] == columns[:1]).all(axis=0)
    return constant


def _dependent_pairs(columns: np.ndarray, varying: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of columns that are equal or perfectly correlated: found on some rows, made sure of on all."""
    step = max(1, len(columns) // _SCREENED)
    some = _unit(columns[::step, varying])
    near = np.argwhere(np.triu(abs(some.T @ some) > 1 - _ROUNDING, 1))
    pairs = []
    for i, j in varying[near[:_CONFIRMED]].tolist():
        a, b = _unit(columns[:, [i]]), _unit(columns[:, [j]])
        if abs((a * b).sum()) > 1 - _ROUNDING:
            pairs.append((i, j))
    return pairs


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns without their means, of length 1, or 0 if they are constant."""
    columns = columns.astype(np.float64)
    size = abs(columns).max(axis=0)
    columns = columns / np.where(size > 0, size, 1)
    columns -= columns.mean(axis=0)
    length = np.sqrt((columns**2).sum(axis=0))
    return columns / np.where(length > 0, length, 1)
