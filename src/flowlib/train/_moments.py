"""Location and scale of each column of data, in NumPy with sums in float64."""

from collections.abc import Callable

import numpy as np

from flowlib.train._data_checks import portions


def as_float64(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def moments(
    x: np.ndarray,
    weights: np.ndarray | None,
    dtype: np.dtype,
    unconstrain: Callable[[np.ndarray], np.ndarray] = as_float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and population standard deviation of each column; 1 for what is constant within rounding."""

    def parts():
        for portion in portions(x):
            rows = x[portion]
            counts = np.ones(len(rows)) if weights is None else weights[portion] / weights.max()
            yield unconstrain(rows if counts.all() else rows[counts > 0]), counts[counts > 0]

    least, most = np.full(x.shape[1:], np.inf), np.full(x.shape[1:], -np.inf)
    for values, _ in parts():
        least, most = np.minimum(least, values.min(0, initial=np.inf)), np.maximum(most, values.max(0, initial=-np.inf))
    # Counted from the middle in half ranges, nothing over- or underflows.
    middle, half = least / 2 + most / 2, most / 2 - least / 2
    half = np.where(half > 0, half, 1)
    total, mean, squares = 0.0, np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    for values, counts in parts():
        values -= middle
        values /= half
        weight = counts.sum()
        if weight == 0:
            continue
        # Means and squares of two sets of rows joined (Chan et al. 1979).
        own = np.tensordot(counts, values, 1) / weight
        values -= own
        shift = own - mean
        squares += np.tensordot(counts, np.square(values, out=values), 1)
        squares += shift**2 * (total * weight / (total + weight))
        mean, total = mean + shift * (weight / (total + weight)), total + weight
    location, scale = middle + half * mean, half * np.sqrt(squares / total)
    info = np.finfo(dtype)
    varies = (scale >= info.tiny) & (scale > info.eps * abs(location))
    return np.asarray(location, dtype), np.asarray(np.where(varies, scale, 1), dtype)
