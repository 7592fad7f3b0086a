"""The uniform distribution on a sphere."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._statistics import AbstractMoments
from flowlib.support import Sphere, Support


class UniformSphere(AbstractBatchSampler, AbstractMoments):
    """Vectors of length 1 in all directions alike: log p(x) = log Gamma(dim/2) - log 2 - dim log(pi)/2.

    That is minus the logarithm of the area of the unit sphere in `dim` dimensions: a density by area, as that of
    `Stereographic`, of which `Invert` takes it to the reals. In the plane, where the sphere is a circle, directions
    can be written as angles too: see `UniformCircle`. Has mean, variance and entropy in closed form.

    Args:
        dim: the number of coordinates, at least 2.

    Raises:
        ValueError: if there are fewer.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int):
        self.shape = (check_count(dim, "dim", 2),)

    @property
    def support(self) -> Support:
        return Sphere(closed=True)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return jnp.asarray(-self._entropy(), x.dtype)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        normal = jr.normal(key, (size, *self.shape))
        return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)

    def _mean(self) -> float:
        return 0.0

    def _variance(self) -> float:
        return 1 / self.shape[0]

    def _entropy(self) -> float:
        half = self.shape[0] / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)
