"""What the families with a location and a scale share."""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flowlib._module import unwrap_own
from flowlib.bijections import AbstractBijection
from flowlib.distributions._statistics import AbstractCdf, AbstractQuantile
from flowlib.distributions._transformed import AbstractTransformed
from flowlib.support import Real, Support


class AbstractStandard(AbstractCdf):
    """The member of a family on the reals with location 0 and scale 1, in independent coordinates."""

    cond_shape: ClassVar[None] = None

    @property
    def support(self) -> Support:
        return Real()

    @abstractmethod
    def _draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        """Independent draws; `shape` ends in the event's."""

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        return self._draw(key, self.shape)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        return self._draw(key, (size, *self.shape))


class AbstractSymmetric(AbstractStandard):
    """A standard member whose density is even: what holds above 0 holds below."""

    def _log_survival(self, x: Array) -> Array:
        return self._log_cdf(-x)

    def _log_tails(self, x: Array) -> tuple[Array, Array]:
        # Together, since some cdfs take long to compile.
        below, above = jax.vmap(self._log_cdf)(jnp.stack([x, -x]))
        return below, above


class AbstractSymmetricQuantile(AbstractSymmetric, AbstractQuantile):
    """One that has quantiles too."""

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return -self._inverse_log_cdf(log_q)


class AbstractLocScaleDistribution(AbstractTransformed, AbstractCdf):
    """The distribution of loc + scale z, where z follows the standard member of a family.

    A subclass has the fields `base_dist`, the standard member, and `bijection`, an `Affine`. It gets
    a sampler, a density, `loc` and `scale`, and whichever closed forms its base has.
    """

    # The standard member of the family.
    base_dist: eqx.AbstractVar[Any]
    # An `Affine` of the shape of the base.
    bijection: eqx.AbstractVar[AbstractBijection]

    @property
    def loc(self) -> Array:
        """The location, a plain array of shape `shape`."""
        return self._affine().loc

    @property
    def scale(self) -> Array:
        """The positive scale, a plain array of shape `shape`."""
        return self._affine().scale

    def _affine(self) -> Any:
        return unwrap_own(self.bijection)

    def _base(self) -> Any:
        return unwrap_own(self.base_dist)

    def _mean(self) -> Array:
        return self.loc + self.scale * self._base()._mean()

    def _variance(self) -> Array:
        return self.scale**2 * self._base()._variance()

    def _entropy(self) -> Array:
        return self._base()._entropy() + jnp.log(self.scale).sum()

    def _log_densities(self, x: Array) -> Array:
        return self._base()._log_densities(self._standardised(x)) - jnp.log(self.scale)

    def _cdf(self, x: Array) -> Array:
        return self._base()._cdf(self._standardised(x))

    def _log_cdf(self, x: Array) -> Array:
        return self._base()._log_cdf(self._standardised(x))

    def _log_survival(self, x: Array) -> Array:
        return self._base()._log_survival(self._standardised(x))

    def _log_tails(self, x: Array) -> tuple[Array, Array]:
        return self._base()._log_tails(self._standardised(x))

    def _standardised(self, x: Array) -> Array:
        return (x - self.loc) / self.scale

    def _quantile(self, q: Array) -> Array:
        return self.loc + self.scale * self._base()._quantile(q)

    def _inverse_log_cdf(self, log_q: Array) -> Array:
        return self.loc + self.scale * self._base()._inverse_log_cdf(log_q)

    def _inverse_log_survival(self, log_q: Array) -> Array:
        return self.loc + self.scale * self._base()._inverse_log_survival(log_q)

    def _inverse_log_tail(self, log_q: Array, upper: Array) -> Array:
        return self.loc + self.scale * self._base()._inverse_log_tail(log_q, upper)
