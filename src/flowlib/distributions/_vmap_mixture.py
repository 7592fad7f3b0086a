"""Mixtures of distributions of one kind."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import float_dtype
from flowlib._module import peel
from flowlib._wanted import kind_of
from flowlib.distributions._abstract_mixture import AbstractMixture, log_weights
from flowlib.distributions._distribution import AbstractDistribution, draw, draw_batch
from flowlib.distributions._statistics import is_product
from flowlib.support import OneTurn, Real, Subset, Support


class VmapMixture(AbstractMixture):
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
            raise TypeError(f"VmapMixture expected a distribution, got {kind_of(component)}.")
        own_weights, components = log_weights(weights, "VmapMixture"), np.shape(weights)
        for leaf in jax.tree.leaves(dist):
            if eqx.is_array(leaf) and leaf.shape[:1] != components:
                raise ValueError(
                    f"VmapMixture expected arrays with a leading axis of {components[0]}, one for each weight, "
                    f"got shape {leaf.shape}. Make the components with equinox.filter_vmap."
                )
        self.dist = dist
        self._log_weights = own_weights
        self.shape = component.shape
        self.cond_shape = component.cond_shape

    @property
    def support(self) -> Support:
        support = peel(self.dist).support
        # One that depends on the parameters is another for each component.
        fixed = not any(eqx.is_array(leaf) for leaf in jax.tree.leaves(support))
        if fixed or not support.has_circles:
            return support if fixed else Subset(Real())
        one = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, peel(self.dist))
        return OneTurn(one.support)

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        key_component, key_draw = jr.split(key)
        component = jr.categorical(key_component, paramax.unwrap(self._log_weights))
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        chosen = jax.tree.map(lambda leaf: leaf[component], arrays)
        return draw(eqx.combine(chosen, rest), key_draw, condition)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        logits = paramax.unwrap(self._log_weights)
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        copied = sum(leaf.size for leaf in jax.tree.leaves(arrays)) // logits.size
        if copied <= logits.size * math.prod(self.shape):
            return super()._sample_batch(key, size, condition)
        # A copy of the chosen component's arrays for each draw (a network's, say) would be more than
        # draws from all components, of which one is kept.
        key_component, key_draw = jr.split(key)
        chosen = jr.categorical(key_component, logits, shape=(size,)).reshape(size, *[1] * self.ndim)

        def keep(kept, component):
            index, key, one = component
            x = draw_batch(eqx.combine(one, rest), key, size, condition)
            return jnp.where(chosen == index, x, kept), None

        start = jnp.zeros((size, *self.shape), float_dtype(self.dist))
        indices = jnp.arange(logits.size)
        return jax.lax.scan(keep, start, (indices, jr.split(key_draw, logits.size), arrays))[0]

    def _all_are(self, kind: type) -> bool:
        return is_product(peel(self.dist), kind)

    def _each(self, fn: Callable[[Any], Any]) -> Any:
        arrays, rest = eqx.partition(self.dist, eqx.is_array)
        components = paramax.unwrap(self._log_weights).size
        return jax.vmap(lambda one: fn(eqx.combine(one, rest)), axis_size=components)(arrays)
