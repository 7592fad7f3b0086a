"""A bijection on some elements of the event."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from flowlib._arrays import as_shape
from flowlib._module import peel
from flowlib.bijections._bijection import AbstractBijection, backward, check_is_bijection, forward
from flowlib.support import Real, Scattered, Support


class Indexed(AbstractBijection):
    """y[idxs] = f(x[idxs]); all other elements stay. Costs and log-det are those of f.

    Args:
        bijection: f, of the shape of `x[idxs]`.
        idxs: anything that indexes a NumPy array: an integer, a slice, an integer or boolean array, or a tuple.
        shape: the shape of an event.

    Raises:
        ValueError: if `x[idxs]` has not the shape of f, f changes its shape, or an element is named twice.
        IndexError: if an index is out of range.
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection
    indices: Int[Array, "..."]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, bijection: AbstractBijection, idxs: Any, shape: tuple[int, ...]):
        check_is_bijection(bijection, "Indexed")
        self.shape = as_shape(shape)
        # Flat positions, found with NumPy: they stay concrete inside jit, and a slice needs no special case.
        idxs = tuple(map(_concrete, idxs)) if isinstance(idxs, tuple) else _concrete(idxs)
        indices = np.arange(np.prod(self.shape, dtype=int)).reshape(self.shape)[idxs]
        inner = peel(bijection)
        if inner.shape != indices.shape or inner.out_shape != inner.shape:
            raise ValueError(f"Indexed expected a bijection of shape {indices.shape} like x[idxs], got {inner.shape}.")
        if len(np.unique(indices)) != indices.size:
            raise ValueError(f"Indexed expected each element at most once, got positions {indices.ravel().tolist()}.")
        self.bijection = bijection
        self.indices = jnp.asarray(indices, jnp.int32)
        self.cond_shape = inner.cond_shape

    @property
    def domain(self) -> Support:
        return self._whole(peel(self.bijection).domain)

    @property
    def codomain(self) -> Support:
        return self._whole(peel(self.bijection).codomain)

    def _whole(self, part: Support) -> Support:
        return part if isinstance(part, Real) else Scattered(part, self.indices)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._apply(forward, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._apply(backward, y, condition)

    def _apply(self, step, x, condition):
        flat = x.ravel()
        part, log_det = step(self.bijection, flat[self.indices], condition)
        return flat.at[self.indices].set(part).reshape(self.shape), log_det


def _concrete(idxs):
    return idxs if isinstance(idxs, int | slice | type(None) | type(...)) else np.asarray(idxs)
