"""The bins of splines: their sizes, and the one in which a point lies."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib.bijections._interval import Interval, clipped, within


def check_min_width(min_width: float, bins: int, interval: Interval, where: str) -> float:
    """`min_width` as a float.

    Raises:
        ValueError: unless it is positive and bins of this width fit into the interval.
    """
    width = interval[1] - interval[0]
    if not 0 < min_width * bins < width:
        raise ValueError(
            f"{where} expected min_width in (0, {width / bins:.4g}) so that {bins} bins fit, got {min_width}."
        )
    return float(min_width)


def bin_sizes(logits: Float[Array, "bins *lanes"], interval: Interval, min_width: float) -> Array:
    """Widths or heights of bins, at least `min_width` each, that fill the interval."""
    lower, upper = interval
    spare = (upper - lower) - min_width * len(logits)
    exponentials = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=0)))
    # No product is added here: whether XLA rounds that once or twice may differ between the operations that
    # compute it again, and they must find the same bin.
    return min_width + exponentials / (exponentials.sum(axis=0) / spare)


class Bin(NamedTuple):
    """The bin in which a point lies: its start, width, bottom, height, end slopes, and perhaps height / width."""

    x0: Float[Array, "*lanes"]
    width: Float[Array, "*lanes"]
    y0: Float[Array, "*lanes"]
    height: Float[Array, "*lanes"]
    d0: Float[Array, "*lanes"]
    d1: Float[Array, "*lanes"]
    slope: Float[Array, "*lanes"] | None


def mean_slope(at: Bin) -> Float[Array, "*lanes"]:
    """Height / width."""
    return at.height / at.width if at.slope is None else at.slope


# Widths and heights of the bins, what there is at each knot, and the slope of each bin where it is known.
Table = tuple[
    Float[Array, "bins *#lanes"], Float[Array, "bins *#lanes"], Float[Array, "knots *#lanes"], Array | None
]  # fmt: skip


# With more bins than these, going through them one by one takes too long to compile.
_ONE_BY_ONE = 16


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def find_bin(x: Float[Array, "*lanes"], table: Table, lower: float, inverse: bool, products: bool = False) -> Bin:
    """The bin of x, or with `inverse` the one whose heights x lies between.

    `products` says that these sizes are products or sums of them: computed again for each entry of the bin and
    rounded otherwise, they could give entries of two bins.
    """
    if products or len(table[0]) > _ONE_BY_ONE:
        return _found_by_sums(x, table, lower, inverse)[0]
    return _found_one_by_one(x, table, lower, inverse)


@find_bin.defjvp
def _find_bin_jvp(lower, inverse, products, primals, tangents):
    # The tangents need the number of the bin, and the gradient what finds the tangents: then sums are the cheaper way.
    x, table = primals
    at, index = _found_by_sums(x, table, lower, inverse)
    return at, _entries(index, tangents[1])


def _found_one_by_one(x, table, lower, inverse):
    """Bin after bin, each replacing the last one where it is reached.

    Elementwise operations, which XLA fuses into one loop. A gather for each element is slow.
    """
    widths, heights, knots, slopes = table

    def entries(i, left, bottom):
        slope = None if slopes is None else slopes[i]
        return Bin(left, widths[i], bottom, heights[i], knots[i], knots[i + 1], slope)

    lanes = jnp.broadcast_shapes(x.shape, widths.shape[1:])
    left = bottom = jnp.asarray(lower, x.dtype)
    at = jax.tree.map(lambda value: jnp.broadcast_to(value, lanes), entries(0, left, bottom))
    for i in range(1, len(widths)):
        left, bottom = left + widths[i - 1], bottom + heights[i - 1]
        reached = x >= (bottom if inverse else left)
        at = jax.tree.map(partial(jnp.where, reached), entries(i, left, bottom), at)
    return at


def _found_by_sums(x, table, lower, inverse):
    """The bin and its number, the count of the bins before it."""
    widths, heights, _, _ = table
    index = (x >= lower + _sums_before(heights if inverse else widths)[1:]).sum(axis=0)
    at = _entries(index, table)
    return at._replace(x0=lower + at.x0, y0=lower + at.y0), index


def _entries(index, table):
    """What a table has in the bin of this number, which is linear in the table; x0 and y0 without the lower end."""
    widths, heights, knots, slopes = table
    bins = jnp.arange(len(widths), dtype=index.dtype).reshape(-1, *[1] * index.ndim)
    here = bins == index
    if index.ndim > 0 and widths.shape[1:] != index.shape:
        # One table for all lanes: a product, whose transpose XLA does not compute bin by bin as it would a sum.
        columns = (_sums_before(widths), widths, _sums_before(heights), heights, knots[:-1], knots[1:], slopes)
        columns = jnp.stack([column[:, 0] for column in columns])
        chosen = jnp.matmul(columns, here.astype(columns.dtype), precision="highest")
        return Bin(*(row[0] for row in jnp.split(chosen, len(columns))))

    def total(mask, values):
        return jnp.where(mask, values, 0).sum(axis=0)

    before = bins < index
    return Bin(
        total(before, widths), total(here, widths), total(before, heights), total(here, heights),
        total(here, knots[:-1]), total(here, knots[1:]), None if slopes is None else total(here, slopes),
    )  # fmt: skip


def _sums_before(values):
    return jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values, axis=0)[:-1]])


def apply_between_ends(
    step: Callable[[Array, Bin], tuple[Array, Array]],
    x: Array,
    table: Table,
    interval: Interval,
    *,
    inverse: bool,
    products: bool,
) -> tuple[Array, Array]:
    """`step` of the point and its bin inside the interval, and the identity outside; the value and the log slope."""
    inner = clipped(x, interval)
    y, log_slope = step(inner, find_bin(inner, table, interval[0], inverse, products))
    outside = x != inner
    return jnp.where(outside, x, within(y, interval)), jnp.where(outside, 0, log_slope)
