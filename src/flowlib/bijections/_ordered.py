"""From the reals onto increasing vectors."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Increasing, Support


class Ordered(AbstractBijection):
    """y_1 = x_1 and y_i = y_(i-1) + exp(x_i), onto vectors that increase; log |det dy/dx| = x_2 + ... + x_dim.

    Both directions O(dim). Where the differences are far smaller than the coordinates, rounding of y loses them.

    Args:
        dim: the dimension of an event.

    Raises:
        ValueError: if `dim` is not positive.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int):
        self.shape = (check_count(dim, "dim"),)

    @property
    def codomain(self) -> Support:
        return Increasing()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jnp.cumsum(jnp.concatenate([x[:1], jnp.exp(x[1:])])), x[1:].sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        logs = jnp.log(y[1:] - y[:-1])
        return jnp.concatenate([y[:1], logs]), -logs.sum()
