"""Rotations of a circle."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._interval import Interval, checked_interval, within
from flowlib.constraints import Parameter
from flowlib.support import Circle, Support


class CircularShift(AbstractBijection):
    """y = lower + (x + shift - lower) mod (upper - lower), elementwise on a circle cut open at `lower`.

    The log-det is 0 and both directions are O(size). It starts as the identity, with shift 0. Before a circular
    `RationalQuadraticSpline`, in a `Chain`, it moves the point that the spline keeps, the cut, to anywhere: such
    transformers make flows on circles and tori, beside other transformers for real columns.

    Args:
        interval: (lower, upper), the two ends being one point, or one number b for (-b, b).
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if the ends are not finite or out of order.

    References:
        Rezende et al. 2020, Normalizing flows on tori and spheres, section 2.1 (arXiv:2002.02428).
    """

    shift: Parameter
    interval: Interval = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, interval: float | tuple[float, float], shape: tuple[int, ...] = ()):
        self.interval = checked_interval(interval, "CircularShift")
        self.shape = as_shape(shape)
        self.shift = jnp.zeros(self.shape)

    @property
    def domain(self) -> Support:
        return Circle(*self.interval)

    @property
    def codomain(self) -> Support:
        return self.domain

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._turned(x, self.shift), self._no_stretch(x)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._turned(y, -self.shift), self._no_stretch(y)

    def _turned(self, x, shift):
        lower, upper = self.interval
        width = upper - lower
        # Part of one turn, so that a shift of 0 moves neither end.
        shift = shift - width * jax.lax.stop_gradient(jnp.floor(shift / width))
        turned = x + shift
        return within(jnp.where(turned > upper, turned - width, turned), self.interval)

    def _no_stretch(self, x):
        # Of a scalar in lanes, each lane's own.
        return jnp.zeros_like(x) if self.shape == () else jnp.zeros((), x.dtype)
