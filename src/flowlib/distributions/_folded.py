"""Densities of absolute values."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import peel
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._columns import checked_columns, chosen
from flowlib.distributions._distribution import AbstractDistribution, check_is_distribution, density_batch, draw_batch
from flowlib.distributions._special import log_sum_exp
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Joined, Positive, Real, Subset, Support

# A density costs 2 to this power of those of the base.
_MOST = 12


class Folded(AbstractBatchDistribution, AbstractWrapper):
    """y = |x| where x follows `dist`: p(y | c) = sum_s p_x(s y | c) over all signs s.

    The density is exact and positive at 0 too: a flow over the reals, folded, has no need of a map onto positive
    numbers, under which the density at 0 is 0 or infinite. Of K folded coordinates a density costs 2^K of those of
    `dist`, one after another; a draw costs one. Where signs of many coordinates are wanted, see `Symmetrised`.

    Args:
        dist: the distribution of x.
        columns: which columns, on the last axis, to fold: a boolean for each. Defaults to all.

    Raises:
        ValueError: if columns are not those of `dist`, or more than 12 coordinates are to be folded.
        TypeError: if `dist` is not a distribution.

    References:
        Nielsen, Jaini, Hoogeboom, Winther and Welling (2020), SurVAE flows: the absolute value as a
        generative surjection (arXiv:2007.02731).
    """

    dist: AbstractDistribution
    columns: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, dist: AbstractDistribution, *, columns: Sequence[bool] | None = None):
        inner = check_is_distribution(dist, "Folded")
        self.columns = checked_columns(columns, inner.shape)
        folded = int(np.broadcast_to(chosen(self.columns), inner.shape).sum())
        if folded > _MOST:
            raise ValueError(
                f"Folded expected at most {_MOST} coordinates to fold, since a density sums over all their signs, "
                f"got {folded}."
            )
        self.dist = dist

    @property
    def support(self) -> Support:
        sets = tuple(Positive(closed=True) if column else Real() for column in self.columns)
        whole = sets[0] if len(sets) == 1 else Joined(sets, (1,) * len(sets), self.ndim - 1)
        return whole if isinstance(peel(self.dist).support, Real) else Subset(whole)

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        signs = jnp.asarray(_signs(np.broadcast_to(chosen(self.columns), self.shape)), x.dtype)
        return log_sum_exp(jax.lax.map(lambda sign: density_batch(self.dist, sign * x, condition), signs))

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        x = draw_batch(self.dist, key, size, condition)
        return jnp.where(chosen(self.columns), jnp.abs(x), x)


def _signs(mask: np.ndarray) -> np.ndarray:
    """All patterns of 1 and -1 where the mask is true, with 1 elsewhere."""
    places = np.flatnonzero(mask)
    patterns = np.ones((2 ** len(places), mask.size), np.int8)
    patterns[:, places] = 1 - 2 * (np.arange(len(patterns))[:, None] >> np.arange(len(places)) & 1)
    return patterns.reshape(-1, *mask.shape)
