"""An invertible matrix by its factors, applied to columns."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from flowlib._arrays import check_key, check_values, is_concrete, promoted, real_array
from flowlib._module import Module
from flowlib._run_once import run_once
from flowlib.bijections._bijection import LogDet
from flowlib.constraints import Parameter


class PLU(Module):
    """W = P L (U + diag(s)): P a fixed permutation, L unit lower and U strictly upper triangular, s = sign exp(log s).

    It is invertible whatever the floats, since the signs are fixed too.
    """

    # (P z)[i] = z[permutation[i]].
    permutation: Int[Array, "*stack dim"]
    # L below the diagonal, log |s| on it and U above, as LAPACK packs them: none of its dim^2 numbers is idle.
    packed: Parameter
    positive: Bool[Array, "*stack dim"]

    def log_det(self) -> Array:
        """log |det W|, O(dim)."""
        return jnp.diagonal(self.packed).sum()

    def matrix(self) -> Float[Array, "dim dim"]:
        """W, O(dim^3)."""
        lower, upper = self._factors()
        return jnp.matmul(lower, upper, precision="highest")[self.permutation]

    def apply(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        """W x for each column."""
        dim, n = columns.shape
        if n > dim:
            # One product of the factors costs less than a second product with every column.
            return jnp.matmul(self.matrix(), columns, precision="highest")
        lower, upper = self._factors()
        columns = jnp.matmul(upper, columns, precision="highest")
        return jnp.matmul(lower, columns, precision="highest")[self.permutation]

    def solve(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        """W^-1 y for each column, by two triangular solves with many right-hand sides."""
        columns = columns[jnp.argsort(self.permutation)]
        lower, upper = self._factors()
        columns = solve_triangular(lower, columns, lower=True, unit_diagonal=True)
        return solve_triangular(upper, columns, lower=False)

    def _factors(self) -> tuple[Array, Array]:
        diagonal = jnp.eye(len(self.packed), dtype=bool)
        lower = jnp.where(diagonal, 1, jnp.tril(self.packed))
        s = with_signs(self.positive, jnp.exp(jnp.diagonal(self.packed)))
        return lower, jnp.where(diagonal, s, jnp.triu(self.packed))


def make_plu(key: PRNGKeyArray, dim: int, init: ArrayLike | None, where: str) -> PLU:
    """The factors of `init`, or else of a random rotation.

    Raises:
        ValueError: if `init` is not of shape (dim, dim), not finite or singular.
    """
    key = check_key(key)
    return _random_rotation(key, dim) if init is None else _factorise(checked_matrix(init, dim, where))


def with_signs(positive: Bool[Array, " dim"], magnitudes: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The numbers of these magnitudes, negative where not `positive`."""
    return jnp.where(positive, magnitudes, -magnitudes)


def same_log_det(value: Array | float, x: Array) -> LogDet:
    """One log-det for every row of a batch."""
    zero = LogDet.zero(x, x.shape[:1])
    return LogDet(zero.value + value, zero.valid)


@run_once
def _random_rotation(key: PRNGKeyArray, dim: int) -> PLU:
    # The signs make the distribution of Q that of Haar (Mezzadri 2007).
    q, r = jnp.linalg.qr(jr.normal(key, (dim, dim)))
    return _factorised(q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype))


@run_once
def _factorise(matrix: Array) -> PLU:
    return _factorised(matrix)


def _factorised(matrix: Array) -> PLU:
    # Here matrix[order] = L U, of which P is the inverse.
    lu, _, order = jax.lax.linalg.lu(matrix.astype(promoted(matrix.dtype, jnp.float32)))
    s = jnp.diagonal(lu)
    packed = jnp.where(jnp.eye(len(lu), dtype=bool), jnp.log(jnp.abs(s)), lu)
    return PLU(jnp.argsort(order).astype(jnp.int32), packed.astype(matrix.dtype), s > 0)


def checked_matrix(init: ArrayLike, dim: int, where: str) -> Array:
    """`init` as an array, if it is a finite and invertible matrix of its size.

    Raises:
        ValueError: otherwise.
    """
    matrix = real_array(init, "init")
    if matrix.shape != (dim, dim):
        raise ValueError(f"{where} expected a matrix of shape {(dim, dim)} as init, got shape {matrix.shape}.")
    check_values(matrix, "init", np.isfinite, "finite")
    if is_concrete(matrix) and _is_singular(np.asarray(matrix, np.float64), float(jnp.finfo(matrix.dtype).eps)):
        raise ValueError(f"{where} expected an invertible matrix as init, got a singular one.")
    return matrix


def _is_singular(matrix: np.ndarray, eps: float) -> bool:
    # Columns and rows first to one size: a small one is not dependent on others.
    for axis in (0, 1):
        size = np.abs(matrix).max(axis, keepdims=True)
        if not size.all():
            return True
        matrix = matrix / size
    values = np.linalg.svd(matrix, compute_uv=False)
    return bool(values[-1] <= len(matrix) * eps * values[0])
