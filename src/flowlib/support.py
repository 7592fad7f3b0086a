"""Supports: the set that a bijection maps from or to, or on which a density lives.

A support tests membership and draws test points. When things are composed only its `kind` is
compared, since the ends of an interval may be parameters; membership is tested at run time.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
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
    """The positive numbers, in each coordinate; zero too if `closed`."""

    kind: ClassVar[str] = "positive"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        return jnp.isfinite(x) & (x >= 0 if self.closed else x > 0)

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
    """Angles in [-pi, pi), in each coordinate."""

    kind: ClassVar[str] = "circle"

    def inside(self, x):
        # The upper end is the lower one again; it is kept so that rounding cannot push a point off the circle.
        return jnp.abs(x) <= jnp.asarray(jnp.pi, x.dtype)

    def anchor(self, x):
        return jnp.zeros((), x.dtype)

    def draw(self, key, shape, dtype=None):
        return jr.uniform(key, shape, dtype, minval=-3.1, maxval=3.1)


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
    if isinstance(support, Subset) or isinstance(domain, Subset):
        return True
    if isinstance(support, Joined):
        others = domain.supports if isinstance(domain, Joined) else (domain,) * len(support.supports)
        same_layout = not isinstance(domain, Joined) or (support.sizes, support.axis) == (domain.sizes, domain.axis)
        return not same_layout or all(map(fits, support.supports, others, strict=True))
    if isinstance(domain, Joined):
        return all(fits(support, part) for part in domain.supports)
    return domain.kind in _HOLDERS.get(support.kind, {support.kind})


def fills(support: Support, domain: Support) -> bool:
    """Whether the two are surely the same set, so that the image of one is the image of the other."""
    return eqx.tree_equal(support, domain) is True


def image(support: Support, domain: Support, codomain: Support) -> Support:
    """Where a bijection from `domain` onto `codomain` takes the points of `support`."""
    return codomain if fills(support, domain) else Subset(codomain)
