"""Columns whose values repeat: one value in many rows, or numbers rounded to a step. NumPy on the host."""

import math
from typing import Any, NamedTuple

import numpy as np

from flowlib._array_name import ArrayName, position
from flowlib._warn import warn_user
from flowlib.errors import DataWarning
from flowlib.train._data_checks import listed

# Numbers that are looked at: of larger data some rows, and of very many columns some.
_LOOKED_AT = 2_000_000
_MOST_COLUMNS = 512
_FEWEST_ROWS, _MOST_ROWS = 20, 100_000
# A value is a column's own, and no accident, where it has this share of the rows, and so many times those of another.
_SHARE, _TIMES = 0.05, 10
# A step is told from the rounding of floats, to which values may have been cast, where it is so many times longer.
_LONGER = 100


class Repeats(NamedTuple):
    """What repeats in a column, and the share of the rows that have it: a value, or all multiples of a step."""

    share: float
    value: float | None = None
    step: float | None = None
    whole: bool = False


def check_repeats(x: Any, whole: np.ndarray | bool = False, name: ArrayName | str = "x") -> None:
    """Warn, once for each kind, of columns that have a value in many rows, are rounded, or hold whole numbers.

    A flow puts ever higher spikes on what repeats, and its likelihood grows without bound. Columns that are `whole`
    have probabilities, and are passed over.
    """
    x = np.asarray(x)
    event, columns = x.shape[1:], x.reshape(len(x), -1)
    whole = np.broadcast_to(whole, event).ravel()
    chosen = np.flatnonzero(~whole)
    if len(columns) < _FEWEST_ROWS or not len(chosen):
        return
    chosen = chosen[:: -(-len(chosen) // _MOST_COLUMNS)]
    rows = min(len(columns), _MOST_ROWS, max(_LOOKED_AT // len(chosen), 1000))
    some = columns[:: -(-len(columns) // rows)]
    found = {position(j, event, name): repeats_in(some[:, j]) for j in chosen.tolist()}

    def told(kind, what):
        """The columns of a kind, each with what is said of it."""
        chosen = [f"{place} ({what.format(**r._asdict())})" for place, r in found.items() if r is not None and kind(r)]
        return listed(chosen, "column", "; ") if chosen else ""

    spikes = "The likelihood grows without bound as a density gets spikes there:"
    if places := told(lambda r: r.value is not None, "{value:.7g} in {share:.0%} of rows"):
        warn_user(
            f"{name} has one value in many rows, in {places}, counted from zero. {spikes} fit the other rows alone, "
            f"with the share of that value beside, or add noise to it.",
            DataWarning,
        )
    if places := told(lambda r: r.whole, "{share:.0%} of rows tied"):
        warn_user(
            f'{name} has whole numbers in {places}, counted from zero. {spikes} say support="integer" for these '
            f"columns, or put a Dequantized around the flow.",
            DataWarning,
        )
    if places := told(
        lambda r: r.step is not None and not r.whole,
        "steps of {step:.6g}, {share:.0%} of rows tied",
    ):
        warn_user(
            f"{name} is rounded in {places}, counted from zero. {spikes} add uniform noise as wide as the step, "
            f'rng.uniform(-step / 2, step / 2), or count in steps, with support="integer".',
            DataWarning,
        )


def repeats_in(column: np.ndarray) -> Repeats | None:
    """What repeats in a column that is not constant; None if nothing does beyond chance."""
    values, counts = np.unique(column, return_counts=True)
    n = len(column)
    if len(values) < 2 or len(values) == n:
        return None
    most = int(counts.argmax())
    # Of whole numbers one value is often most frequent; what counts is whether the others repeat.
    others, rest = np.delete(counts, most), n - int(counts[most])
    if rest >= _FEWEST_ROWS and 2 * len(others) <= rest:
        step = _step(values)
        if step is not None:
            shared = float(counts[counts > 1].sum() / n)
            return Repeats(shared, step=step, whole=step == 1 and _is_whole(values))
    if counts[most] < max(_SHARE * n, _TIMES * np.median(others)) and 2 * rest >= n:
        return None
    if _is_whole(values):
        return Repeats(float(counts[counts > 1].sum() / n), step=1.0, whole=True)
    return Repeats(float(counts[most] / n), value=float(values[most]))


def _step(values: np.ndarray) -> float | None:
    """The greatest number of which all differences between sorted values are multiples, if it is no rounding error."""
    values = values.astype(np.float64)
    # Decimal numbers may have been floats of 32 bits on the way.
    slack = 4 * float(np.finfo(np.float32).eps) * float(abs(values).max())
    differences = np.diff(values)
    differences = differences[differences > slack]
    if not len(differences):
        return None
    step = float(differences.min())
    while step > _LONGER * slack:
        left = abs(differences - step * np.round(differences / step))
        if left.max() <= slack:
            # All of them say how long it is: a mean over many.
            return _rounded(float(differences.sum() / np.round(differences / step).sum()))
        step = float(left[left > slack].min())
    return None


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.round(values)).all())


def _rounded(step: float) -> float:
    digits = 5 - math.floor(math.log10(step))
    return float(round(step, digits))
