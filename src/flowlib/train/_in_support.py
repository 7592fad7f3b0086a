"""Rows to which a distribution gives no density: refused before a fit, by row and column."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from flowlib._array_name import ArrayName, cell
from flowlib._module import unwrap_own
from flowlib.distributions import AbstractDistribution, AbstractSampler
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
        # Ends that are members may have the density 0, or an infinite one.
        moved = _at_ends(support, np.asarray(x))
        inside = _finite_density(dist, x, np.any(moved.reshape(len(x), -1), axis=1))
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
    at_end = value.ndim == 0 and _at_ends(support, np.asarray(x))[index]
    hint = " An end has no finite density: leave such rows out, or add a little noise." if at_end else ""
    raise ValueError(
        f"{name} expected rows in the support{kind} of {type(dist).__name__}, got {got} at {cell(index, name)} "
        f"(counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}.{hint}"
    )


def _at_ends(support: Support, x: np.ndarray) -> np.ndarray:
    """Which numbers are ends of a support that has such."""
    if isinstance(support, Positive):
        return x == 0
    if isinstance(support, Interval):
        return (x == np.asarray(support.lower, x.dtype)) | (x == np.asarray(support.upper, x.dtype))
    return np.zeros(x.shape, bool)


def _finite_density(dist: AbstractSampler, x: Any, some: Any) -> np.ndarray:
    """Whether the density is neither 0 nor infinite, looked at in `some` of the rows, where that needs no condition."""
    found = np.ones(len(x), bool)
    if some.any() and isinstance(dist, AbstractDistribution) and dist.cond_shape is None:
        found[some] = ~np.isinf(np.asarray(dist.log_prob(np.asarray(x)[some])))
    return found


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
    is_nan, support = jnp.isnan(x), unwrap_own(dist).support
    x = jnp.where(is_nan, jnp.inf, jax.vmap(support.in_range)(x))
    safe, inside = jax.vmap(support.guard)(x)
    return inside | is_nan.any(axis=tuple(range(1, x.ndim))), safe != x
