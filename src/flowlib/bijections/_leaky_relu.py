"""The leaky rectifier with a trained slope."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import as_shape, real_array
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter, positive


class LeakyRelu(AbstractBijection):
    """y = x where x >= 0 and y = a x elsewhere, elementwise on the reals, with a trained slope a > 0.

    log |dy/dx| = log a where x < 0, else 0 (at 0 too, where the slope jumps). Both directions O(size).

    The slope is kept positive by a softplus; replace the field `negative_slope` (`equinox.tree_at`) for another
    parameterisation, `flowlib.constraints.bounded_scale` for instance.

    Args:
        negative_slope: a, one for all elements or an array that broadcasts to `shape`. Defaults to 0.01.
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if the slope is not positive and finite, or does not broadcast to `shape`.

    References:
        He et al. 2015, arXiv:1502.01852, eq. 1.
    """

    negative_slope: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, negative_slope: ArrayLike = 0.01, shape: tuple[int, ...] = ()):
        self.shape = as_shape(shape)
        slope = real_array(negative_slope, "negative_slope")
        if not _broadcasts(slope.shape, self.shape):
            raise ValueError(
                f"LeakyRelu expected a negative_slope of a shape that broadcasts to {self.shape}, got {slope.shape}."
            )
        self.negative_slope = positive(slope, "negative_slope")

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return x * jnp.where(x < 0, self.negative_slope, 1), self._log_slope(x)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # Not a quotient of which one is selected: its derivative may overflow where it is not, which gives NaN.
        return y / jnp.where(y < 0, self.negative_slope, 1), -self._log_slope(y)

    def _log_slope(self, x):
        return jnp.where(x < 0, jnp.log(self.negative_slope), 0).sum()


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
