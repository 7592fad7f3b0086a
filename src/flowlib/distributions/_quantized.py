"""Whole numbers from distributions of real ones, exactly."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import peel, unwrap_own
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._between import log_probability_between
from flowlib.distributions._distribution import AbstractDistribution, draw_batch
from flowlib.distributions._statistics import AbstractCumulative, checked_product
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Integers, Whole


class Quantized(AbstractBatchSampler, AbstractWrapper, AbstractCumulative):
    """Whole numbers n = floor(x), of x with a cdf F in each of independent coordinates: P(n) = F(n + 1) - F(n).

    Real numbers rounded down, as in `Dequantized`, which is for distributions without a cdf: there P is a sum over
    places or bounded, here it is exact. (Libraries that round up have the same numbers one higher: for those, or for
    rounding to the nearest, move `dist` by 1 or 1/2.) It keeps its digits in both tails. `log_prob` is log P; `cdf` is
    that of n. A density costs two cdfs, a draw one of `dist`. Mean, variance and entropy are sums over all whole
    numbers, which in general have no closed form, and are left out.

        Quantized(Logistic(10.0, 3.0), values=Integers(0, 255)).log_prob(7)

    Args:
        dist: a distribution with a cdf and independent coordinates, of any shape and without a condition; the
            families with a cdf, a `Joint` of such, `Truncated`, and over single numbers mixtures.
        values: the whole numbers that there are, `flowlib.support.Integers(0, 255)` for bytes: what `dist` has
            beyond them goes to the nearest of them. Defaults to all.

    Raises:
        TypeError: if `dist` is no distribution or has no cdf.
        ValueError: if it is conditional.
    """

    dist: AbstractDistribution
    values: Integers | None

    def __init__(self, dist: AbstractDistribution, *, values: Integers | None = None):
        checked_product(dist, AbstractCumulative, "Quantized", "a cdf")
        self.dist = dist
        self.values = values

    @property
    def support(self) -> Whole:
        return Whole(peel(self.dist).support, (True,), self.values)

    def _inner(self) -> Any:
        return unwrap_own(self.dist)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        lower, upper = x, x + 1
        if self.values is not None:
            lower = jnp.where(x <= self.values.lower, -jnp.inf, lower)
            upper = jnp.where(x >= self.values.upper, jnp.inf, upper)
        return log_probability_between(self._inner(), lower, upper).sum()

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        whole = jnp.floor(draw_batch(self.dist, key, size))
        return whole if self.values is None else jnp.clip(whole, self.values.lower, self.values.upper)

    def _cdf(self, x: Array) -> Array:
        cdf = self._inner()._cdf(jnp.floor(x) + 1)
        if self.values is None:
            return cdf
        return jnp.where(x < self.values.lower, 0, jnp.where(x >= self.values.upper, 1, cdf))

    def _is_product(self, kind: type) -> bool:
        # Another distribution made from this one would take it for one of real numbers.
        return False
