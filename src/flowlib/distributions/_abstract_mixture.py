"""What mixtures of like and of unlike distributions share."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from jaxtyping import Array, ArrayLike

from flowlib._arrays import check_positive, is_concrete, real_array
from flowlib.distributions._distribution import density_batch
from flowlib.distributions._special import log_sum_exp, safe_log
from flowlib.distributions._statistics import AbstractCumulative, AbstractMeanVariance, closed_form, moment

# Added to weights, it is beyond the digits of float32 and of all but the least in float64.
_LEAST = 1e-30


class AbstractMixture(AbstractMeanVariance, AbstractCumulative):
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

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return self._log_prob_batch(x[None], condition)[0]

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        terms = self._each(partial(density_batch, x=x, condition=condition))
        terms = terms + paramax.unwrap(self._log_weights)[:, None]
        return log_sum_exp(terms)

    def _mean(self) -> Array:
        return self._average(self._each(partial(moment, name="_mean")))

    def _variance(self) -> Array:
        means = self._each(partial(moment, name="_mean"))
        variances = self._each(partial(moment, name="_variance"))
        return self._average(variances + (means - self._average(means)) ** 2)

    def _cdf(self, x: Array) -> Array:
        return self._average(self._each(lambda component: closed_form(component, "_cdf")(x)))

    def _log_survival(self, x: Array) -> Array:
        return safe_log(self._average(jnp.exp(self._each(lambda part: closed_form(part, "_log_survival")(x)))))

    def _is_product(self, kind: type) -> bool:
        # The component is one for all coordinates.
        return math.prod(self.shape) <= 1 and issubclass(AbstractMixture, kind) and self._all_are(kind)

    @abstractmethod
    def _all_are(self, kind: type) -> bool:
        """Whether `is_product` holds for all components."""

    def _average(self, terms: Array) -> Array:
        return jnp.tensordot(self.weights, terms, 1, precision="highest")


def log_weights(weights: ArrayLike | Sequence[float], name: str) -> paramax.Parameterize:
    """The parameter of a mixture, named `name` in errors, with these positive weights, which need not sum to 1."""
    weights = real_array(weights, "weights")
    check_positive(weights, "weights")
    if weights.ndim != 1:
        raise ValueError(f"{name} expected weights of shape (components,), got {weights.shape}.")
    # Where values are not known there may be zeros: with so little more than 0 their gradients are finite, and right.
    return paramax.Parameterize(jax.nn.log_softmax, jnp.log(weights if is_concrete(weights) else weights + _LEAST))
