"""Reorderings of the elements of an event."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int

from flowlib._arrays import as_shape, is_concrete
from flowlib.bijections._bijection import AbstractBijection


class Permute(AbstractBijection):
    """y.ravel() = x.ravel()[permutation.ravel()]; the log-det is 0. Both directions O(size).

    Args:
        permutation: integers 0 to size - 1, each once, in the shape of the event.

    Raises:
        ValueError: if it is no permutation.
    """

    permutation: Int[Array, "..."]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, permutation: ArrayLike):
        if is_concrete(permutation):
            permutation = np.asarray(permutation)
            if not np.array_equal(np.sort(permutation.ravel()), np.arange(permutation.size)):
                raise ValueError(
                    f"Permute expected each of 0 to {permutation.size - 1} once, got {permutation.ravel().tolist()}."
                )
        self.permutation = jnp.asarray(permutation, jnp.int32)
        self.shape = self.permutation.shape

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return x.ravel()[self.permutation], 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        inverse = jnp.argsort(self.permutation.ravel())
        return y.ravel()[inverse].reshape(self.shape), 0.0


class Flip(AbstractBijection):
    """y = x with its elements reversed along every axis; its own inverse, log-det 0. Both directions O(size).

    Args:
        shape: the shape of an event. Defaults to ().
    """

    shape: tuple[int, ...] = eqx.field(default=(), static=True, converter=as_shape)
    cond_shape: ClassVar[None] = None

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return jnp.flip(x), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return jnp.flip(y), 0.0
