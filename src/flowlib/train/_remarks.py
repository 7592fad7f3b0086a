"""What a fit tells of its data before it begins."""

import math
from typing import Any

import jax

from flowlib._array_name import position
from flowlib._warn import warn_user
from flowlib.distributions import AbstractSampler, Dequantized, Mixture, Transformed, VmapMixture
from flowlib.errors import DataWarning
from flowlib.train._data_checks import check_columns
from flowlib.train._lost_digits import check_digits
from flowlib.train._outside_splines import outside_splines
from flowlib.train._repeated_values import check_repeats
from flowlib.train._rows import Looked
from flowlib.train._unit_checks import remark_raw_numbers
from flowlib.train._whole_numbers import whole_columns

# Of standardised normal values one in four hundred is beyond 3, of logistic ones (uniform ones on their support) nine
# in a thousand: no mistake.
_TOLERATED = 0.02


def remark(dist: Any, rows: Looked, *, as_it_is: bool = False) -> None:
    """Warn of columns that no density fits, or that lose their digits, and of rows where transformers are straight.

    Of a distribution that is fitted as it is, without units, warn too of rows that are far from it.
    """
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
    if as_it_is:
        remark_raw_numbers(dist, full, rows.names[0])
    found = outside_splines(dist, full[0])
    # With room for chance: a column that is no more often outside than this is not told from one that is.
    tolerated = 0 if found is None else _TOLERATED * found.total + 3 * math.sqrt(_TOLERATED * found.total)
    if found is not None and found.most > tolerated:
        lower, upper = found.bound
        units = dist.units if isinstance(dist, Transformed | Dequantized) else None
        remedy = "Standardise the data (standardise=True)" if units is None or units.is_unset else "Clip outliers"
        column = position(found.column, dist.shape, rows.names[0])
        warn_user(
            f"{found.most} of {found.total} values of column {column} (counted from zero) are met by the transformers "
            f"outside of their interval ({lower:g}, {upper:g}), where they are straight lines. {remedy}, widen the "
            f"interval (interval=), or take flowlib.flows.heavy_tailed_flow.",
            DataWarning,
        )


def _can_have_spikes(dist: AbstractSampler) -> bool:
    """Whether there is a flow or a mixture in a distribution: the plain families have one shape."""

    def is_flexible(node):
        return isinstance(node, Transformed | Mixture | VmapMixture)

    return any(map(is_flexible, jax.tree.leaves(dist, is_leaf=is_flexible)))
