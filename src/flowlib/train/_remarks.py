"""What a fit tells of its data before it begins."""

from typing import Any

import jax

from flowlib._warn import warn_user
from flowlib.distributions import AbstractSampler, Dequantized, Mixture, Transformed, VmapMixture
from flowlib.errors import DataWarning
from flowlib.train._data_checks import check_columns
from flowlib.train._data_units import outside_splines
from flowlib.train._lost_digits import check_digits
from flowlib.train._repeated_values import check_repeats
from flowlib.train._rows import Looked
from flowlib.train._whole_numbers import whole_columns

# Of normal data about one row in a thousand is outside in a few columns, which is no mistake.
_TOLERATED = 0.01


def remark(dist: Any, rows: Looked) -> None:
    """Warn of columns that no density fits, or that lose their digits, and of rows where transformers are straight."""
    if not isinstance(dist, AbstractSampler) or rows.arrays[0].shape[1:] != dist.shape:
        return
    rows = rows.counted()
    full = rows.full[:2]
    lost = [check_digits(*columns) for columns in zip(full, rows.arrays, rows.names, strict=False)]
    if not (isinstance(dist, Dequantized) and all(dist.columns)):
        # Pixels that are always 0 are no mistake: a whole number has a probability, of 1 if need be.
        check_columns(*full, names=rows.names)
    if _can_have_spikes(dist):
        check_repeats(full[0], whole_columns(dist) | lost[0], rows.names[0])
    found = outside_splines(dist, full[0])
    if found is not None and found.rows_outside > _TOLERATED * found.total:
        lower, upper = found.bound
        warn_user(
            f"{found.rows_outside} of {found.total} rows have a value that the transformers meet outside their "
            f"interval ({lower:g}, {upper:g}), where they are straight lines. Standardise the data, clip "
            f"outliers, or widen the interval.",
            DataWarning,
        )


def _can_have_spikes(dist: AbstractSampler) -> bool:
    """Whether there is a flow or a mixture in a distribution: the plain families have one shape."""

    def is_flexible(node):
        return isinstance(node, Transformed | Mixture | VmapMixture)

    return any(map(is_flexible, jax.tree.leaves(dist, is_leaf=is_flexible)))
