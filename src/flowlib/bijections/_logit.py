"""From an interval onto the real line, as pixels are prepared for a flow."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib._box import as_box, as_support, from_reals, to_reals
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Box, Support


class Logit(AbstractBijection):
    """y = log(p / (1 - p)) with p = alpha + (1 - 2 alpha) (x - low) / (high - low), elementwise onto the reals.

    log |dy/dx| = log((1 - 2 alpha) / (high - low)) - log p - log(1 - p). With alpha > 0 the ends low and high have
    finite images, and the domain, the open interval where 0 < p < 1, extends beyond them. Stands
    inverted at the data end of a flow of images. Both directions O(size).

    Args:
        shape: the shape of an event. Defaults to ().
        interval: (low, high), where the data lie: (0, 256) for pixels with uniform noise. Defaults to (0, 1).
        alpha: how far the data stay from the ends of p, in [0, 1/2); the paper has 0.05. Defaults to 0.

    Raises:
        ValueError: if the ends are not finite with low < high, or alpha is out of range.

    References:
        Dinh et al. 2017, arXiv:1605.08803, section 4.1.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    interval: tuple[float, float] = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...] = (), *, interval: tuple[float, float] = (0.0, 1.0), alpha: float = 0.0):
        low, high = (float(end) for end in interval)
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(f"Logit expected an interval with finite low < high, got ({low:g}, {high:g}).")
        if not 0 <= alpha < 0.5:
            raise ValueError(f"Logit expected alpha in [0, 1/2), got {alpha}.")
        self.shape = as_shape(shape)
        self.interval = (low, high)
        self.alpha = float(alpha)

    @property
    def domain(self) -> Support:
        return as_support(self._box)

    @property
    def _box(self) -> Box:
        """Where p is between 0 and 1: the map is the logit of the place in there."""
        low, high = self.interval
        margin = (high - low) * self.alpha / (1 - 2 * self.alpha)
        return as_box((low - margin, high + margin), self.shape)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        y, log_slope = to_reals(self._box, x, None, jnp)
        return y, log_slope.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        x, log_slope = from_reals(self._box, y, None)
        return x, log_slope.sum()
