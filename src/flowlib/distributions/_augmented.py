"""Flows with more coordinates than the data."""

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import peel
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._distribution import (
    AbstractDistribution,
    check_is_distribution,
    density_batch,
    draw_batch,
    draw_with_density_batch,
)
from flowlib.distributions._marginal import AbstractMarginal
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Real, Subset, Support, is_elementwise


class Augmented(AbstractBatchSampler, AbstractWrapper, AbstractMarginal):
    """x of a pair (x, e) with density p(x, e | c), where e, further coordinates, is not seen.

    A flow keeps the topology of its base; with more coordinates than the data it need not (layers act on x and e
    together). The price is the density of x alone, the integral of p(x, e | c) over e: there is no `log_prob`, but

    - `lower_bound`, random, is in the mean at most log p(x | c): it is log p(x, e | c) - log q(e | x) with e
      drawn from the noise q. The gap is the divergence of q from p(e | x, c), and with several samples less.
    - `sample` is exact: a draw of the pair, without e.

    `fit_to_data` trains p and q together, on the bound. It does not standardise: give it data of about unit scale.

    Args:
        dist: p, over pairs: events whose first axis has the entries of x and then those of e.
        noise: q, over e; its condition, if it has one, is x. What p has where q has nothing is lost to the bound.

    Raises:
        ValueError: if the shapes do not agree.
        TypeError: if `dist` or `noise` is not a distribution.

    References:
        Huang, Dinh and Courville (2020), augmented normalizing flows (arXiv:2002.07101);
        Chen, Lu, Chenli, Zhu and Tian (2020), VFlow (arXiv:2002.09741);
        Nielsen, Jaini, Hoogeboom, Winther and Welling (2020), SurVAE flows: slicing (arXiv:2007.02731).
    """

    dist: AbstractDistribution
    noise: AbstractDistribution

    def __init__(self, dist: AbstractDistribution, noise: AbstractDistribution):
        pair, own = check_is_distribution(dist, "Augmented"), check_is_distribution(noise, "Augmented", "noise")
        if not pair.shape or own.shape[1:] != pair.shape[1:] or not 0 < (own.shape or (0,))[0] < pair.shape[0]:
            raise ValueError(
                f"Augmented expected noise with fewer entries on the first axis than dist and other axes as there, "
                f"got shapes {own.shape} and {pair.shape}."
            )
        self.dist = dist
        self.noise = noise
        if own.cond_shape not in (None, self.shape):
            raise ValueError(f"noise expected conditions of the shape {self.shape} of x, got {own.cond_shape}.")

    @property
    def shape(self) -> tuple[int, ...]:
        whole = peel(self.dist).shape
        return (whole[0] - peel(self.noise).shape[0], *whole[1:])

    @property
    def support(self) -> Support:
        support = peel(self.dist).support
        return support if is_elementwise(support) else Subset(Real())

    def _log_weights(self, key: PRNGKeyArray, x: Array, condition: Array | None) -> Array:
        e, log_noise = draw_with_density_batch(self.noise, key, len(x), x)
        pair = jnp.concatenate([x, e.astype(x.dtype)], axis=1)
        return density_batch(self.dist, pair, condition) - log_noise.astype(x.dtype)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        return draw_batch(self.dist, key, size, condition)[:, : self.shape[0]]
