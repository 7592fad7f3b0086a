"""Linear maps by the factors of a QR and of a singular value decomposition."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Bool

from flowlib._arrays import check_count, default_float, promoted
from flowlib._run_once import run_once
from flowlib.bijections._linear_map import AbstractLinearMap
from flowlib.bijections._plu import checked_matrix, with_signs
from flowlib.bijections._reflections import packed_vectors, reflect
from flowlib.constraints import Parameter


class QRLinear(AbstractLinearMap):
    """y = Q R x with Q orthogonal and R upper triangular; log |det dy/dx| = sum log |R_ii|, O(dim).

    Q is a product of dim - 1 reflections, the diagonal of R is sign exp(log |R_ii|), and the signs stay: the map is
    invertible wherever training goes. Each direction O(dim^2): products, and small or triangular solves. Unlike that
    of `InvertibleLinear`, the inverse never multiplies by a factor that is worse conditioned than the matrix.

    Args:
        dim: the dimension of an event.
        init: the matrix Q R at first, of shape (dim, dim). Defaults to the identity.

    Raises:
        ValueError: if `init` is not square of size `dim`, not finite or singular.

    References:
        Hoogeboom, van den Berg and Welling 2019, section 3.3 (arXiv:1901.11137).
    """

    # The vectors of the reflections below the diagonal, log |R_ii| on it and R above: none of its numbers is idle.
    packed: Parameter
    positive: Bool[Array, "*stack dim"]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int, *, init: ArrayLike | None = None):
        dim = check_count(dim, "dim")
        if init is None:
            # Each reflection turns the sign of a coordinate, and R turns it back.
            self.packed, self.positive = _zeros(dim), jnp.asarray(np.arange(dim) == dim - 1)
        else:
            self.packed, self.positive = _qr(checked_matrix(init, dim, "QRLinear"))
        self.shape = (dim,)

    def _apply(self, columns: Array) -> Array:
        columns = jnp.matmul(self._upper(), columns, precision="highest")
        return reflect(packed_vectors(self.packed), columns)

    def _solve(self, columns: Array) -> Array:
        columns = reflect(packed_vectors(self.packed), columns, transpose=True)
        return solve_triangular(self._upper(), columns)

    def _log_det(self) -> Array:
        return jnp.diagonal(self.packed).sum()

    def _upper(self) -> Array:
        diagonal = with_signs(self.positive, jnp.exp(jnp.diagonal(self.packed)))
        return jnp.where(jnp.eye(len(self.packed), dtype=bool), diagonal, jnp.triu(self.packed))


class SVDLinear(AbstractLinearMap):
    """y = U diag(s) V^T x with U and V orthogonal; log |det dy/dx| = sum log |s|, O(dim).

    U and V are products of dim - 1 reflections each, s = sign exp(log |s|), and the signs stay: the map is
    invertible wherever training goes, and how badly conditioned it is stands in s. Each direction O(dim^2), and the
    inverse no more than the map itself: products, and two small triangular solves.

    Args:
        dim: the dimension of an event.
        init: the matrix at first, of shape (dim, dim). Defaults to the identity.

    Raises:
        ValueError: if `init` is not square of size `dim`, not finite or singular.

    References:
        Zhang, Lei and Dhillon 2018, section 3 (arXiv:1803.09327).
    """

    # The vectors of the reflections of U below the diagonal, log |s| on it, and those of V above, transposed.
    packed: Parameter
    positive: Bool[Array, "*stack dim"]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int, *, init: ArrayLike | None = None):
        dim = check_count(dim, "dim")
        if init is None:
            self.packed, self.positive = _zeros(dim), jnp.asarray(np.ones(dim, bool))
        else:
            self.packed, self.positive = _svd(checked_matrix(init, dim, "SVDLinear"))
        self.shape = (dim,)

    def _apply(self, columns: Array) -> Array:
        columns = reflect(packed_vectors(self.packed.T), columns, transpose=True)
        return reflect(packed_vectors(self.packed), self._scaled(columns, 1))

    def _solve(self, columns: Array) -> Array:
        columns = reflect(packed_vectors(self.packed), columns, transpose=True)
        return reflect(packed_vectors(self.packed.T), self._scaled(columns, -1))

    def _log_det(self) -> Array:
        return jnp.diagonal(self.packed).sum()

    def _scaled(self, columns: Array, power: int) -> Array:
        return with_signs(self.positive, jnp.exp(power * jnp.diagonal(self.packed)))[:, None] * columns


def _zeros(dim: int) -> Array:
    return jnp.asarray(np.zeros((dim, dim), default_float()))


@run_once
def _qr(matrix: Array) -> tuple[Array, Array]:
    reflections, upper = _reflected(matrix.astype(promoted(matrix.dtype, jnp.float32)))
    return _packed(reflections, jnp.diagonal(upper), jnp.triu(upper, 1), matrix.dtype), jnp.diagonal(upper) > 0


@run_once
def _svd(matrix: Array) -> tuple[Array, Array]:
    left, values, right = jnp.linalg.svd(matrix.astype(promoted(matrix.dtype, jnp.float32)))
    left, left_signs = _reflected(left)
    right, right_signs = _reflected(right.T)
    positive = (jnp.diagonal(left_signs) > 0) == (jnp.diagonal(right_signs) > 0)
    return _packed(left, values, right.T, matrix.dtype), positive


def _packed(lower, diagonal, upper, dtype):
    return jnp.where(jnp.eye(len(lower), dtype=bool), jnp.log(jnp.abs(diagonal)), lower + upper).astype(dtype)


def _reflected(matrix):
    """Reflections as `packed_vectors` reads them, and the upper triangular rest; LAPACK's, with none left out."""
    packed, scales = jnp.linalg.qr(matrix, mode="raw")
    # Left out are those of columns that are zero below the diagonal. Ours turn a sign there, and so must the rest.
    left_out = (scales == 0) & (jnp.arange(len(matrix), dtype=jnp.int32) < len(matrix) - 1)
    upper = jnp.triu(packed.T)
    return jnp.tril(packed.T, -1), jnp.where(left_out[:, None], -upper, upper)
