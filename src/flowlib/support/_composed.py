"""Sets made of other sets."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from flowlib.support._sets import Integers
from flowlib.support._support import Support


class Subset(Support):
    """An unknown part of `within`: the image of a set under a map that does not fill its codomain.

    `contains` is a necessary condition only.
    """

    kind: ClassVar[str] = "unknown"
    within: Support

    @property
    def has_circles(self) -> bool:
        return self.within.has_circles

    def in_range(self, x):
        return self.within.in_range(x)

    def inside(self, x):
        return self.within.inside(x)

    def anchor(self, x):
        return self.within.anchor(x)

    def draw(self, key, shape, dtype=None):
        return self.within.draw(key, shape, dtype)


class OneTurn(Support):
    """The finite numbers whose positions on circles are in the turn of those of `like`: what is known of a union.

    All sets of the union have the same circles.
    """

    kind: ClassVar[str] = "unknown"
    like: Support

    @property
    def has_circles(self) -> bool:
        return self.like.has_circles

    def in_range(self, x):
        return self.like.in_range(x)

    def inside(self, x):
        return jnp.isfinite(x) & (self.like.in_range(x) == x)

    def anchor(self, x):
        return self.like.anchor(x)

    def draw(self, key, shape, dtype=None):
        return self.like.draw(key, shape, dtype)


class Between(Support):
    """What of `within`, a set for each coordinate, lies between the ends, which are members and may be infinite."""

    kind: ClassVar[str] = "unknown"
    within: Support
    lower: Array
    upper: Array

    @property
    def has_circles(self) -> bool:
        return self.within.has_circles

    def in_range(self, x):
        return self.within.in_range(x)

    def inside(self, x):
        return self.within.inside(x) & (x >= self.lower.astype(x.dtype)) & (x <= self.upper.astype(x.dtype))

    def anchor(self, x):
        return self._clip(jnp.broadcast_to(self.within.anchor(x), x.shape))

    def draw(self, key, shape, dtype=None):
        return self._clip(self.within.draw(key, shape, dtype))

    def _clip(self, x):
        return jnp.clip(x, self.lower.astype(x.dtype), self.upper.astype(x.dtype))


class Whole(Support):
    """Events with whole numbers in some columns, the last axis, whose cells [n, n + 1) meet `cells`.

    `columns` has one entry for all, or one for each column. Where there are `values`, the numbers are among these.
    """

    kind: ClassVar[str] = "integers"
    cells: Support
    columns: tuple[bool, ...] = eqx.field(static=True)
    values: Integers | None = None

    def middle(self, x: Array) -> Array:
        """The middle of the cell of x: of whole numbers n, n + 1/2."""
        return x + np.where(self.mask, 0.5, 0.0).astype(x.dtype)

    @property
    def has_circles(self) -> bool:
        return self.cells.has_circles and not self.mask.all()

    def in_range(self, x):
        return jnp.where(self.mask, x, self.cells.in_range(x)) if self.has_circles else x

    @property
    def mask(self) -> np.ndarray:
        """The columns with whole numbers, of shape () or (columns,)."""
        return np.asarray(self.columns[0] if len(self.columns) == 1 else self.columns)

    def inside(self, x):
        whole = (x == jnp.floor(x)) | ~self.mask
        if self.values is not None:
            return whole & (self.values.inside(x) | ~self.mask)
        # A cell may lie inside where its first point, an end, does not; or a part of it.
        first, last = (jnp.where(self.mask, x + place, x) for place in (1e-3, 1 - 1e-3))
        return whole & (self.cells.inside(first) | self.cells.inside(last))

    def anchor(self, x):
        anchor = self._floor(jnp.broadcast_to(self.cells.anchor(x), x.shape))
        return anchor if self.values is None else jnp.where(self.mask, self.values.anchor(x), anchor)

    def draw(self, key, shape, dtype=None):
        x = self._floor(self.cells.draw(key, shape, dtype))
        return x if self.values is None else jnp.where(self.mask, self.values.draw(key, shape, x.dtype), x)

    def _floor(self, x):
        return jnp.where(self.mask, jnp.floor(x), x)


class Joined(Support):
    """Unlike supports side by side: `supports[i]` holds for the i-th block along `axis`.

    `sizes` gives the lengths of the blocks; a size of None marks a block of length one whose axis
    the part itself does not have (`Stack` rather than `Concatenate`).
    """

    kind: ClassVar[str] = "joined"
    supports: tuple[Support, ...]
    sizes: tuple[int | None, ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    @property
    def has_circles(self) -> bool:
        return any(support.has_circles for support in self.supports)

    def in_range(self, x):
        return self._join([support.in_range(block) for support, block in self._blocks(x)]) if self.has_circles else x

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

    @property
    def has_circles(self) -> bool:
        return self.part.has_circles

    def in_range(self, x):
        return self.part.in_range(x.reshape(self.part_shape)).reshape(x.shape)

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

    @property
    def has_circles(self) -> bool:
        return self.part.has_circles

    def in_range(self, x):
        here = self.part.in_range(x.reshape(-1)[self.indices])
        return x.reshape(-1).at[self.indices].set(here).reshape(x.shape)

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

    @property
    def has_circles(self) -> bool:
        return self.part.has_circles

    def in_range(self, x):
        return jax.vmap(self.part.in_range)(x)

    def inside(self, x):
        return jax.vmap(self.part.inside)(x)

    def anchor(self, x):
        return jax.vmap(self.part.anchor)(x)

    def draw(self, key, shape, dtype=None):
        return jax.vmap(lambda k: self.part.draw(k, shape[1:], dtype))(jr.split(key, shape[0]))
