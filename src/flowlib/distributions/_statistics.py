"""Closed forms beside the density, or sums that are as good: moments, entropy, cdf and quantiles.

A distribution inherits the classes whose closed forms it has, so that a method that exists can be called; one made of
other distributions inherits those that it has if all of them do, and raises an AttributeError if one does not.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib._arrays import cast_floats, float_dtype, promoted
from flowlib._module import peel, unwrap_own
from flowlib._ranks import broadcasting
from flowlib._wanted import kind_of
from flowlib.distributions._distribution import AbstractDistribution, map_batch
from flowlib.distributions._special import safe_log


class AbstractMeanVariance(AbstractDistribution):
    """A distribution with mean and variance in closed form.

    Subclasses write `_mean` and `_variance` (anything that broadcasts to `shape`), for a `self` whose parameters are
    plain arrays of one dtype.
    """

    @abstractmethod
    def _mean(self) -> Any:
        """The mean of each coordinate."""

    @abstractmethod
    def _variance(self) -> Any:
        """The variance of each coordinate."""

    @property
    def mean(self) -> Array:
        """The mean of each coordinate, of shape `shape`; NaN where it is undefined, inf where it is infinite."""
        return statistic("_mean", self, self.shape)

    @property
    def variance(self) -> Array:
        """The variance of each coordinate, of shape `shape`; NaN where it is undefined, inf where it is infinite."""
        return statistic("_variance", self, self.shape)


class AbstractEntropy(AbstractDistribution):
    """A distribution with its entropy in closed form: subclasses write `_entropy`, a scalar."""

    @abstractmethod
    def _entropy(self) -> Any:
        """The entropy of the whole event."""

    def entropy(self) -> Array:
        """The differential entropy -E[log_prob(x)] of the whole event in nats, a scalar."""
        return statistic("_entropy", self, ())


class AbstractCumulative(AbstractDistribution):
    """A distribution with the cdf of each coordinate in closed form: subclasses write `_cdf`.

    Where tails matter they write the logarithms too, of which the defaults keep the digits of the cdf only.
    """

    @abstractmethod
    def _cdf(self, x: Array) -> Array:
        """P(X_i <= x_i) for one event, whose coordinates may lie outside the support."""

    def _log_cdf(self, x: Array) -> Array:
        """log P(X_i <= x_i), for finite x."""
        return safe_log(self._cdf(x))

    def _log_survival(self, x: Array) -> Array:
        """log P(X_i > x_i), for finite x."""
        return safe_log(1 - self._cdf(x))

    def _log_tails(self, x: Array) -> tuple[Array, Array]:
        """Both."""
        return self._log_cdf(x), self._log_survival(x)

    def _is_product(self, kind: type) -> bool:
        """Whether the coordinates are independent, with the closed forms of the abstract class `kind`."""
        return isinstance(self, kind)

    def cdf(self, x: ArrayLike) -> Array:
        """The cumulative probability P(X_i <= x_i) of each coordinate, of the shape of `x`.

        Args:
            x: events, of shape `(*batch, *shape)`; inside the support or not. NaN gives NaN.

        Raises:
            ValueError: if the trailing shape does not match.
            TypeError: if `x` does not hold real numbers.
        """
        return map_batch(cdf_of, self, x, None, self.shape)


class AbstractInverseCdf(AbstractCumulative):
    """A distribution of independent coordinates with quantiles in closed form.

    Subclasses write `_quantile` and `_log_densities`, of which the density is the sum.
    """

    @abstractmethod
    def _log_densities(self, x: Array) -> Array:
        """The log density of each coordinate at one event inside the support."""

    @abstractmethod
    def _quantile(self, q: Array) -> Array:
        """The inverse of `_cdf`, for q in [0, 1]."""

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return self._log_densities(x).sum()

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        """The inverse of `_log_cdf`."""
        return self._quantile(jnp.exp(log_q))

    def _inverse_log_survival(self, log_q: Array) -> Array:
        """The inverse of `_log_survival`."""
        return self._quantile(-jnp.expm1(log_q))

    def _inverse_log_tail(self, log_q: Array, upper: Array) -> Array:
        """The one of survival where `upper`, of the cdf elsewhere."""
        high = self._inverse_log_survival(jnp.where(upper, log_q, -0.5))
        return jnp.where(upper, high, self._inverse_log_cdf(jnp.where(upper, -0.5, log_q)))

    def quantile(self, q: ArrayLike) -> Array:
        """The inverse of `cdf`: the q_i-quantile of each coordinate, of the shape of `q`.

        Args:
            q: probabilities, of shape `(*batch, *shape)`. The ends of the support, infinite ones
                included, are the quantiles of 0 and 1; outside [0, 1] the result is NaN.

        Raises:
            ValueError: if the trailing shape does not match.
            TypeError: if `q` does not hold real numbers.
        """
        return map_batch(quantile_of, self, q, None, self.shape)


# What families have: each has what the one before has and more.


class AbstractMoments(AbstractMeanVariance, AbstractEntropy):
    """A distribution with mean, variance and entropy in closed form."""


class AbstractCdf(AbstractMoments, AbstractCumulative):
    """A distribution of independent coordinates with a cdf too in closed form."""


class AbstractQuantile(AbstractCdf, AbstractInverseCdf):
    """A distribution of independent coordinates with quantiles too in closed form."""


def closed_form(dist: AbstractDistribution, name: str) -> Any:
    """The method `name` of a part of another distribution, with plain parameters.

    Raises:
        AttributeError: if the part does not have it.
    """
    dist = unwrap_own(dist)
    if not hasattr(dist, name):
        raise AttributeError(f"{type(dist).__name__} has no {name[1:].replace('_', ' ')} in closed form.")
    return getattr(dist, name)


def moment(dist: AbstractDistribution, name: str) -> Array:
    """`_mean` or `_variance` of a part, in the shape of its events."""
    value = jnp.asarray(closed_form(dist, name)(), float_dtype(dist))
    return jnp.broadcast_to(value, peel(dist).shape)


def is_product(dist: AbstractDistribution, kind: type) -> bool:
    """Whether the coordinates are independent, with the closed forms of the abstract class `kind`."""
    return isinstance(dist, AbstractCumulative) and dist._is_product(kind)


def checked_product(dist: Any, kind: type, owner: str, what: str) -> AbstractDistribution:
    """`dist` out of its wrapper.

    Raises:
        TypeError: if it is no distribution of independent coordinates with `what`, the closed forms of `kind`.
        ValueError: if it is conditional.
    """
    dist = peel(dist)
    if not isinstance(dist, AbstractDistribution):
        raise TypeError(f"{owner} expected a distribution, got {kind_of(dist)}.")
    if dist.cond_shape is not None:
        raise ValueError(f"{owner} expected an unconditional distribution, got one with cond_shape {dist.cond_shape}.")
    if not is_product(dist, kind):
        raise TypeError(
            f"{owner} expected independent coordinates with {what} in closed form, got {type(dist).__name__} "
            f"of shape {dist.shape}."
        )
    return dist


@broadcasting
@eqx.filter_jit
def statistic(name: str, dist: AbstractDistribution, shape: tuple[int, ...]) -> Array:
    """What the method `name` of a distribution gives with plain parameters, in a shape."""
    dtype = float_dtype(dist)
    compute = promoted(dtype, jnp.float32)
    value = jnp.asarray(closed_form(cast_floats(dist, compute), name)(), compute)
    return jnp.broadcast_to(value, shape).astype(dtype)


def cdf_of(dist: AbstractDistribution, x: Array, condition: Array | None = None) -> Array:
    """The cdf at a batch of events."""
    return jax.vmap(closed_form(dist, "_cdf"))(x)


def quantile_of(dist: AbstractDistribution, q: Array, condition: Array | None = None) -> Array:
    """The quantiles at a batch of events."""
    valid = (q >= 0) & (q <= 1)
    # The median stands in for what is no probability, so that its row has a finite gradient.
    x = jax.vmap(closed_form(dist, "_quantile"))(jnp.where(valid, q, 0.5))
    return jnp.where(valid, x, jnp.nan)
