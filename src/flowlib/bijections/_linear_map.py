"""What linear maps of vectors have in common: they act on columns, and all events have one log-det."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import float_dtype
from flowlib._module import unwrap_own
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._plu import same_log_det


class AbstractLinearMap(AbstractBijection):
    """y = W x for vectors x, with W written as a product of simple matrices.

    Subclasses write `_apply` and `_solve` for events that stand side by side as columns, and `_log_det`.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]

    @abstractmethod
    def _apply(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        """W x for each column."""

    @abstractmethod
    def _solve(self, columns: Float[Array, "dim n"]) -> Float[Array, "dim n"]:
        """W^-1 y for each column."""

    @abstractmethod
    def _log_det(self) -> Array | float:
        """log |det W|."""

    @property
    def matrix(self) -> Float[Array, "dim dim"]:
        """W."""
        return unwrap_own(self)._apply(jnp.eye(*self.shape, dtype=float_dtype(self)))

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._apply(x[:, None])[:, 0], self._log_det()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._solve(y[:, None])[:, 0], -self._log_det()

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return self._apply(x.T).T, same_log_det(self._log_det(), x)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return self._solve(y.T).T, same_log_det(-self._log_det(), y)
