"""Activation normalisation: a shift and a scale for each channel, which data may set."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from paramax import AbstractUnwrappable

from flowlib._arrays import as_shape, default_float
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter


class ActNorm(AbstractBijection):
    """y = (x - loc) / scale, with one loc and scale for each channel: each slice along the first axis of the event.

    In a vector each coordinate is a channel; in an image (channels, height, width) pixels share them.
    log |det dy/dx| = -(pixels) sum log scale. Both directions O(size). Starts as the identity. `flowlib.init_from_data`
    sets it so that what comes out, in the direction then called, has mean 0 and standard deviation 1 in each channel.

    The scale is exp(log_scale), so that the log-det is linear in what is trained.

    Args:
        shape: the shape of an event. Defaults to ().

    References:
        Kingma and Dhariwal 2018, section 3.1 (arXiv:1807.03039).
    """

    loc: Parameter
    log_scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: int | tuple[int, ...] = ()):
        self.shape = as_shape(shape)
        zeros = np.zeros(self.shape[:1], default_float())
        self.loc, self.log_scale = jnp.asarray(zeros), jnp.asarray(zeros)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        # The difference first: it is exact where x is far from 0 and close together.
        return (x - self._spread(self.loc)) / self._spread(jnp.exp(self.log_scale)), -self._log_det()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._spread(self.loc) + self._spread(jnp.exp(self.log_scale)) * y, self._log_det()

    def _init_from_data(self, x: Array, condition: Array | None, *, inverse: bool) -> "ActNorm":
        loc, deviation = _moments(x.reshape(len(x), math.prod(self.shape[:1]), -1))
        log_scale = jnp.log(deviation)
        if inverse:
            # What comes out is loc + scale x; with the scale as it is rounded.
            loc, log_scale = -loc * jnp.exp(-log_scale), -log_scale
        values = (loc.reshape(self.shape[:1]), log_scale.reshape(self.shape[:1]))
        old = (self.loc, self.log_scale)
        # What is wrapped is frozen, or not the plain number that is meant here.
        new = [was if isinstance(was, AbstractUnwrappable) else value for was, value in zip(old, values, strict=True)]
        return eqx.tree_at(lambda norm: (norm.loc, norm.log_scale), self, tuple(new))

    def _spread(self, values: Array) -> Array:
        """One value a channel, so that they broadcast against an event."""
        return values.reshape(values.shape + (1,) * (len(self.shape) - 1))

    def _log_det(self) -> Array:
        return math.prod(self.shape[1:]) * self.log_scale.sum()


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel of (rows, channels, pixels); NaN does not count.

    The standard deviation of what is constant within rounding is given as 1.
    """
    axes = (0, 2)
    counts = ~jnp.isnan(x)
    some = counts.any(axes)
    least = jnp.where(some, jnp.min(x, axes, initial=jnp.inf, where=counts), 0)
    most = jnp.where(some, jnp.max(x, axes, initial=-jnp.inf, where=counts), 0)
    # Counted from the middle in half ranges, nothing over- or underflows, and a constant is exactly 0.
    middle, half = least / 2 + most / 2, most / 2 - least / 2
    half = jnp.where(half > 0, half, 1)
    z = (x - middle[:, None]) / half[:, None]
    n = jnp.maximum(counts.sum(axes), 1).astype(x.dtype)
    mean = jnp.sum(z, axes, where=counts) / n
    variance = jnp.sum((z - mean[:, None]) ** 2, axes, where=counts) / n
    loc, scale = middle + half * mean, half * jnp.sqrt(variance)
    info = jnp.finfo(x.dtype)
    varies = (scale >= info.tiny) & (scale > info.eps * jnp.abs(loc))
    return loc, jnp.where(varies, scale, 1)
