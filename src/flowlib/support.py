"""Supports: the set that a bijection maps from or to, or on which a density lives.

A support tests membership and draws test points. When things are composed only its `kind` is
compared, since the ends of an interval may be parameters; membership is tested at run time.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray


class Support(eqx.Module):
    """A set of points of one event."""

    # The family of sets it belongs to: what `fits` compares.
    kind: eqx.AbstractClassVar[str]

    @abstractmethod
    def inside(self, x: Array) -> Bool[Array, "..."]:
        """Membership of each part of the event; NaN is never inside."""

    @abstractmethod
    def anchor(self, x: Array) -> Array:
        """An unremarkable member, broadcastable to `x`."""

    @abstractmethod
    def draw(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Test points, spread over the set and away from its ends."""

    def contains(self, x: Array) -> Bool[Array, ""]:
        """Whether the event `x` lies in the set."""
        return jnp.all(self.inside(x))

    def guard(self, x: Array) -> tuple[Array, Bool[Array, ""]]:
        """`x` with its outsiders replaced by an anchor, and whether there were none.

        Replacing the input keeps infinities out of the computation and so out of the gradient of
        the whole batch. NaN is left alone and counts as inside: it must show in the result.
        """
        kept = self.inside(x) | jnp.isnan(x)
        return jnp.where(kept, x, self.anchor(x)), jnp.all(kept)


class Real(Support):
    """The finite real numbers, in each coordinate."""

    kind: ClassVar[str] = "real"

    def inside(self, x):
        return jnp.isfinite(x)

    def anchor(self, x):
        return jnp.zeros((), x.dtype)

    def draw(self, key, shape, dtype=None):
        return jr.normal(key, shape, dtype)


class Positive(Support):
    """The positive numbers, in each coordinate; zero too if `closed`.

    Numbers below the smallest normal one are not among them unless `closed`: processors take them for zero.
    """

    kind: ClassVar[str] = "positive"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        return jnp.isfinite(x) & (x >= (0 if self.closed else jnp.finfo(x.dtype).tiny))

    def anchor(self, x):
        return jnp.ones((), x.dtype)

    def draw(self, key, shape, dtype=None):
        return jnp.exp(jr.normal(key, shape, dtype))


class Interval(Support):
    """The interval from `lower` to `upper`, in each coordinate; its ends too if `closed`."""

    kind: ClassVar[str] = "interval"
    lower: Any
    upper: Any
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        lower, upper = self._ends(x.dtype)
        return (x >= lower) & (x <= upper) if self.closed else (x > lower) & (x < upper)

    def anchor(self, x):
        lower, upper = self._ends(x.dtype)
        return lower + (upper - lower) / 2

    def draw(self, key, shape, dtype=None):
        unit = jr.uniform(key, shape, dtype, minval=0.02, maxval=0.98)
        lower, upper = self._ends(unit.dtype)
        return lower + (upper - lower) * unit

    def _ends(self, dtype):
        return jnp.asarray(self.lower, dtype), jnp.asarray(self.upper, dtype)


class Circle(Support):
    """Positions on a circle cut open at `lower`, whose end `upper` is the same point; by default angles."""

    kind: ClassVar[str] = "circle"
    lower: float = eqx.field(default=-math.pi, static=True)
    upper: float = eqx.field(default=math.pi, static=True)

    def inside(self, x):
        # Both ends count, so that rounding cannot push a point off the circle.
        return (x >= jnp.asarray(self.lower, x.dtype)) & (x <= jnp.asarray(self.upper, x.dtype))

    def anchor(self, x):
        return jnp.asarray((self.lower + self.upper) / 2, x.dtype)

    def draw(self, key, shape, dtype=None):
        return Interval(self.lower, self.upper).draw(key, shape, dtype)


