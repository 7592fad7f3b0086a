"""Elementwise affine maps: shift, scale, and both."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter, broadcast, finite, positive


class Affine(AbstractBijection):
    """y = loc + scale x, elementwise on the reals; log |det dy/dx| = sum log scale. Both directions O(size).

    The scale is kept positive by a softplus; replace the field `scale` (`equinox.tree_at`) for
    another parameterisation.

    Args:
        loc: location. Defaults to 0.
        scale: positive scale, broadcast with `loc`. Defaults to 1.

    Raises:
        ValueError: if the scale is not positive, a value is not finite, or they do not broadcast.
    """

    loc: Parameter
    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, loc: ArrayLike = 0, scale: ArrayLike = 1):
        loc, scale = broadcast(finite(loc, "loc"), finite(scale, "scale"))
        self.loc = loc
        self.scale = positive(scale, "scale")
        self.shape = loc.shape

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self.loc + self.scale * x, self._log_scale()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return (y - self.loc) / self.scale, -self._log_scale()

    def _log_scale(self):
        # The absolute value because the field may have been replaced by an unconstrained array.
        return jnp.log(jnp.abs(jnp.broadcast_to(self.scale, self.shape))).sum()


class Loc(AbstractBijection):
    """y = x + loc, elementwise on the reals; the log-det is 0. Both directions O(size).

    Args:
        loc: the shift.

    Raises:
        ValueError: if a value is not finite.
    """

    loc: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, loc: ArrayLike):
        loc = finite(loc, "loc")
        self.loc = loc
        self.shape = loc.shape

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return x + self.loc, 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return y - self.loc, 0.0


class Scale(AbstractBijection):
    """y = scale x, elementwise on the reals; log |det dy/dx| = sum log scale. Both directions O(size).

    Args:
        scale: positive scale.

    Raises:
        ValueError: if it is not positive and finite.
    """

    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, scale: ArrayLike):
        self.scale = positive(scale, "scale")
        self.shape = jnp.shape(scale)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self.scale * x, self._log_scale()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return y / self.scale, -self._log_scale()

    def _log_scale(self):
        return jnp.log(jnp.abs(jnp.broadcast_to(self.scale, self.shape))).sum()
