"""Student's t distribution of vectors."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib._module import unwrap_own
from flowlib.bijections import TriangularAffine
from flowlib.constraints import finite, positive
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._covariance import spread, squared
from flowlib.distributions._special import HALF_LOG_2PI, digamma_excess, stirling_remainder
from flowlib.distributions._statistics import AbstractMoments
from flowlib.distributions._transformed import AbstractTransformed
from flowlib.support import Real, Support


class _SphericalStudentT(AbstractBatchSampler, AbstractMoments):
    """log p(z) = -(df + dim)/2 log(1 + |z|^2/df) + log Gamma((df + dim)/2) - log Gamma(df/2) - dim log(pi df)/2."""

    _df: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, df: Array, shape: tuple[int, ...]):
        self._df = positive(df, "df")
        self.shape = shape

    @property
    def support(self) -> Support:
        return Real()

    @property
    def df(self) -> Array:
        return unwrap(self._df)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return -0.5 * (self.df + x.size) * _log1p_length(x / jnp.sqrt(self.df)) + self._log_peak()

    def _log_peak(self) -> Array:
        # The log density at 0: a quotient of Gamma functions by Stirling's formula, whose leading terms cancel.
        half, k = 0.5 * self.df, 0.5 * math.prod(self.shape)
        remainders = stirling_remainder(half + k) - stirling_remainder(half)
        return (half + k - 0.5) * jnp.log1p(k / half) - k + remainders - 2 * k * HALF_LOG_2PI

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        # The chi-square in logarithms: for small df it underflows, while the draw itself does not overflow.
        key_normal, key_gamma = jr.split(key)
        half = jnp.broadcast_to(0.5 * self.df, (size, 1))
        log_gamma = jr.loggamma(key_gamma, half, dtype=half.dtype)
        return jr.normal(key_normal, (size, *self.shape), half.dtype) * jnp.exp(0.5 * (jnp.log(half) - log_gamma))

    def _mean(self) -> Array:
        return jnp.where(self.df > 1, 0, jnp.nan)

    def _variance(self) -> Array:
        finite_variance = self.df > 2
        variance = self.df / (jnp.where(finite_variance, self.df, 3) - 2)
        return jnp.where(finite_variance, variance, jnp.where(self.df > 1, jnp.inf, jnp.nan))

    def _entropy(self) -> Array:
        half, k = 0.5 * self.df, 0.5 * math.prod(self.shape)
        digammas = jnp.log1p(k / half) + digamma_excess(half + k) - digamma_excess(half)
        return (half + k) * digammas - self._log_peak()


class MultivariateStudentT(AbstractTransformed, AbstractMoments):
    """Student's t for vectors, with d(x) = (x - loc)^T S^-1 (x - loc) for a scale matrix S.

    log p(x) = -(df + dim)/2 log(1 + d(x)/df) + log Gamma((df + dim)/2) - log Gamma(df/2) - log det(pi df S)/2.

    `scipy.stats.multivariate_t(loc, scale_matrix, df)`. All coordinates are far out together, unlike those of
    `StudentT`. The parameters that train are df, `loc` and the Cholesky factor of S. A density or a draw costs
    O(dim^2). Has mean (NaN for df <= 1), variance (the diagonal of df/(df - 2) S; inf for df <= 2, NaN for df <= 1)
    and entropy in closed form.

    Args:
        df: positive degrees of freedom, a scalar.
        loc: centres, of shape (dim,); a scalar is broadcast.
        scale_matrix: S, of shape (dim, dim), symmetric and positive definite.

    Raises:
        ValueError: if df is no positive scalar, S is not square, symmetric and positive definite (as far as
            rounding in its own precision lets one tell), a value is not finite, or `loc` does not fit.
    """

    base_dist: _SphericalStudentT
    bijection: TriangularAffine

    def __init__(self, df: ArrayLike, loc: ArrayLike, scale_matrix: ArrayLike):
        df = finite(df, "df")
        if df.shape != ():
            raise ValueError(f"MultivariateStudentT expected a scalar df, got shape {df.shape}.")
        self.bijection = spread(loc, scale_matrix, "MultivariateStudentT", "scale_matrix")
        self.base_dist = _SphericalStudentT(df, self.bijection.shape)

    @property
    def df(self) -> Array:
        """The degrees of freedom, a plain scalar array."""
        return self._base().df

    @property
    def loc(self) -> Array:
        """The centre, a plain array of shape (dim,)."""
        return self._affine().loc

    @property
    def scale_matrix(self) -> Array:
        """S, a plain array of shape (dim, dim)."""
        return squared(self._affine().triangular)

    def _affine(self) -> Any:
        return unwrap_own(self.bijection)

    def _base(self) -> Any:
        return unwrap_own(self.base_dist)

    def _mean(self) -> Array:
        return self.loc + self._base()._mean()

    def _variance(self) -> Array:
        return (self._affine().triangular ** 2).sum(axis=1) * self._base()._variance()

    def _entropy(self) -> Array:
        return self._base()._entropy() + jnp.log(jnp.diagonal(self._affine().triangular)).sum()


def _log1p_length(z: Array) -> Array:
    """log(1 + |z|^2), without overflow of the square."""
    # The result does not depend on the unit, so neither does its derivative.
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(z).max(), 1))
    square = ((z / unit) ** 2).sum()
    small = unit == 1
    return jnp.where(
        small, jnp.log1p(square), 2 * jnp.log(unit) + jnp.log((1 / unit) ** 2 + jnp.where(small, 1, square))
    )
