"""Maximum likelihood of residual flows, with unbiased estimates of their log-dets."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count, check_fraction
from flowlib.bijections import AbstractBijection, EstimatedPass, Residual
from flowlib.train._estimated_likelihood import AbstractEstimatedLikelihoodLoss


class RouletteLoss(AbstractEstimatedLikelihoodLoss):
    """-mean(log p(x_i | condition_i)) with a random estimate of the log-det of each `Residual` layer of the flow.

    With the Jacobian J of the layer's network, random signs v and a random number N of terms, all of them drawn anew
    for each row and layer, the estimate is

        sum_(k=1..N) (-1)^(k+1) v.J^k v / (k P(N >= k))

    and its gradient an estimate from the series of (I + J)^-1. N is `exact_terms` and a geometric number besides.
    The means of loss and gradient are those of `MaximumLikelihoodLoss`: no term is left out for good. `log_prob` of the
    flow stays exact.

    A row and layer costs N network passes, of which nothing is kept, and one more with its gradient, where the exact
    log-det takes O(min(dim, nn_width)^3): for wide networks in many dimensions. A batch goes on until its last
    row has ended. With `invert=False` it still has the implicit gradient of the inverse to find, O(dim^3).

    Args:
        exact_terms: how many terms are always taken, at least 1; the paper takes 10 for images.
        stop_probability: that of ending after each term from there on, in (0, 1). The estimates have a finite variance
            where 1 - stop_probability is above lipschitz^2; the default suits the default lipschitz of `residual_flow`.
            The paper's 0.5 is cheaper, and for trained layers near their bound rare estimates are then far off.

    Raises:
        ValueError: for a number out of range; before a fit, if the flow has no `Residual`; when called without a key.
        TypeError: before a fit, if the distribution is no `Transformed`.

    References:
        Chen, Behrmann, Duvenaud and Jacobsen 2019 (arXiv:1906.02735), equations 6 and 8.
    """

    exact_terms: int = eqx.field(static=True)
    stop_probability: float = eqx.field(static=True)
    layer_kind: ClassVar[type[AbstractBijection]] = Residual
    premade: ClassVar[str] = "residual_flow"

    def __init__(self, *, exact_terms: int = 2, stop_probability: float = 0.15):
        self.exact_terms = check_count(exact_terms, "exact_terms")
        self.stop_probability = check_fraction(stop_probability, "stop_probability", "RouletteLoss")

    def estimate(
        self, layer: Any, x: Array, condition: Array | None, key: PRNGKeyArray, *, inverse: bool
    ) -> EstimatedPass:
        options = {"exact_terms": self.exact_terms, "stop_probability": self.stop_probability}
        x, log_det = layer.estimate_batch(key, x, condition, inverse=inverse, **options)
        return EstimatedPass(x, log_det, jnp.ones(len(x), bool), jnp.zeros_like(log_det))
