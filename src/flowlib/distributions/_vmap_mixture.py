"""Mixtures of distributions of one kind."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import paramax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_positive, float_dtype, real_array
from flowlib._module import check_condition, peel, unwrap_own
from flowlib.distributions._distribution import AbstractDistribution, density_batch, draw, draw_batch, map_batch
from flowlib.distributions._special import log_sum_exp
from flowlib.distributions._statistics import statistic
from flowlib.support import Real, Subset, Support


class VmapMixture(AbstractDistribution):
    """p(x | condition) = sum_k w_k p_k(x | condition), where the p_k differ only in their arrays.

    A density costs that of all components; so does a draw when a component is large (a flow), else
    it costs that of one. `mean`, `variance` and `cdf` exist if the components have them.

        components = eqx.filter_vmap(Normal)(jnp.array([[-1.0, 0.0], [2.0, 1.0]]))
        VmapMixture(components, weights=jnp.array([0.3, 0.7])).shape  # (2,)

    Args:
        dist: a distribution whose every array has an extra leading axis, the components.
        weights: positive weights w of the components, of shape (components,), normalised here.

    Raises:
        ValueError: if a weight is not positive, or their number is not that of the components.
        TypeError: if `dist` is not a distribution.
    """

    dist: AbstractDistribution
    _log_weights: Array | paramax.AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, dist: AbstractDistribution, weights: ArrayLike):
        component = peel(dist)
        if not isinstance(component, AbstractDistribution):
            raise TypeError(f"VmapMixture expected a distribution, got {type(component).__name__}.")
        weights = real_array(weights, "weights")
        check_positive(weights, "weights")
        if weights.ndim != 1:
            raise ValueError(f"VmapMixture expected weights of shape (components,), got {weights.shape}.")
        for leaf in jax.tree.leaves(dist):
            if eqx.is_array(leaf) and leaf.shape[:1] != weights.shape:
                raise ValueError(
                    f"VmapMixture expected arrays with a leading axis of {weights.size}, one for each weight, "
                    f"got shape {leaf.shape}. Make the components with equinox.filter_vmap."
                )
        self.dist = dist
        self._log_weights = paramax.Parameterize(jax.nn.log_softmax, jnp.log(weights))
        self.shape = component.shape
        self.cond_shape = component.cond_shape

    @property
    def weights(self) -> Array:
        """The weights, a plain array of sum 1."""
        return jnp.exp(paramax.unwrap(self._log_weights))

    @property
    def support(self) -> Support:
        support = peel(self.dist).support
        # One that depends on the parameters is another for each component.
        fixed = not any(eqx.is_array(leaf) for leaf in jax.tree.leaves(support))
        return support if fixed else Subset(Real())

    def _check_condition(self, condition: ArrayLike) -> None:
        check_condition(self.dist, condition)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return self._log_prob_batch(x[None], condition)[0]

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        terms = self._each(partial(density_batch, x=x, condition=condition))
        terms = terms + paramax.unwrap(self._log_weights)[:, None]
        return log_sum_exp(terms)

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        key_component, key_draw = jr.split(key)
        component = jr.categorical(key_component, paramax.unwrap(self._log_weights))
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        chosen = jax.tree.map(lambda leaf: leaf[component], arrays)
        return draw(eqx.combine(chosen, rest), key_draw, condition)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        log_weights = paramax.unwrap(self._log_weights)
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        copied = sum(leaf.size for leaf in jax.tree.leaves(arrays)) // log_weights.size
        if copied <= log_weights.size * math.prod(self.shape):
            return super()._sample_batch(key, size, condition)
        # A copy of the chosen component's arrays for each draw (a network's, say) would be more than
        # draws from all components, of which one is kept.
        key_component, key_draw = jr.split(key)
        chosen = jr.categorical(key_component, log_weights, shape=(size,)).reshape(size, *[1] * self.ndim)

        def keep(kept, component):
            index, key, one = component
            x = draw_batch(eqx.combine(one, rest), key, size, condition)
            return jnp.where(chosen == index, x, kept), None

        start = jnp.zeros((size, *self.shape), float_dtype(self.dist))
        indices = jnp.arange(log_weights.size)
        return jax.lax.scan(keep, start, (indices, jr.split(key_draw, log_weights.size), arrays))[0]

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

    def _each(self, fn: Callable[[Any], Any]) -> Any:
        """`fn` of each component, on a leading axis; each unwraps its own parameters inside."""
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        components = paramax.unwrap(self._log_weights).size
        return jax.vmap(lambda one: fn(eqx.combine(one, rest)), axis_size=components)(arrays)

    def _average(self, terms: Array) -> Array:
        return jnp.tensordot(self.weights, terms, 1, precision="highest")


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
