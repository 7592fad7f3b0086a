"""The normal distribution with a full covariance."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import is_concrete
from flowlib._module import unwrap_own
from flowlib.bijections import TriangularAffine
from flowlib.constraints import finite
from flowlib.distributions._normal import StandardNormal
from flowlib.distributions._statistics import AbstractMoments
from flowlib.distributions._transformed import AbstractTransformed


class MultivariateNormal(AbstractTransformed, AbstractMoments):
    """log p(x) = -(x - loc)^T C^-1 (x - loc)/2 - log det(2 pi C)/2, for a covariance matrix C.

    `scipy.stats.multivariate_normal(loc, covariance)`. The parameters that train are `loc` and the
    Cholesky factor of C. A density or a draw costs O(dim^2). Has mean, variance (the diagonal of C)
    and entropy in closed form.

    Args:
        loc: means, of shape (dim,); a scalar is broadcast.
        covariance: C, of shape (dim, dim), symmetric and positive definite.

    Raises:
        ValueError: if C is not square, symmetric and positive definite (as far as rounding in its
            own precision lets one tell), a value is not finite, or `loc` does not fit.
    """

    base_dist: StandardNormal
    bijection: TriangularAffine

    def __init__(self, loc: ArrayLike, covariance: ArrayLike):
        loc, covariance = finite(loc, "loc"), finite(covariance, "covariance")
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.shape[0] == 0:
            raise ValueError(f"MultivariateNormal expected a square covariance, got shape {covariance.shape}.")
        dim = covariance.shape[0]
        if loc.shape not in {(), (1,), (dim,)}:
            raise ValueError(f"MultivariateNormal expected loc of shape ({dim},), got {loc.shape}.")
        self.bijection = TriangularAffine(loc, _cholesky(covariance))
        self.base_dist = StandardNormal((dim,))

    @property
    def loc(self) -> Array:
        """The mean, a plain array of shape (dim,)."""
        return self._affine().loc

    @property
    def covariance(self) -> Array:
        """The covariance, a plain array of shape (dim, dim)."""
        factor = self._factor()
        return jnp.matmul(factor, factor.T, precision="highest")

    def _affine(self) -> Any:
        return unwrap_own(self.bijection)

    def _factor(self) -> Array:
        return self._affine().triangular

    def _mean(self) -> Array:
        return self.loc

    def _variance(self) -> Array:
        return (self._factor() ** 2).sum(axis=1)

    def _entropy(self) -> Array:
        return self.base_dist._entropy() + jnp.log(jnp.diagonal(self._factor())).sum()


def _cholesky(covariance):
    if not is_concrete(covariance):
        return jnp.linalg.cholesky(covariance)
    matrix = np.asarray(covariance, np.float64)
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 8 * len(matrix) * float(jnp.finfo(covariance.dtype).eps) * np.abs(matrix).max():
        raise ValueError(
            f"MultivariateNormal expected a symmetric covariance, got entries {asymmetry:.3g} from their mirror image."
        )
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(matrix)[0]
        raise ValueError(
            f"MultivariateNormal expected a positive definite covariance, got smallest eigenvalue {smallest:.3g}."
        ) from None
    return jnp.asarray(factor, covariance.dtype)
