"""The Dirichlet distribution."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib.constraints import finite, positive
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._special import (
    HALF_LOG_2PI,
    digamma_excess,
    power_term,
    stirling_remainder,
    zero_times_infinity,
)
from flowlib.distributions._statistics import AbstractMoments
from flowlib.support import Simplex, Support


class Dirichlet(AbstractBatchSampler, AbstractMoments):
    """log p(x) = sum_i (a_i - 1) log x_i + log Gamma(sum_i a_i) - sum_i log Gamma(a_i), for parts x_i >= 0 of sum 1.

    `scipy.stats.dirichlet(concentration)`: a density in all coordinates but the last, as that of `StickBreaking`.
    At a part of 0 it is -inf for a > 1, finite for a = 1 and +inf for a < 1, and -inf where two parts differ in this;
    draws stay off such ends. Accurate for large concentrations. Has mean, variance
    and entropy in closed form.

    Args:
        concentration: positive a, of shape (parts,), two at least.

    Raises:
        ValueError: if a concentration is not positive and finite, or there are not two of them.
    """

    _concentration: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, concentration: ArrayLike):
        concentration = finite(concentration, "concentration")
        if concentration.ndim != 1 or len(concentration) < 2:
            raise ValueError(
                f"Dirichlet expected concentrations of shape (parts,), at least 2 parts, got {concentration.shape}."
            )
        self._concentration = positive(concentration, "concentration")
        self.shape = concentration.shape

    @property
    def concentration(self) -> Array:
        """The concentrations, a plain array of shape (parts,)."""
        return unwrap(self._concentration)

    @property
    def support(self) -> Support:
        return Simplex(closed=True)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        a = self.concentration
        mean, log_mean = a / a.sum(), jnp.log(a) - jnp.log(a.sum())
        clash = zero_times_infinity((x == 0) & (a > 1), (x == 0) & (a < 1))
        return jnp.where(clash, -jnp.inf, self._log_density(jnp.where(clash, mean, x), mean, log_mean))

    def _log_density(self, x: Array, mean: Array, log_mean: Array) -> Array:
        # Relative to the mean: the leading terms of the Gamma functions then cancel on paper.
        a = self.concentration
        return power_term(a - 1, x, x - mean, mean, log_mean).sum() + self._log_peak()

    def _log_peak(self) -> Array:
        """The log density at the mean, but for the remainders a Gaussian peak."""
        a, total = self.concentration, self.concentration.sum()
        remainders = stirling_remainder(total) - stirling_remainder(a).sum()
        return (a.size - 0.5) * jnp.log(total) - 0.5 * jnp.log(a).sum() - (a.size - 1) * HALF_LOG_2PI + remainders

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        # In logarithms, which stay finite where gamma draws of small concentrations underflow.
        a = jnp.broadcast_to(self.concentration, (size, *self.shape))
        parts = jax.nn.softmax(jr.loggamma(key, a, dtype=a.dtype), axis=1)
        return jnp.maximum(parts, jnp.finfo(a.dtype).tiny)

    def _mean(self) -> Array:
        return self.concentration / self.concentration.sum()

    def _variance(self) -> Array:
        a, total = self.concentration, self.concentration.sum()
        # 1 - a / total cancels where one part is nearly everything.
        rest = jnp.where(jnp.eye(a.size, dtype=bool), 0, a).sum(axis=1)
        return (a / total) * (rest / total) / (total + 1)

    def _entropy(self) -> Array:
        # digamma(a) = log a + excess, and the logarithms cancel against those in the Gamma functions.
        a, total = self.concentration, self.concentration.sum()
        excesses = (total - a.size) * digamma_excess(total) - ((a - 1) * digamma_excess(a)).sum()
        return excesses - self._log_peak()
