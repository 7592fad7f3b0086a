"""The normal distribution with a full covariance."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib._module import unwrap_own
from flowlib.bijections import TriangularAffine
from flowlib.distributions._covariance import spread, squared
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
        self.bijection = spread(loc, covariance, "MultivariateNormal", "covariance")
        self.base_dist = StandardNormal(self.bijection.shape)

    @property
    def loc(self) -> Array:
        """The mean, a plain array of shape (dim,)."""
        return self._affine().loc

    @property
    def covariance(self) -> Array:
        """The covariance, a plain array of shape (dim, dim)."""
        return squared(self._factor())

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
