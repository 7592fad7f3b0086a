"""The uniform distribution on circles, by angles."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import as_shape
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._statistics import AbstractEntropy
from flowlib.support import Circle, Support


class UniformCircle(AbstractBatchSampler, AbstractEntropy):
    """Independent angles, each anywhere alike: log p(x) = -log(2 pi) for each, on -pi <= x <= pi.

    Angles in other turns count as the same angles. The base of flows on circles and tori. `Uniform(-pi, pi)` has the
    same density on an interval with two ends. Has entropy in closed form.

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...] = ()):
        self.shape = as_shape(shape)

    @property
    def support(self) -> Support:
        return Circle()

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return jnp.asarray(-self._entropy(), x.dtype)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        return jr.uniform(key, (size, *self.shape), minval=-math.pi, maxval=math.pi)

    def _entropy(self) -> float:
        return math.prod(self.shape) * math.log(2 * math.pi)
