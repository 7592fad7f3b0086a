"""Sets of vectors whose coordinates belong together."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool

from flowlib.support._support import Support

# How far from the set data may be: as far as those written with four decimals, say, whatever the arithmetic. It is the
# square root of the precision of float32.
_NEAR = 2.0**-11.5


class AbstractVectorSupport(Support):
    """A set of whole vectors: one that lies outside is replaced whole."""

    @abstractmethod
    def inside(self, x: Array) -> Bool[Array, ""]:
        """Membership of the vector; NaN is never inside."""

    def guard(self, x):
        kept = self.inside(x) | jnp.isnan(x).any()
        return jnp.where(kept, x, self.anchor(x)), kept


class Simplex(AbstractVectorSupport):
    """Vectors of positive numbers whose sum is 1, to within what rounding each to four decimals may change it.

    That is 3.5e-4, or 5.1e-5 for each part where these are more than six. Zeros are members only if `closed`.
    """

    kind: ClassVar[str] = "simplex"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        least = 0 if self.closed else jnp.finfo(x.dtype).tiny
        return jnp.all(x >= least) & (jnp.abs(x.sum() - 1) <= max(_NEAR, 5.1e-5 * x.size))

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
    """Vectors of length 1, to within 3.5e-4: data are written with a few decimals.

    Without the pole (0, ..., 0, 1) unless `closed`: then also without its neighbours, whose distance has no square.
    """

    kind: ClassVar[str] = "sphere"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        info = jnp.finfo(x.dtype)
        square = x[:-1] @ x[:-1]
        # |x|^2 - 1 is twice |x| - 1.
        near = jnp.abs(square + x[-1] * x[-1] - 1) <= 2 * _NEAR
        return near & ((x[-1] <= 0) | (square >= info.tiny)) if not self.closed else near

    def anchor(self, x):
        return jnp.zeros_like(x).at[-1].set(-1)

    def draw(self, key, shape, dtype=None):
        normal = jr.normal(key, shape, dtype)
        return normal / jnp.linalg.norm(normal)
