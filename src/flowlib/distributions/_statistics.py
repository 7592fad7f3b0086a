"""Closed forms beside the density: moments, entropy, cdf and quantiles.

Three abstract classes, each with what the one before has and more. A distribution inherits the one
whose every closed form it has, so that a method that exists can be called.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib._arrays import cast_floats, float_dtype, promoted
from flowlib._module import unwrap_own
from flowlib.distributions._distribution import AbstractDistribution, map_batch


class AbstractMoments(AbstractDistribution):
    """A distribution with mean, variance and entropy in closed form.

    Subclasses write `_mean` and `_variance` (anything that broadcasts to `shape`) and `_entropy` (a
    scalar), for a `self` whose parameters are plain arrays of one dtype.
    """

    @abstractmethod
    def _mean(self) -> Any:
        """The mean of each coordinate."""

    @abstractmethod
    def _variance(self) -> Any:
        """The variance of each coordinate."""

    @abstractmethod
    def _entropy(self) -> Any:
        """The entropy of the whole event."""

    @property
    def mean(self) -> Array:
        """The mean of each coordinate, of shape `shape`; NaN where it is undefined, inf where it is infinite."""
        return statistic(_mean, self, self.shape)

    @property
    def variance(self) -> Array:
        """The variance of each coordinate, of shape `shape`; NaN where it is undefined, inf where it is infinite."""
        return statistic(_variance, self, self.shape)

    def entropy(self) -> Array:
        """The differential entropy -E[log_prob(x)] of the whole event in nats, a scalar."""
        return statistic(_entropy, self, ())


class AbstractCdf(AbstractMoments):
    """A distribution of independent coordinates that has a cdf too in closed form: subclasses write `_cdf`."""

    @abstractmethod
    def _cdf(self, x: Array) -> Array:
        """P(X_i <= x_i) for one event, whose coordinates may lie outside the support."""

    def cdf(self, x: ArrayLike) -> Array:
        """The cumulative probability P(X_i <= x_i) of each coordinate, of the shape of `x`.

        Args:
            x: events, of shape `(*batch, *shape)`; inside the support or not. NaN gives NaN.

        Raises:
            ValueError: if the trailing shape does not match.
            TypeError: if `x` does not hold real numbers.
        """
        return map_batch(_cdf, self, x, None, self.shape)


class AbstractQuantile(AbstractCdf):
    """A distribution of independent coordinates that has quantiles too in closed form: subclasses write `_quantile`."""

    @abstractmethod
    def _quantile(self, q: Array) -> Array:
        """The inverse of `_cdf`, for q in [0, 1]."""

    def quantile(self, q: ArrayLike) -> Array:
        """The inverse of `cdf`: the q_i-quantile of each coordinate, of the shape of `q`.

        Args:
            q: probabilities, of shape `(*batch, *shape)`. The ends of the support, infinite ones
                included, are the quantiles of 0 and 1; outside [0, 1] the result is NaN.

        Raises:
            ValueError: if the trailing shape does not match.
            TypeError: if `q` does not hold real numbers.
        """
        return map_batch(_quantile, self, q, None, self.shape)


def statistic(fn: Callable[[Any], Any], dist: AbstractDistribution, shape: tuple[int, ...]) -> Array:
    """`fn` of the unwrapped distribution, compiled. `fn` is a module-level function, as in `map_batch`."""
    return _statistic(fn, dist, shape)


@eqx.filter_jit
def _statistic(fn, dist, shape):
    dtype = float_dtype(dist)
    compute = promoted(dtype, jnp.float32)
    value = jnp.asarray(fn(unwrap_own(cast_floats(dist, compute))), compute)
    return jnp.broadcast_to(value, shape).astype(dtype)


def _mean(dist):
    return dist._mean()


def _variance(dist):
    return dist._variance()


def _entropy(dist):
    return dist._entropy()


def _cdf(dist, x, condition):
    return jax.vmap(unwrap_own(dist)._cdf)(x)


def _quantile(dist, q, condition):
    valid = (q >= 0) & (q <= 1)
    # The median stands in for what is no probability, so that its row has a finite gradient.
    x = jax.vmap(unwrap_own(dist)._quantile)(jnp.where(valid, q, 0.5))
    return jnp.where(valid, x, jnp.nan)
