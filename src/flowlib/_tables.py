"""Tables of pandas, polars and Arrow, and NumPy's structured arrays, as arrays of numbers with names of columns.

None of these libraries is imported before a user gives one of its tables.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

# From the values of a column, and what messages call it, to real numbers in NumPy.
Reader = Callable[[Any, str], np.ndarray]


class Table(NamedTuple):
    """The numbers of a table, one dtype for all, the names of its columns, and the labels of its rows (of pandas).

    A single column (a `Series`) has its values on one axis, and no names.
    """

    values: np.ndarray
    columns: tuple[str, ...] | None
    index: Any = None


def read_table(value: Any, name: str, reader: Reader) -> Table | None:
    """What is in a table; None for what is no table.

    Raises:
        TypeError: for a column that does not hold real numbers, which it names.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.names is None:
            return None
        columns = list(_fields(value))
        return Table(_joined(columns, name, reader), tuple(column for column, _ in columns))
    read = _LIBRARIES.get(_library(value))
    return None if read is None else read(value, name, reader)


def row_labels(value: Any) -> Any:
    """The labels of the rows of a pandas table or column; None for anything else."""
    return getattr(value, "index", None) if _library(value) == "pandas" and hasattr(value, "iloc") else None


def check_same_rows(labels: Any, name: Any, other_labels: Any, other_name: Any) -> None:
    """Raise a ValueError if both have labels of rows, and they differ: the rows are of other records then."""
    if labels is None or other_labels is None or len(labels) != len(other_labels) or labels.equals(other_labels):
        return
    row = next(i for i, (one, other) in enumerate(zip(labels, other_labels, strict=True)) if one != other)
    raise ValueError(
        f"{other_name} has another index than {name}: in row {row} (counted from zero) {other_labels[row]} where "
        f"{name} has {labels[row]}. Bring them into one order ({other_name}.loc[{name}.index]), or give "
        f"{other_name}.to_numpy() if the rows belong together as they stand."
    )


def is_table(value: Any) -> bool:
    """Whether `value` is a table or a column of pandas, polars or Arrow."""
    return _library(value) in _LIBRARIES


def _library(value: Any) -> str:
    """The library of those known that the class of `value`, or a base class of it, is from."""
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in _LIBRARIES:
            return root
    return ""


def _joined(columns: list[tuple[str, Any]], name: str, reader: Reader) -> np.ndarray:
    if not columns:
        raise ValueError(f"{name} expected a table with columns, got none.")
    read = [reader(values, f'{name}, column {j} ("{column}"),') for j, (column, values) in enumerate(columns)]
    for j, (column, values) in enumerate(zip(columns, read, strict=True)):
        if values.shape != read[0].shape:
            raise TypeError(f'{name} expected one number a cell, got several in column {j} ("{column[0]}").')
    return np.stack(read, axis=-1)


def _fields(value: np.ndarray) -> Iterator[tuple[str, Any]]:
    assert value.dtype.names is not None
    for field in value.dtype.names:
        part = value[field]
        if part.ndim == value.ndim:
            yield field, part
            continue
        for place in np.ndindex(part.shape[value.ndim :]):
            yield f"{field}[{', '.join(map(str, place))}]", part[(..., *place)]


def _read_pandas(value: Any, name: str, reader: Reader) -> Table:
    index = row_labels(value)
    if not hasattr(value, "columns"):
        return Table(reader(_of_pandas(value), name), None, index)
    # A frame made of an array has numbers for names, which say nothing.
    names = None if list(value.columns) == list(range(value.shape[1])) else tuple(map(str, value.columns))
    kinds = set(value.dtypes)
    if len(kinds) == 1 and isinstance(kind := kinds.pop(), np.dtype) and kind.kind in "fiub":
        return Table(value.to_numpy(), names, index)
    columns = [(str(column), _of_pandas(value.iloc[:, j])) for j, column in enumerate(value.columns)]
    return Table(_joined(columns, name, reader), names, index)


def _of_pandas(column: Any) -> np.ndarray:
    if getattr(column.dtype, "kind", "O") in "fiub" and not isinstance(column.dtype, np.dtype):
        # With missing cells, whole numbers and booleans would become objects.
        if column.isna().any():
            return column.to_numpy(np.float64, na_value=np.nan)
        return column.to_numpy(getattr(column.dtype, "numpy_dtype", None))
    return np.asarray(column)


def _read_polars(value: Any, name: str, reader: Reader) -> Table:
    if hasattr(value, "collect"):
        raise TypeError(f"{name} expected rows, got a {type(value).__name__}: call its collect() first.")
    if not hasattr(value, "get_columns"):
        return Table(reader(_of_polars(value), name), None)
    columns = [(column.name, _of_polars(column)) for column in value.get_columns()]
    return Table(_joined(columns, name, reader), tuple(value.columns))


def _of_polars(column: Any) -> np.ndarray:
    import polars as pl

    is_number = column.dtype.is_numeric() or column.dtype == pl.Boolean
    if is_number and (column.null_count() or column.dtype.is_decimal()):
        column = column.cast(pl.Float64)
    return column.to_numpy()


def _read_arrow(value: Any, name: str, reader: Reader) -> Table:
    if not hasattr(value, "column_names"):
        return Table(reader(_of_arrow(value), name), None)
    columns = [(column, _of_arrow(value.column(j))) for j, column in enumerate(value.column_names)]
    return Table(_joined(columns, name, reader), tuple(value.column_names))


def _of_arrow(column: Any) -> np.ndarray:
    import pyarrow as pa

    kind, types = column.type, pa.types
    is_number = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    if types.is_decimal(kind) or (is_number and column.null_count):
        column = column.cast(pa.int8()).cast("double") if types.is_boolean(kind) else column.cast("double")
    return column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)


_LIBRARIES = {"pandas": _read_pandas, "polars": _read_polars, "pyarrow": _read_arrow}
