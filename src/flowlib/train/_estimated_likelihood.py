"""Maximum likelihood with estimates of the log-dets of some layers."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import float_dtype
from flowlib._module import peel
from flowlib.bijections import AbstractBijection, EstimatedPass, LayerEstimate, holds_layer, pass_with_estimates
from flowlib.distributions import AbstractTransformed
from flowlib.train._losses import AbstractSingleRowLoss, _check_events


class AbstractEstimatedLikelihoodLoss(AbstractSingleRowLoss):
    """-mean(log p(x_i | condition_i)) with estimates of the log-dets of the layers of one kind.

    Those in chains, scans and inverses, under embeddings and in units of data; inside of anything else they are exact.
    """

    # The class of these layers, and the name of a premade flow that has them.
    layer_kind: eqx.AbstractClassVar[type[AbstractBijection]]
    premade: eqx.AbstractClassVar[str]

    @abstractmethod
    def estimate(
        self, layer: Any, x: Array, condition: Array | None, key: PRNGKeyArray, *, inverse: bool
    ) -> EstimatedPass:
        """Such a layer applied to rows, or inverted, with an estimate of its log-det."""

    def per_row(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        dist = transformed_with(self.layer_kind, eqx.combine(params, static), self.premade)
        if key is None:
            raise ValueError(f"{type(self).__name__} expected a key, got None.")
        x, condition = arrays[0].astype(float_dtype(dist)), arrays[1] if len(arrays) > 1 else None
        estimate = LayerEstimate(self.layer_kind, self.estimate)
        x, log_det, valid, penalty = pass_with_estimates(dist.bijection, x, condition, key, estimate, inverse=True)
        base = peel(dist.base_dist)
        log_prob = base.log_prob(x) if base.cond_shape is None else base.log_prob(x, condition)
        return penalty - jnp.where(valid, log_prob.astype(log_det.dtype) + log_det, -jnp.inf)

    def check(self, tree: Any, *arrays: Array) -> None:
        _check_events(tree, arrays)
        transformed_with(self.layer_kind, tree, self.premade)


def transformed_with(kind: type[AbstractBijection], dist: Any, premade: str) -> AbstractTransformed:
    """The distribution out of its wrapper, which must have a layer of this class; `premade` names a flow that does."""
    dist, name = peel(dist), kind.__name__
    if not isinstance(dist, AbstractTransformed):
        raise TypeError(f"expected a Transformed distribution with a {name}, got {type(dist).__name__}.")
    if not holds_layer(dist.bijection, kind):
        raise ValueError(f"expected a flow with a {name}, got one without. Build it with flowlib.flows.{premade}.")
    return dist
