"""Densities that are integrals, of which a random lower bound is known."""

import math
from abc import abstractmethod

import jax
import jax.random as jr
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._module import unwrap_own
from flowlib.distributions._distribution import AbstractSampler, guarded, in_range, map_batch
from flowlib.distributions._special import log_sum_exp


class AbstractMarginal(AbstractSampler):
    """p(x | c), the integral of p(x, e | c) over e, the part of a draw that is not seen.

    The integral has no closed form, but p(x, e | c) / q(e | x), with e drawn from any q, has the mean p(x | c), and so
    the mean of its logarithm is a lower bound. Subclasses write `_log_weights`.
    `MaximumLikelihoodLoss`, and so `fit_to_data`, minimises the negative of the bound.
    """

    @abstractmethod
    def _log_weights(self, key: PRNGKeyArray, x: Array, condition: Array | None) -> Array:
        """log p(x, e | c) - log q(e | x) of each row of x, for one e of each drawn from q."""

    def lower_bound(
        self, key: PRNGKeyArray, x: ArrayLike, condition: ArrayLike | None = None, *, num_samples: int = 1
    ) -> Array:
        """log of the mean of p(x, e | c) / q(e | x) over `num_samples` random e: in the mean, at most log p(x | c).

        The more samples, the tighter; with q(e | x) = p(e | x, c) it is log p(x | c) itself. Shapes as `log_prob` of a
        distribution: `broadcast(batch of x, batch of condition)`. Each sample costs one p(x, e | c) and one draw of q.

        Args:
            key: a JAX PRNG key, typed or legacy.
            x: events, of shape `(*batch, *shape)`.
            condition: conditions, of shape `(*batch, *cond_shape)`; None if unconditional.
            num_samples: draws of e for each event.

        Raises:
            ValueError: if a shape is wrong, `num_samples` not positive, or the condition is missing or of no use.
            TypeError: if `key` is no key, or x or the condition does not hold real numbers.

        References:
            Burda, Grosse and Salakhutdinov (2016), https://arxiv.org/abs/1509.00519, for several samples.
        """
        bound = Partial(_lower_bound, key=check_key(key), num_samples=check_count(num_samples, "num_samples"))
        return map_batch(bound, self, x, condition, self.shape)

    def _bound(self, keys: Array, x: Array, condition: Array | None) -> Array:
        """The bound with one draw of e for each key."""
        terms = jax.lax.map(lambda key: self._log_weights(key, x, condition), keys)
        return log_sum_exp(terms) - math.log(len(keys))


def _lower_bound(dist, x, condition, key, num_samples):
    dist = unwrap_own(dist)
    x = in_range(dist.support, x)
    return guarded(dist.support, x, lambda safe: dist._bound(jr.split(key, num_samples), safe, condition))
