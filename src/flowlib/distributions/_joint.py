"""Independent distributions side by side."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import float_dtype
from flowlib._module import peel
from flowlib.bijections import merge_cond_shapes
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._distribution import (
    AbstractDistribution,
    checked_dists,
    density_batch,
    draw_batch,
    draw_with_density_batch,
)
from flowlib.distributions._special import zero_times_infinity
from flowlib.distributions._statistics import (
    AbstractEntropy,
    AbstractInverseCdf,
    AbstractMeanVariance,
    closed_form,
    is_product,
    moment,
)
from flowlib.support import Support, join, reshaped


class Joint(AbstractBatchDistribution, AbstractMeanVariance, AbstractEntropy, AbstractInverseCdf):
    """p(x | condition) = prod_i p_i(x_i | condition), for vectors x whose blocks x_i follow unlike distributions.

    A base with another distribution in each dimension, say. A part over scalars takes one coordinate, one over vectors
    as many as it has. Its support is that of the parts, block by block. Parts without a condition stand beside
    conditional ones. A density and a draw cost those of all parts. `mean`, `variance`, `entropy`, `cdf` and `quantile`
    exist if all parts have them.

        Joint([Normal(), Exponential(2.0), Uniform(0, jnp.ones(3))]).shape  # (5,)

    Args:
        dists: the parts, over scalars or vectors.

    Raises:
        ValueError: if there is no part, one has events of two or more axes, or their conditions differ in shape.
        TypeError: if a part is not a distribution.
    """

    dists: tuple[AbstractDistribution, ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, dists: Sequence[AbstractDistribution]):
        self.dists = checked_dists(dists, "Joint", "distribution")
        parts = [peel(dist) for dist in self.dists]
        for part in parts:
            if part.ndim > 1:
                raise ValueError(f"Joint expected distributions over scalars or vectors, got events of {part.shape}.")
        self.shape = (sum(math.prod(part.shape) for part in parts),)
        self.cond_shape = merge_cond_shapes([part.cond_shape for part in parts], "Joint")

    @property
    def support(self) -> Support:
        parts = [peel(dist) for dist in self.dists]
        return join([_as_vector(part) for part in parts], [math.prod(part.shape) for part in parts], axis=0)

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        dtype = x.dtype
        blocks = zip(self.dists, self._blocks(x), strict=True)
        return _product([density_batch(dist, block, condition).astype(dtype) for dist, block in blocks])

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        keys = jr.split(key, len(self.dists))
        return self._joined([draw_batch(d, k, size, condition) for d, k in zip(self.dists, keys, strict=True)])

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        keys = jr.split(key, len(self.dists))
        pairs = [draw_with_density_batch(d, k, size, condition) for d, k in zip(self.dists, keys, strict=True)]
        dtype = float_dtype(self)
        return self._joined([x for x, _ in pairs]), _product([log_prob.astype(dtype) for _, log_prob in pairs])

    def _blocks(self, x: Array) -> list[Array]:
        """A batch of events as one of events of each part."""
        blocks, start = [], 0
        for dist in self.dists:
            shape = peel(dist).shape
            blocks.append(x[:, start : start + math.prod(shape)].reshape(len(x), *shape))
            start += math.prod(shape)
        return blocks

    def _joined(self, blocks: list[Array]) -> Array:
        dtype, sizes = float_dtype(self), [math.prod(peel(dist).shape) for dist in self.dists]
        flat = [block.reshape(len(block), size) for block, size in zip(blocks, sizes, strict=True)]
        return jnp.concatenate([block.astype(dtype) for block in flat], axis=1)

    def _mean(self) -> Array:
        return self._of_parts("_mean")

    def _variance(self) -> Array:
        return self._of_parts("_variance")

    def _entropy(self) -> Array:
        return jnp.stack([jnp.asarray(closed_form(d, "_entropy")(), float_dtype(self)) for d in self.dists]).sum()

    def _log_densities(self, x: Array) -> Array:
        return self._by_block("_log_densities", x)

    def _cdf(self, x: Array) -> Array:
        return self._by_block("_cdf", x)

    def _log_cdf(self, x: Array) -> Array:
        return self._by_block("_log_cdf", x)

    def _log_survival(self, x: Array) -> Array:
        return self._by_block("_log_survival", x)

    def _quantile(self, q: Array) -> Array:
        return self._by_block("_quantile", q)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return self._by_block("_inverse_log_cdf", log_q)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return self._by_block("_inverse_log_survival", log_q)

    def _inverse_log_tail(self, log_q: Array, upper: Array) -> Array:
        return self._by_block("_inverse_log_tail", log_q, upper)

    def _is_product(self, kind: type) -> bool:
        return all(is_product(peel(dist), kind) for dist in self.dists)

    def _of_parts(self, name: str) -> Array:
        return self._joined([moment(dist, name)[None] for dist in self.dists])[0]

    def _by_block(self, name: str, *arrays: Array) -> Array:
        blocks = zip(self.dists, *(self._blocks(array[None]) for array in arrays), strict=True)
        return self._joined([closed_form(dist, name)(*(block[0] for block in own))[None] for dist, *own in blocks])[0]


def _as_vector(part: AbstractDistribution) -> Support:
    return part.support if part.ndim == 1 else reshaped(part.support, ())


def _product(terms: list[Array]) -> Array:
    """The sum of log densities; where one is -inf and another inf, -inf and not NaN."""
    stacked = jnp.stack(terms)
    clash = jax.vmap(zero_times_infinity, 1)(stacked == -jnp.inf, stacked == jnp.inf)
    return jnp.where(clash, -jnp.inf, jnp.where(clash, 0, stacked).sum(0))
