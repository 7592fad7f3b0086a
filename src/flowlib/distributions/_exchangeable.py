"""Densities that do not depend on the order of the coordinates."""

import math

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import peel
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._distribution import (
    AbstractDistribution,
    check_is_distribution,
    density_batch,
    draw_batch,
    draw_with_density_batch,
)
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Increasing, Real, Subset, Support, fits


class Exchangeable(AbstractBatchDistribution, AbstractWrapper):
    """x = z in a random order, with z increasing from `dist`: p(x | c) = p_z(sort(x) | c) / D!.

    Exact, and the same for all orders of the coordinates. Where two of them are equal it is 0, as it is of draws in
    which two are rounded to one number. Density and draw cost those of `dist` and O(D log D). A flow through
    `Ordered` has increasing vectors.

    A fit does not standardise, which would treat the coordinates unlike.

    Args:
        dist: the distribution of sort(x), over increasing vectors.

    Raises:
        ValueError: if events of `dist` are not vectors, or do not increase.
        TypeError: if `dist` is not a distribution.

    References:
        Nielsen, Jaini, Hoogeboom, Winther and Welling (2020), SurVAE flows: sorting as an inference
        surjection (arXiv:2007.02731).
    """

    dist: AbstractDistribution

    def __init__(self, dist: AbstractDistribution):
        inner = check_is_distribution(dist, "Exchangeable")
        if len(inner.shape) != 1:
            raise ValueError(f"Exchangeable expected a distribution of vectors, got events of shape {inner.shape}.")
        if not fits(inner.support, Increasing()):
            raise ValueError(
                f"Exchangeable expected a distribution over increasing vectors, got one of {inner.support.kind} "
                f"support. Put an Ordered around it."
            )
        self.dist = dist

    @property
    def support(self) -> Support:
        # All vectors with unlike coordinates, if any.
        return Real() if isinstance(peel(self.dist).support, Increasing) else Subset(Real())

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        return density_batch(self.dist, jnp.sort(x, axis=1), condition) - self._log_orders

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        key_z, key_order = jr.split(key)
        return _shuffled(key_order, draw_batch(self.dist, key_z, size, condition))

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        key_z, key_order = jr.split(key)
        z, log_prob = draw_with_density_batch(self.dist, key_z, size, condition)
        return _shuffled(key_order, z), log_prob - self._log_orders

    @property
    def _log_orders(self) -> float:
        return math.lgamma(self.shape[0] + 1)


def _shuffled(key: PRNGKeyArray, rows: Array) -> Array:
    """Each row in an order of its own."""
    return jr.permutation(key, rows, axis=1, independent=True)
