"""A diagonal matrix plus one of low rank."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_key, default_float
from flowlib.bijections._linear_map import AbstractLinearMap
from flowlib.bijections._reflections import reflect
from flowlib.constraints import Parameter


class DiagonalLowRank(AbstractLinearMap):
    """y = diag(d) (I + U V^T) x with U, V of shape (dim, rank); log |det dy/dx| = sum log d + sum log diag(C), O(dim).

    C = I + V^T U, a small matrix, decides whether the map is invertible: by the determinant lemma det(I + U V^T) is
    det C, and by Woodbury's identity (I + U V^T)^-1 = I - U C^-1 V^T. So C is a parameter, as a product of a unit
    lower and an upper triangular matrix with a positive diagonal, and the map is invertible whatever the numbers. V has
    orthonormal columns, the first ones of a product H of `rank` reflections, and U is any matrix that gives this C. In
    the coordinates H^T x, I + U V^T is the identity but for `rank` columns, C above and a free part below,
    which is how it is computed: O(dim rank) for each event in both directions.

    It starts as the identity, with V random.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        rank: the rank of U V^T, at most `dim`. Defaults to 1.

    Raises:
        ValueError: if `dim` or `rank` is out of range.
    """

    log_scale: Parameter
    vectors: Parameter
    # C packed as LAPACK packs L U, with the logarithms of the diagonal; below it the rest of those columns.
    packed: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, key: PRNGKeyArray, *, dim: int, rank: int = 1):
        dim, rank = check_count(dim, "dim"), check_count(rank, "rank")
        if rank > dim:
            raise ValueError(f"DiagonalLowRank expected a rank of at most dim, {dim}, got {rank}.")
        self.vectors = jr.normal(check_key(key), (rank, dim)) / math.sqrt(dim)
        self.log_scale = jnp.asarray(np.zeros(dim, default_float()))
        self.packed = jnp.asarray(np.zeros((dim, rank), default_float()))
        self.shape = (dim,)

    def _apply(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        lower, upper, below = self._factors()
        rank = len(upper)
        columns = reflect(self.vectors, columns, transpose=True)
        above = columns[:rank]
        moved = _product(lower, _product(upper, above))
        columns = jnp.concatenate([moved, columns[rank:] + _product(below, above)])
        return jnp.exp(self.log_scale)[:, None] * reflect(self.vectors, columns)

    def _solve(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        lower, upper, below = self._factors()
        rank = len(upper)
        columns = reflect(self.vectors, jnp.exp(-self.log_scale)[:, None] * columns, transpose=True)
        above = solve_triangular(lower, columns[:rank], lower=True, unit_diagonal=True)
        above = solve_triangular(upper, above)
        return reflect(self.vectors, jnp.concatenate([above, columns[rank:] - _product(below, above)]))

    def _log_det(self) -> Array:
        return self.log_scale.sum() + jnp.diagonal(self.packed).sum()

    def _factors(self) -> tuple[Array, Array, Array]:
        rank = self.packed.shape[1]
        small, below = self.packed[:rank], self.packed[rank:]
        diagonal = jnp.eye(rank, dtype=bool)
        lower = jnp.where(diagonal, 1, jnp.tril(small))
        return lower, jnp.where(diagonal, jnp.exp(jnp.diagonal(small)), jnp.triu(small)), below


def _product(matrix: Array, columns: Array) -> Array:
    return jnp.matmul(matrix, columns, precision="highest")