class Box(Support):
    """A set of its own for each column, the last axis: a line, half-line, open interval or circle, by its ends.

    Ends may be infinite. With one entry in each field, the set is the same for all coordinates, in every shape.
    """

    # Of any kind: `fits` cannot tell.
    kind: ClassVar[str] = "unknown"
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    # Where both ends are finite: whether they are one point, as in `Circle`, and so members.
    circular: tuple[bool, ...] = eqx.field(static=True)

    def extremes(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest member of each column in a floating dtype, of shape () or (columns,)."""
        info = jnp.finfo(dtype)
        tiny, most = np.asarray(info.tiny, dtype), np.asarray(info.max, dtype)
        lower, upper, circular = self.columns(dtype)
        least = np.where(circular, lower, np.nextafter(lower, most))
        greatest = np.where(circular, upper, np.nextafter(upper, -most))
        # Processors take subnormal numbers for 0.
        zero = np.zeros((), dtype)
        least = np.where(~circular & (abs(least) < tiny), np.where(lower < 0, zero, tiny), least)
        greatest = np.where(~circular & (abs(greatest) < tiny), np.where(upper > 0, zero, -tiny), greatest)
        return np.where(np.isfinite(lower), least, -most), np.where(np.isfinite(upper), greatest, most)

    def columns(self, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fields as arrays of shape () or (columns,), the ends rounded to a floating dtype."""
        with np.errstate(over="ignore"):
            arrays = [np.asarray(ends, np.float64).astype(dtype) for ends in (self.lower, self.upper)]
        arrays.append(np.asarray(self.circular))
        lower, upper, circular = (array[0] if len(array) == 1 else array for array in arrays)
        return np.asarray(lower), np.asarray(upper), np.asarray(circular)

    def inside(self, x):
        least, greatest = self.extremes(x.dtype)
        return (x >= least) & (x <= greatest)

    def anchor(self, x):
        least, greatest = self.extremes(np.float64)
        lower, upper, _ = self.columns(np.float64)
        with np.errstate(invalid="ignore"):
            above, below = lower + np.maximum(1, abs(lower)), upper - np.maximum(1, abs(upper))
            middle = np.where(np.isfinite(lower), lower / 2 + upper / 2, 0)
        anchor = np.where(
            np.isinf(upper), np.where(np.isinf(lower), 0, above), np.where(np.isinf(lower), below, middle)
        )
        least, greatest = self.extremes(x.dtype)
        return jnp.asarray(np.clip(anchor.astype(x.dtype), least, greatest))

    def draw(self, key, shape, dtype=None):
        wide = jr.normal(key, shape, dtype)
        lower, upper, _ = self.columns(wide.dtype)
        unit = 0.02 + 0.96 * jax.scipy.stats.norm.cdf(wide)
        line = np.isinf(lower) & np.isinf(upper)
        start, end = np.where(np.isinf(lower), 0, lower), np.where(np.isinf(upper), 0, upper)
        half = jnp.where(np.isinf(upper), start + jnp.exp(wide), end - jnp.exp(wide))
        between = start + (end - start) * unit
        return jnp.where(line, wide, jnp.where(np.isinf(lower) | np.isinf(upper), half, between))


class Subset(Support):
    """An unknown part of `within`: the image of a set under a map that does not fill its codomain.

    `contains` is a necessary condition only.
    """

    kind: ClassVar[str] = "unknown"
    within: Support

    def inside(self, x):
        return self.within.inside(x)

    def anchor(self, x):
        return self.within.anchor(x)

    def draw(self, key, shape, dtype=None):
        return self.within.draw(key, shape, dtype)


class Joined(Support):
    """Unlike supports side by side: `supports[i]` holds for the i-th block along `axis`.

    `sizes` gives the lengths of the blocks; a size of None marks a block of length one whose axis
    the part itself does not have (`Stack` rather than `Concatenate`).
    """

    kind: ClassVar[str] = "joined"
    supports: tuple[Support, ...]
    sizes: tuple[int | None, ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    def _blocks(self, x):
        start = 0
        for support, size in zip(self.supports, self.sizes, strict=True):
            if size is None:
                yield support, jax.lax.index_in_dim(x, start, self.axis, keepdims=False)
            else:
                yield support, jax.lax.slice_in_dim(x, start, start + size, axis=self.axis)
            start += 1 if size is None else size

    def _join(self, blocks):
        return jnp.stack(blocks, self.axis) if None in self.sizes else jnp.concatenate(blocks, self.axis)

    def inside(self, x):
        blocks = [jnp.broadcast_to(support.inside(block), block.shape) for support, block in self._blocks(x)]
        return self._join(blocks)

    def anchor(self, x):
        return self._join([jnp.broadcast_to(support.anchor(block), block.shape) for support, block in self._blocks(x)])

    def draw(self, key, shape, dtype=None):
        template = jnp.zeros(shape, dtype)
        keys = jr.split(key, len(self.supports))
        blocks = self._blocks(template)
        return self._join([s.draw(k, b.shape, dtype) for k, (s, b) in zip(keys, blocks, strict=True)])


class Reshaped(Support):
    """Events that lie in `part` once reshaped to `part_shape`."""

    kind: ClassVar[str] = "unknown"
    part: Support
    part_shape: tuple[int, ...] = eqx.field(static=True)

    def inside(self, x):
        x = x.reshape(self.part_shape)
        return jnp.broadcast_to(self.part.inside(x), x.shape).reshape(-1)

    def anchor(self, x):
        anchor = self.part.anchor(x.reshape(self.part_shape))
        return jnp.broadcast_to(anchor, self.part_shape).reshape(x.shape)

    def guard(self, x):
        safe, inside = self.part.guard(x.reshape(self.part_shape))
        return safe.reshape(x.shape), inside

    def draw(self, key, shape, dtype=None):
        return self.part.draw(key, self.part_shape, dtype).reshape(shape)


class Scattered(Support):
    """Events whose elements at the flat `indices` lie in `part`, and whose others are real."""

    kind: ClassVar[str] = "unknown"
    part: Support
    indices: Array

    def inside(self, x):
        here = x.reshape(-1)[self.indices]
        inside = jnp.isfinite(x).reshape(-1).at[self.indices].set(self.part.inside(here))
        return inside.reshape(x.shape)

    def anchor(self, x):
        here = x.reshape(-1)[self.indices]
        return jnp.zeros(x.size, x.dtype).at[self.indices].set(self.part.anchor(here)).reshape(x.shape)

    def draw(self, key, shape, dtype=None):
        x = jr.normal(key, shape, dtype).reshape(-1)
        return x.at[self.indices].set(self.part.draw(key, self.indices.shape, x.dtype)).reshape(shape)


class Repeated(Support):
    """Events whose every slice along the first axis lies in `part`."""

    kind: ClassVar[str] = "unknown"
    part: Support

    def inside(self, x):
        return jax.vmap(self.part.inside)(x)

    def anchor(self, x):
        return jax.vmap(self.part.anchor)(x)

    def draw(self, key, shape, dtype=None):
        return jax.vmap(lambda k: self.part.draw(k, shape[1:], dtype))(jr.split(key, shape[0]))


def is_elementwise(support: Support) -> bool:
    """Whether the set treats all coordinates alike, so that it means the same in every shape."""
    if isinstance(support, Interval):
        return jnp.ndim(support.lower) == 0 and jnp.ndim(support.upper) == 0
    if isinstance(support, Subset):
        return is_elementwise(support.within)
    if isinstance(support, Box):
        return len(support.lower) == 1
    return isinstance(support, Real | Positive | Circle)


def reshaped(support: Support, shape: tuple[int, ...]) -> Support:
    """`support` for events of another shape, of which `shape` is the one it knows."""
    return support if is_elementwise(support) else Reshaped(support, shape)


def join(supports: list[Support], sizes: list[int | None], axis: int) -> Support:
    """The support of parts side by side: the parts' own where they all have the same, else a `Joined`."""
    if all(eqx.tree_equal(support, supports[0]) is True for support in supports[1:]):
        return supports[0]
    return Joined(tuple(supports), tuple(sizes), axis)


# kind of a set -> kinds of the domains that can hold it.
_HOLDERS = {
    "real": {"real"},
    "positive": {"positive", "real"},
    "interval": {"interval", "positive", "circle", "real"},
    "circle": {"circle", "interval", "real"},
}


def fits(support: Support, domain: Support) -> bool:
    """Whether a set of the kind of `support` can lie inside a set of the kind of `domain`."""
    if "unknown" in (support.kind, domain.kind):
        return True
    if isinstance(support, Joined):
        others = domain.supports if isinstance(domain, Joined) else (domain,) * len(support.supports)
        same_layout = not isinstance(domain, Joined) or (support.sizes, support.axis) == (domain.sizes, domain.axis)
        return not same_layout or all(fits(part, other) for part, other in zip(support.supports, others, strict=True))
    if isinstance(domain, Joined):
        return all(fits(support, part) for part in domain.supports)
    return domain.kind in _HOLDERS.get(support.kind, {support.kind})


def fills(support: Support, domain: Support) -> bool:
    """Whether the two are surely the same set, so that the image of one is the image of the other."""
    return eqx.tree_equal(support, domain) is True


def image(support: Support, domain: Support, codomain: Support) -> Support:
    """Where a bijection from `domain` onto `codomain` takes the points of `support`."""
    return codomain if fills(support, domain) else Subset(codomain)
