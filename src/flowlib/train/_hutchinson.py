"""Maximum likelihood of continuous flows, with an estimate of the divergence."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, ContinuousFlow, EstimatedPass
from flowlib.train._estimated_likelihood import AbstractEstimatedLikelihoodLoss


class HutchinsonLoss(AbstractEstimatedLikelihoodLoss):
    """-mean(log p(x_i | condition_i)) with a random estimate of the divergence in each `ContinuousFlow` of the flow.

    The estimate is v.(df/dx)v along the whole path, with random signs v drawn anew for each row and step, and kept
    within a solve. Its mean is the exact divergence, so that the mean of the loss is `MaximumLikelihoodLoss`. An
    evaluation of the field costs one forward-mode pass, where the exact divergence takes one for each coordinate.
    To the loss of a row can be added `kinetic` times the integral of |dx/dt|^2 over its paths: they are then
    straighter, and the solver takes fewer steps.

    Args:
        kinetic: the weight of that energy, per coordinate of an event; about 0.01 to 0.1. Defaults to 0.

    Raises:
        ValueError: for a negative weight; before a fit, if the flow has no `ContinuousFlow`.
        TypeError: before a fit, if the distribution is no `Transformed`.

    References:
        Grathwohl et al. (2019), https://arxiv.org/abs/1810.01367, section 3.1;
        Finlay, Jacobsen, Nurbekyan and Oberman (2020), https://arxiv.org/abs/2002.02798, section 3.
    """

    kinetic: float = eqx.field(static=True)
    layer_kind: ClassVar[type[AbstractBijection]] = ContinuousFlow
    premade: ClassVar[str] = "ffjord"

    def __init__(self, *, kinetic: float = 0.0):
        if not (kinetic >= 0 and math.isfinite(kinetic)):
            raise ValueError(f"HutchinsonLoss expected kinetic to be at least 0 and finite, got {kinetic}.")
        self.kinetic = float(kinetic)

    def estimate(
        self, layer: Any, x: Array, condition: Array | None, key: PRNGKeyArray, *, inverse: bool
    ) -> EstimatedPass:
        def one(x, condition, probe):
            solution = layer.follow(x, condition, backwards=inverse, probe=probe)
            parts = (solution.x, solution.log_det, solution.energy)
            # As in `ContinuousFlow`, where the solver fails.
            return jax.tree.map(lambda part: jnp.where(solution.found, part, jnp.nan), parts)

        probe = jr.rademacher(key, x.shape, x.dtype)
        shared = condition is None or condition.ndim == len(layer.cond_shape)
        x, log_det, energy = jax.vmap(one, (0, None if shared else 0, 0))(x, condition, probe)
        return EstimatedPass(x, log_det, jnp.ones(len(x), bool), self.kinetic * energy / math.prod(x.shape[1:]))
