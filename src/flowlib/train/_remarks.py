"""What a fit tells of its data before it begins."""

from typing import Any

from flowlib._warn import warn_user
from flowlib.distributions import AbstractSampler, Dequantized
from flowlib.errors import DataWarning
from flowlib.train._data_checks import check_columns
from flowlib.train._outside_splines import outside_splines

# Of normal data about one row in a thousand is outside in a few columns, which is no mistake.
_TOLERATED = 0.01


def remark(dist: Any, arrays: tuple[Any, ...]) -> None:
    """Warn of columns that no density fits, and of rows where transformers are straight lines."""
    if not isinstance(dist, AbstractSampler) or arrays[0].shape[1:] != dist.shape:
        return
    if not (isinstance(dist, Dequantized) and all(dist.columns)):
        # Pixels that are always 0 are no mistake: a whole number has a probability, of 1 if need be.
        check_columns(*arrays[:2])
    found = outside_splines(dist, arrays[0])
    if found is not None and found.rows_outside > _TOLERATED * found.total:
        lower, upper = found.bound
        warn_user(
            f"{found.rows_outside} of {found.total} rows have a value that the transformers meet outside their "
            f"interval ({lower:g}, {upper:g}), where they are straight lines. Standardise the data, clip "
            f"outliers, or widen the interval.",
            DataWarning,
        )
