"""What mixtures of like and of unlike distributions share."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from jaxtyping import Array, ArrayLike

from flowlib._arrays import check_positive, float_dtype, real_array
from flowlib._module import unwrap_own
from flowlib.distributions._distribution import AbstractDistribution, density_batch, map_batch
from flowlib.distributions._special import log_sum_exp
from flowlib.distributions._statistics import statistic


class AbstractMixture(AbstractDistribution):
    """p(x | condition) = sum_k w_k p_k(x | condition), with weights that train."""

    # Logarithms of the weights, normalised where they are used.
    _log_weights: eqx.AbstractVar[Any]

    @abstractmethod
    def _each(self, fn: Callable[[Any], Any]) -> Any:
        """`fn` of each component, on a leading axis; each unwraps its own parameters inside."""

    @property
    def weights(self) -> Array:
        """The weights, a plain array of sum 1."""
        return jnp.exp(paramax.unwrap(self._log_weights))

    @property
    def mean(self) -> Array:
        """The mean of each coordinate, of shape `shape`."""
        return statistic(_mean, self, self.shape)

    @property
    def variance(self) -> Array:
        """The variance of each coordinate, of shape `shape`."""
        return statistic(_variance, self, self.shape)

    def cdf(self, x: ArrayLike) -> Array:
        """The cumulative probability of each coordinate, of the shape of `x`; arguments and errors as `Normal.cdf`."""
        return map_batch(_cdf, self, x, None, self.shape)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return self._log_prob_batch(x[None], condition)[0]

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        terms = self._each(partial(density_batch, x=x, condition=condition))
        terms = terms + paramax.unwrap(self._log_weights)[:, None]
        return log_sum_exp(terms)

    def _average(self, terms: Array) -> Array:
        return jnp.tensordot(self.weights, terms, 1, precision="highest")


def log_weights(weights: ArrayLike | Sequence[float], name: str) -> paramax.Parameterize:
    """The parameter of a mixture, named `name` in errors, with these positive weights, which need not sum to 1."""
    weights = real_array(weights, "weights")
    check_positive(weights, "weights")
    if weights.ndim != 1:
        raise ValueError(f"{name} expected weights of shape (components,), got {weights.shape}.")
    return paramax.Parameterize(jax.nn.log_softmax, jnp.log(weights))


def _mean(mixture):
    return mixture._average(mixture._each(_moments)[0])


def _variance(mixture):
    means, variances = mixture._each(_moments)
    return mixture._average(variances + (means - mixture._average(means)) ** 2)


def _moments(component):
    component = unwrap_own(component)
    dtype = float_dtype(component)
    mean, variance = component._mean(), component._variance()
    return tuple(jnp.broadcast_to(jnp.asarray(value, dtype), component.shape) for value in (mean, variance))


def _cdf(mixture, x, condition):
    mixture = unwrap_own(mixture)
    return mixture._average(mixture._each(partial(_cdf_of_component, x=x)))


def _cdf_of_component(component, x):
    return jax.vmap(unwrap_own(component)._cdf)(x)
