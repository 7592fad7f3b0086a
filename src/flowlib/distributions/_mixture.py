"""Mixtures of distributions of any kinds."""

from collections.abc import Callable, Sequence
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
from flowlib.bijections import merge_cond_shapes
from flowlib.distributions._abstract_mixture import AbstractMixture, log_weights
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._distribution import AbstractDistribution, checked_dists, draw_batch
from flowlib.distributions._statistics import is_product
from flowlib.support import OneTurn, Real, Subset, Support


class Mixture(AbstractBatchSampler, AbstractMixture):
    """p(x | condition) = sum_k w_k p_k(x | condition), for components p_k of any kinds.

    A density and a draw cost those of all components, each of which is compiled: for many that differ in their arrays
    only, `VmapMixture` is faster. Components without a condition stand beside conditional ones. `mean`, `variance`
    and `cdf` exist if all components have them.

        Mixture([Normal(0.0, 1.0), StudentT(2.0, 3.0, 0.5)], weights=[0.3, 0.7]).shape  # ()

    Args:
        dists: the components, whose events have one shape.
        weights: positive weights w, one for each component, normalised here. Defaults to equal ones.

    Raises:
        ValueError: if there is no component, their shapes or conditions differ, some are of whole numbers and others
            not, a weight is not positive, or their number is not that of the components.
        TypeError: if a component is not a distribution.
    """

    dists: tuple[AbstractDistribution, ...]
    _log_weights: Array | paramax.AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, dists: Sequence[AbstractDistribution], weights: ArrayLike | Sequence[float] | None = None):
        self.dists = checked_dists(dists, "Mixture", "component")
        parts = [peel(dist) for dist in self.dists]
        shapes = [part.shape for part in parts]
        if len(set(shapes)) > 1:
            raise ValueError(f"Mixture expected components of one shape, got {shapes}.")
        kinds = [part.support.kind for part in parts]
        if "integers" in kinds and set(kinds) != {"integers"}:
            raise ValueError(f"Mixture expected all components over whole numbers or none, got supports {kinds}.")
        weights = np.ones(len(parts), float_dtype(parts)) if weights is None else weights
        self._log_weights = log_weights(weights, "Mixture")
        if np.shape(weights) != (len(parts),):
            raise ValueError(f"Mixture expected {len(parts)} weights, one for each component, got {np.shape(weights)}.")
        self.shape = shapes[0]
        self.cond_shape = merge_cond_shapes([part.cond_shape for part in parts], "Mixture")

    @property
    def support(self) -> Support:
        supports = [peel(dist).support for dist in self.dists]
        # One that depends on the parameters is another for each component.
        fixed = not any(eqx.is_array(leaf) for leaf in jax.tree.leaves(supports))
        if fixed and all(eqx.tree_equal(support, supports[0]) is True for support in supports):
            return supports[0]
        if all(support.has_circles for support in supports):
            return OneTurn(supports[0])
        # Of a union, no more is known than that it lies in the reals; a component that fills them fills them.
        return Real() if any(isinstance(support, Real) for support in supports) else Subset(Real())

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        key_component, *keys = jr.split(key, len(self.dists) + 1)
        chosen = jr.categorical(key_component, paramax.unwrap(self._log_weights), shape=(size,))
        chosen = chosen.reshape(size, *[1] * self.ndim)
        # Which component a row takes is known only when this runs, so that all are drawn.
        dtype = float_dtype(self)
        x = jnp.zeros((size, *self.shape), dtype)
        for k, (dist, own) in enumerate(zip(self.dists, keys, strict=True)):
            x = jnp.where(chosen == k, draw_batch(dist, own, size, condition).astype(dtype), x)
        return x

    def _all_are(self, kind: type) -> bool:
        return all(is_product(peel(dist), kind) for dist in self.dists)

    def _each(self, fn: Callable[[Any], Any]) -> Any:
        dtype = float_dtype(self)
        results = [fn(dist) for dist in self.dists]
        return jax.tree.map(lambda *values: jnp.stack([value.astype(dtype) for value in values]), *results)
