"""Densities from those of absolute values, with signs."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import peel
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._columns import checked_columns, chosen
from flowlib.distributions._distribution import (
    AbstractDistribution,
    check_is_distribution,
    density_batch,
    draw_batch,
    draw_with_density_batch,
)
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Positive, Real, Subset, Support, fits


class Symmetrised(AbstractBatchDistribution, AbstractWrapper):
    """x = s z with |x| = z from `dist` and random signs s: p(x | c) = p_z(|x| | c) prod_i P(sign of x_i | |x|, c).

    Exact in any number of dimensions. By default signs are fair: the density is the same at x with any sign changed,
    and each row of data counts for all of its mirror images. With a network `signs` it has other odds, independent of
    each other given |x|. Density and draw cost those of `dist`, and a call of the network.

    Mass that `dist` has below 0 is lost: it must have none. A fit does not standardise, which would move the centre.

    Args:
        dist: the distribution of |x|, over positive numbers in the chosen columns.
        columns: which columns, on the last axis, have signs: a boolean for each. Defaults to all.
        signs: a callable (an Equinox module, say) from the entries of |x|, in a vector, followed by those of
            the condition, to log-odds of a positive sign that broadcast to `shape`. Columns without signs ignore them.

    Raises:
        ValueError: if columns are not those of `dist`, or its support is the real line.
        TypeError: if `dist` is not a distribution.

    References:
        Nielsen, Jaini, Hoogeboom, Winther and Welling (2020), SurVAE flows: the absolute value as an
        inference surjection (arXiv:2007.02731).
    """

    dist: AbstractDistribution
    signs: Callable[[Array], Array] | None
    columns: tuple[bool, ...] = eqx.field(static=True)

    def __init__(
        self,
        dist: AbstractDistribution,
        *,
        columns: Sequence[bool] | None = None,
        signs: Callable[[Array], Array] | None = None,
    ):
        inner = check_is_distribution(dist, "Symmetrised")
        self.columns = checked_columns(columns, inner.shape)
        # Of supports that differ between columns, what counts is known at run time only.
        wrong = inner.support.kind == "real" or (all(self.columns) and not fits(inner.support, Positive()))
        if any(self.columns) and wrong:
            raise ValueError(
                f"Symmetrised expected a distribution over positive numbers, got one of {inner.support.kind} support. "
                f"Put an Exp, a SoftPlus or a Folded around it."
            )
        self.dist = dist
        self.signs = signs

    @property
    def support(self) -> Support:
        support = peel(self.dist).support
        everywhere = isinstance(support, Positive) and support.closed and self.columns == (True,)
        return Real() if everywhere else Subset(Real())

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        # As a maximum |x| has derivative 0 at 0, as symmetry asks.
        z = jnp.where(chosen(self.columns), jnp.maximum(x, -x), x)
        return density_batch(self.dist, z, condition) + self._log_prob_of_signs(x, z, condition)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        key_z, key_signs = jr.split(key)
        z = draw_batch(self.dist, key_z, size, condition)
        return self._signed(key_signs, z, condition)

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        key_z, key_signs = jr.split(key)
        z, log_prob = draw_with_density_batch(self.dist, key_z, size, condition)
        x = self._signed(key_signs, z, condition)
        return x, log_prob + self._log_prob_of_signs(x, z, condition).astype(log_prob.dtype)

    def _signed(self, key, z, condition):
        logits = self._logits(z, condition)
        positive = jr.bernoulli(key, 0.5 if logits is None else jax.nn.sigmoid(logits), z.shape)
        return jnp.where(positive | ~chosen(self.columns), z, -z)

    def _log_prob_of_signs(self, x, z, condition):
        """The log probability of the signs of x."""
        mask = np.broadcast_to(chosen(self.columns), self.shape)
        logits = self._logits(z, condition)
        if logits is None:
            return jnp.full(len(x), -math.log(2) * int(mask.sum()), x.dtype)
        terms = jax.nn.log_sigmoid(jnp.where(x < 0, -logits, logits))
        return jnp.where(mask, terms, 0).sum(axis=tuple(range(1, x.ndim)))

    def _logits(self, z: Array, condition: Array | None) -> Array | None:
        """The log-odds of positive signs for each row, if they are not fair."""
        if self.signs is None:
            return None
        signs, shape = self.signs, self.shape

        def of_row(z, condition):
            entries = [z] if condition is None else [z, condition.astype(z.dtype)]
            logits = signs(jnp.concatenate([entry.reshape(-1) for entry in entries]))
            return jnp.broadcast_to(logits, shape).astype(z.dtype)

        own = condition is not None and condition.ndim > len(self.cond_shape or ())
        return jax.vmap(of_row, (0, 0 if own else None))(z, condition)
