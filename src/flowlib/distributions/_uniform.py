"""The uniform distribution on a box."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import cast_floats, check_positive, float_dtype, is_concrete
from flowlib.constraints import broadcast, finite
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._special import safe_log
from flowlib.distributions._statistics import AbstractQuantile
from flowlib.support import Interval, Support


class Uniform(AbstractBatchSampler, AbstractQuantile):
    """Independent uniform coordinates: log p(x) = -sum log(maxval - minval) on minval <= x <= maxval, ends included.

    `scipy.stats.uniform(minval, maxval - minval)`. The arguments broadcast to the shape of an event.
    The ends never train, not even after `unfreeze`: data on the wrong side of them would have
    density 0. Has mean, variance, entropy, cdf and quantiles in closed form.

    Args:
        minval: lower ends.
        maxval: upper ends, above the lower ones.

    Raises:
        ValueError: if an interval is empty or upside down, an end not finite, or they do not broadcast.
    """

    # Both in one order or the other: the properties sort them, so that no perturbation makes an interval invalid.
    _minval: Array | paramax.AbstractUnwrappable[Array]
    _maxval: Array | paramax.AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, minval: ArrayLike, maxval: ArrayLike):
        ends = broadcast(finite(minval, "minval"), finite(maxval, "maxval"))
        lower, upper = cast_floats(ends, float_dtype(ends))
        if is_concrete(lower) and is_concrete(upper):
            with np.errstate(over="ignore"):
                check_positive(np.asarray(upper) - np.asarray(lower), "maxval - minval")
        self._minval = paramax.NonTrainable(lower)
        self._maxval = paramax.NonTrainable(upper)
        self.shape = lower.shape

    @property
    def minval(self) -> Array:
        """The lower ends, a plain array of shape `shape`."""
        return jnp.minimum(*self._ends())

    @property
    def maxval(self) -> Array:
        """The upper ends, a plain array of shape `shape`."""
        return jnp.maximum(*self._ends())

    @property
    def loc(self) -> Array:
        """The lower ends, as in SciPy."""
        return self.minval

    @property
    def scale(self) -> Array:
        """The widths maxval - minval, as in SciPy."""
        return self.maxval - self.minval

    @property
    def support(self) -> Support:
        return Interval(self.minval, self.maxval, closed=True)

    def _ends(self) -> tuple[Array, Array]:
        return jax.lax.stop_gradient(paramax.unwrap((self._minval, self._maxval)))

    def _log_densities(self, x: Array) -> Array:
        return -jnp.log(self.scale)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        unit = jr.uniform(key, (size, *self.shape), self.minval.dtype)
        # Rounding may carry a draw past the upper end.
        return jnp.minimum(self.minval + self.scale * unit, self.maxval)

    def _mean(self) -> Array:
        return self.minval + 0.5 * self.scale

    def _variance(self) -> Array:
        return self.scale**2 / 12

    def _entropy(self) -> Array:
        return jnp.log(self.scale).sum()

    def _cdf(self, x: Array) -> Array:
        return (jnp.clip(x, self.minval, self.maxval) - self.minval) / self.scale

    def _quantile(self, q: Array) -> Array:
        return jnp.minimum(self.minval + self.scale * q, self.maxval)

    def _log_survival(self, x: Array) -> Array:
        return safe_log((self.maxval - jnp.clip(x, self.minval, self.maxval)) / self.scale)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return jnp.maximum(self.maxval - self.scale * jnp.exp(log_q), self.minval)
