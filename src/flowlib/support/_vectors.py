"""Sets of vectors whose coordinates belong together."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool

from flowlib.support._support import Support


class AbstractVectorSupport(Support):
    """A set of whole vectors: one that lies outside is replaced whole."""

    @abstractmethod
    def inside(self, x: Array) -> Bool[Array, ""]:
        """Membership of the vector; NaN is never inside."""

    def guard(self, x):
        kept = self.inside(x) | jnp.isnan(x).any()
        return jnp.where(kept, x, self.anchor(x)), kept


class Simplex(AbstractVectorSupport):
    """Vectors of positive numbers whose sum is 1, to within the square root of the machine's precision."""

    kind: ClassVar[str] = "simplex"

    def inside(self, x):
        info = jnp.finfo(x.dtype)
        return jnp.all(x >= info.tiny) & (jnp.abs(x.sum() - 1) <= float(info.eps) ** 0.5)

    def anchor(self, x):
        return jnp.full(x.shape, 1 / x.size, x.dtype)

    def draw(self, key, shape, dtype=None):
        return jax.nn.softmax(jr.normal(key, shape, dtype))


class Increasing(AbstractVectorSupport):
    """Vectors of finite numbers, each above the one before; by a normal number at least, as in `Positive`."""

    kind: ClassVar[str] = "increasing"

    def inside(self, x):
        steps = x[1:] - x[:-1]
        return jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(steps) & (steps >= jnp.finfo(x.dtype).tiny))

    def anchor(self, x):
        return jnp.arange(x.size, dtype=x.dtype)

    def draw(self, key, shape, dtype=None):
        normal = jr.normal(key, shape, dtype)
        return jnp.cumsum(jnp.where(jnp.arange(normal.size, dtype=jnp.int32) > 0, jnp.exp(normal), normal))


class Sphere(AbstractVectorSupport):
    """Vectors of length 1, to within the square root of the machine's precision.

    Without the pole (0, ..., 0, 1) unless `closed`: then also without its neighbours, whose distance has no square.
    """

    kind: ClassVar[str] = "sphere"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        info = jnp.finfo(x.dtype)
        square = x[:-1] @ x[:-1]
        # |x|^2 - 1 is twice |x| - 1.
        near = jnp.abs(square + x[-1] * x[-1] - 1) <= 2 * float(info.eps) ** 0.5
        return near & ((x[-1] <= 0) | (square >= info.tiny)) if not self.closed else near

    def anchor(self, x):
        return jnp.zeros_like(x).at[-1].set(-1)

    def draw(self, key, shape, dtype=None):
        normal = jr.normal(key, shape, dtype)
        return normal / jnp.linalg.norm(normal)
