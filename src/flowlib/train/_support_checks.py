"""Rows that are not in the support of a flow, named by column."""

from typing import Any

import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._box import is_real
from flowlib.support import Box
from flowlib.train._data_checks import listed, numbers_in, portions


def check_inside(
    box: Box, x: Any, dtype: np.dtype, name: str | ArrayName = "x", whole: np.ndarray | None = None
) -> None:
    """Raise a ValueError that names the first column with values outside the box; on circles all are inside.

    Of the `whole` columns, x has the middles of the cells of whole numbers.
    """
    if is_real(box):
        return
    x = np.asarray(x)
    least, greatest = box.extremes(dtype)
    lower, upper, circular = box.columns(dtype)
    free = np.finfo(dtype).max
    ends = np.where(circular, -free, least), np.where(circular, free, greatest)
    least, greatest = (np.broadcast_to(end, x.shape[1:]).ravel() for end in ends)

    def outside(columns, j):
        with np.errstate(over="ignore"):
            values = columns.astype(dtype)
        return ~((values >= least[j]) & (values <= greatest[j]))

    flat = x.reshape(len(x), -1)
    bad = np.zeros(flat.shape[1], bool)
    for portion in portions(flat):
        bad |= outside(flat[portion], slice(None)).any(axis=0)
    if not bad.any():
        return
    j = int(bad.argmax())
    rows = np.flatnonzero(outside(flat[:, j], j))
    low, high = (float(np.broadcast_to(end, x.shape[1:]).ravel()[j]) for end in (lower, upper))
    value, wanted = float(flat[rows[0], j].astype(dtype)), numbers_in(low, high)
    if whole is not None and np.broadcast_to(whole, x.shape[1:]).ravel()[j]:
        value, wanted = value - 0.5, f"whole {numbers_in(low, high - 1, 'from', 'to')}"
    column = f"column {position(j, x.shape[1:], name)}" if x.ndim > 1 else ""
    within, at = (f" in {column}", f", {column}") if column else ("", "")
    # Subnormal numbers count as 0.
    at_end = value in (low, high) or low < value < high
    hint = " The ends have no density: add a little noise, or choose wider ends." if at_end else ""
    raise ValueError(
        f"{name} expected {wanted}{within}, got {value:.7g} at row {rows[0]}{at} "
        f"(counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}.{hint}"
    )
