"""Events in another shape."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import as_shape
from flowlib._module import check_condition, peel
from flowlib.bijections._bijection import AbstractBijection, backward, check_is_bijection, forward
from flowlib.support import Real, Support, reshaped


class Reshape(AbstractBijection):
    """A bijection on events (and conditions) of another shape, or a plain change of shape.

    `Reshape(f, shape)` is x -> f(x.reshape(f.shape)), with the result in `shape` again.
    `Reshape(shape=a, out_shape=b)` only reshapes, from a to b, with log-det 0. Both may be given
    together. Elements keep their C-like order; the costs are those of f.

    Args:
        bijection: f, or None for none.
        shape: the shape of events that go in. Defaults to `f.shape`.
        cond_shape: the shape of conditions. Defaults to `f.cond_shape`.
        out_shape: the shape of events that come out. Defaults to `shape` (to `f.out_shape` if
            `shape` is not given either).

    Raises:
        ValueError: if sizes differ, an unconditional f is given a cond_shape, or nothing is given.
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection | None
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    _out_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        bijection: AbstractBijection | None = None,
        shape: tuple[int, ...] | None = None,
        cond_shape: tuple[int, ...] | None = None,
        *,
        out_shape: tuple[int, ...] | None = None,
    ):
        if bijection is None and (shape is None or out_shape is None):
            raise ValueError("Reshape expected a bijection, or shape and out_shape; got neither.")
        if bijection is None:
            inner_in = inner_out = as_shape(shape)
            inner_cond = None
        else:
            check_is_bijection(bijection, "Reshape")
            inner = peel(bijection)
            inner_in, inner_out, inner_cond = inner.shape, inner.out_shape, inner.cond_shape
        default_out = inner_out if shape is None or math.prod(inner_in) != math.prod(inner_out) else shape
        self.bijection = bijection
        self.shape = inner_in if shape is None else as_shape(shape)
        self.cond_shape = inner_cond if cond_shape is None else as_shape(cond_shape, "cond_shape")
        self._out_shape = as_shape(default_out if out_shape is None else out_shape, "out_shape")
        _check_sizes("shape", self.shape, inner_in)
        _check_sizes("out_shape", self._out_shape, inner_out)
        if self.cond_shape is not None:
            if inner_cond is None:
                raise ValueError(f"Reshape got cond_shape {cond_shape} for an unconditional bijection.")
            _check_sizes("cond_shape", self.cond_shape, inner_cond)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self._out_shape

    @property
    def domain(self) -> Support:
        return Real() if self.bijection is None else reshaped(peel(self.bijection).domain, peel(self.bijection).shape)

    @property
    def codomain(self) -> Support:
        if self.bijection is None:
            return Real()
        return reshaped(peel(self.bijection).codomain, peel(self.bijection).out_shape)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        if self.bijection is None:
            return x.reshape(self._out_shape), 0.0
        x = x.reshape(peel(self.bijection).shape)
        y, log_det = forward(self.bijection, x, self._inner_condition(condition))
        return y.reshape(self._out_shape), log_det

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        if self.bijection is None:
            return y.reshape(self.shape), 0.0
        y = y.reshape(peel(self.bijection).out_shape)
        x, log_det = backward(self.bijection, y, self._inner_condition(condition))
        return x.reshape(self.shape), log_det

    def _check_condition(self, condition: ArrayLike) -> None:
        if self.bijection is not None and self.cond_shape is not None:
            batch = np.shape(condition)[: np.ndim(condition) - len(self.cond_shape)]
            check_condition(self.bijection, np.reshape(condition, (*batch, *peel(self.bijection).cond_shape)))

    def _inner_condition(self, condition):
        return None if condition is None else condition.reshape(peel(self.bijection).cond_shape)


def _check_sizes(name: str, outer: tuple[int, ...], inner: tuple[int, ...]) -> None:
    if math.prod(outer) != math.prod(inner):
        raise ValueError(f"Reshape expected a {name} with {math.prod(inner)} elements like {inner}, got {outer}.")
