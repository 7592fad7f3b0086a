"""Affine maps with a triangular matrix."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike
from paramax import Parameterize

from flowlib._arrays import check_values, is_concrete
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter, finite, inverse_softplus, lower_triangular, upper_triangular


class TriangularAffine(AbstractBijection):
    """y = A x + b with A triangular and a positive diagonal; log |det dy/dx| = sum log diag(A).

    Each direction is O(dim^2): a matrix product, and a triangular solve.

    Args:
        loc: b; a scalar is broadcast.
        arr: A, of shape (dim, dim); entries off the chosen triangle are ignored. The diagonal is kept
            positive by a softplus; replace the field `triangular` for another parameterisation.
        lower: whether A is lower or upper triangular. Defaults to True.

    Raises:
        ValueError: if `arr` is not square, its diagonal not positive, or `loc` does not fit.
    """

    loc: Parameter
    triangular: Parameter
    lower: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, loc: ArrayLike, arr: ArrayLike, *, lower: bool = True):
        loc, arr = finite(loc, "loc"), finite(arr, "arr")
        if arr.ndim != 2 or arr.shape[0] != arr.shape[1]:
            raise ValueError(f"TriangularAffine expected a square matrix as arr, got shape {arr.shape}.")
        dim = arr.shape[0]
        if loc.shape not in {(), (1,), (dim,)}:
            raise ValueError(f"TriangularAffine expected loc of shape ({dim},), got {loc.shape}.")
        xp = np if is_concrete(arr) else jnp
        diagonal = xp.diagonal(arr)
        check_values(diagonal, "The diagonal of arr", lambda d: d > 0, "positive")
        arr = jnp.asarray(xp.where(xp.eye(dim, dtype=bool), inverse_softplus(diagonal), arr))
        self.loc = jnp.broadcast_to(loc, (dim,))
        self.triangular = Parameterize(lower_triangular if lower else upper_triangular, arr)
        self.lower = lower
        self.shape = (dim,)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self.triangular @ x + self.loc, self._log_diagonal()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return solve_triangular(self.triangular, y - self.loc, lower=self.lower), -self._log_diagonal()

    def _log_diagonal(self):
        return jnp.log(jnp.abs(jnp.diagonal(self.triangular))).sum()
