"""From the reals onto a sphere without a point."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Sphere, Support


class Stereographic(AbstractBijection):
    """y = (2 x, |x|^2 - 1) / (|x|^2 + 1), onto the unit sphere in dim + 1 dimensions without its pole (0, ..., 0, 1).

    The inverse projects from that pole: x = (y_1, ..., y_dim) / (1 - y_(dim+1)). Densities on the sphere are by
    area: the log-det is half log det(J^T J) = dim log(2 / (|x|^2 + 1)), for the map stretches alike in all directions.
    Both directions O(dim).

    Args:
        dim: the dimension of x and of the sphere; 1 for a circle in the plane, 2 for directions in space.

    Raises:
        ValueError: if `dim` is not positive.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int):
        self.shape = (check_count(dim, "dim"),)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.shape[0] + 1,)

    @property
    def codomain(self) -> Support:
        return Sphere()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        square = x @ x
        stretch = 2 / (square + 1)
        last = (square - 1) / (square + 1)
        return jnp.concatenate([stretch * x, last[None]]), self.shape[0] * jnp.log(stretch)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        most, last = y[:-1], y[-1]
        # On the sphere 1 - y = |rest|^2 / (1 + y), which keeps its digits near the pole.
        upper = last > 0
        below_pole = jnp.where(upper, most @ most / jnp.where(upper, 1 + last, 1), 1 - last)
        return most / below_pole, -self.shape[0] * jnp.log(below_pole)
