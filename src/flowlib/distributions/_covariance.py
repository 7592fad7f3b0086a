"""Positive definite matrices: checked, and as the triangular maps that make them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import is_concrete
from flowlib.bijections import TriangularAffine
from flowlib.constraints import finite


def spread(loc: ArrayLike, matrix: ArrayLike, owner: str, name: str) -> TriangularAffine:
    """The map z -> loc + L z with L L^T the matrix, a parameter of `owner` called `name`."""
    loc, matrix = finite(loc, "loc"), finite(matrix, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"{owner} expected a square {name}, got shape {matrix.shape}.")
    dim = matrix.shape[0]
    if loc.shape not in {(), (1,), (dim,)}:
        raise ValueError(f"{owner} expected loc of shape ({dim},), got {loc.shape}.")
    return TriangularAffine(loc, _cholesky(matrix, owner, name))


def squared(factor: Array) -> Array:
    """L L^T."""
    return jnp.matmul(factor, factor.T, precision="highest")


def _cholesky(covariance: Array, owner: str, name: str) -> Array:
    if not is_concrete(covariance):
        return jnp.linalg.cholesky(covariance)
    matrix = np.asarray(covariance, np.float64)
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 8 * len(matrix) * float(jnp.finfo(covariance.dtype).eps) * np.abs(matrix).max():
        raise ValueError(f"{owner} expected a symmetric {name}, got entries {asymmetry:.3g} from their mirror image.")
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(matrix)[0]
        raise ValueError(
            f"{owner} expected a positive definite {name}, got smallest eigenvalue {smallest:.3g}."
        ) from None
    return jnp.asarray(factor, covariance.dtype)
