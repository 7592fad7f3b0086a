"""Rows to which a distribution gives no density: refused before a fit, by row and column."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from flowlib._array_name import ArrayName, cell
from flowlib._module import unwrap_own
from flowlib.distributions import AbstractSampler
from flowlib.support import Interval, Positive, Real, Subset, Support
from flowlib.train._data_checks import listed


def check_in_support(dist: Any, x: Any, name: ArrayName | str = "x") -> None:
    """Raise a ValueError that names the first row, and column, outside of the support of a distribution.

    Rows on circles count wherever the distribution takes them. NaN is left to others to find.
    """
    if not isinstance(dist, AbstractSampler) or x.shape[1:] != dist.shape:
        return
    support = unwrap_own(dist).support
    if _all_inside(support, np.asarray(x)):
        return
    inside, moved = map(np.asarray, _guarded(dist, jnp.asarray(x)))
    if inside.all():
        return
    rows = np.flatnonzero(~inside)
    row = int(rows[0])
    index: tuple[int, ...] = (row,)
    if dist.shape and jax.eval_shape(support.inside, x[0]).shape == dist.shape:
        index += tuple(np.argwhere(moved[row])[0].tolist())
    value = np.asarray(x)[index]
    got = f"{value:.7g}" if value.ndim == 0 else np.array2string(value, precision=6, threshold=8)
    kind = (support.within if isinstance(support, Subset) else support).kind
    kind = "" if kind == "unknown" else f" ({kind})"
    is_zero = value.ndim == 0 and value == 0
    hint = " A zero has no density there: leave such rows out, or add a little noise." if is_zero else ""
    raise ValueError(
        f"{name} expected rows in the support{kind} of {type(dist).__name__}, got {got} at {cell(index, name)} "
        f"(counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}.{hint}"
    )


def _all_inside(support: Support, x: np.ndarray) -> bool:
    """Whether all numbers are inside, of supports with plain ends; False where others must look."""
    if isinstance(support, Real):
        return True
    if isinstance(support, Positive):
        return bool((x >= np.finfo(x.dtype).tiny).all())
    if isinstance(support, Interval):
        lower, upper = (np.asarray(end, x.dtype) for end in (support.lower, support.upper))
        return bool(((x > lower) & (x < upper)).all())
    return False


@eqx.filter_jit
def _guarded(dist: AbstractSampler, x: Array) -> tuple[Bool[Array, " rows"], Bool[Array, "rows *event"]]:
    """Whether each row is inside, and which of its numbers are replaced in the density, if it is not."""
    is_nan = jnp.isnan(x)
    x = jnp.where(is_nan, jnp.inf, x)
    safe, inside = jax.vmap(unwrap_own(dist).support.guard)(x)
    return inside | is_nan.any(axis=tuple(range(1, x.ndim))), safe != x
