"""From the real line onto the ranges that data come in."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import as_shape, check_values, is_concrete, real_array
from flowlib._box import as_box, as_support, from_reals, shape_of, to_reals
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter
from flowlib.parameters import freeze
from flowlib.support import Box, Support


class ToSupport(AbstractBijection):
    """Each coordinate from the real line onto a range of its own: the line, a half-line, an interval or a circle.

        (-inf, inf)     y = x
        (low, inf)      y = low + exp(x)                                log dy/dx = x
        (-inf, high)    y = high - exp(-x)                              log dy/dx = -x
        (low, high)     y = low + (high - low) / (1 + exp(-x))          log dy/dx = log(high - low) + log s(x) s(-x)
        a circle        y = cut + (high - low) / (1 + exp(-x)), brought into [low, high); the same slope

    Both directions are a few elementwise operations for all coordinates together. An exponential, not a softplus: in
    log x, data over orders of magnitude are as wide as any others, and other units are a shift; a softplus
    is the identity above about 5, so that its large values and its tails stay as large as they were.

    Ends of open ranges are not reached: where rounding would reach one, y is the float beside it. The circle is
    cut open at `cut`, where densities are not continuous: put it where there are no data.

    Args:
        support: "real", "positive", "circular" (angles from -pi to pi), a tuple (low, high) whose ends may be
            infinite, or a `Real`, `Positive`, `Interval` or `Circle` of `flowlib.support`; or, for
            vectors, a sequence of these, one for each coordinate.
        shape: the shape of an event. Defaults to as many coordinates as there are ranges, or () with one range for all.
        cut: where circles are cut, for each coordinate or for all; frozen. Defaults to their lower ends.

    Raises:
        ValueError: for ends out of order, or as many ranges as there are not coordinates.
        TypeError: for what is no range.
    """

    box: Box
    cut: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(
        self,
        support: str | Support | tuple[Any, ...] | Sequence[Any],
        shape: int | tuple[int, ...] | None = None,
        *,
        cut: ArrayLike | None = None,
    ):
        self.shape = shape_of(support) if shape is None else as_shape(shape)
        self.box = as_box(support, self.shape)
        self.cut = None
        if any(self.box.circular):
            lower, _, circular = self.box.columns(np.float64)
            cut = real_array(np.where(circular, lower, 0) if cut is None else cut, "cut")
            check_values(cut, "cut", np.isfinite, "finite")
            # NumPy for concrete values: eager JAX would compile a program for each shape.
            whole = (
                np.broadcast_to(np.asarray(cut), self.shape) if is_concrete(cut) else jnp.broadcast_to(cut, self.shape)
            )
            self.cut = freeze(jnp.asarray(whole))

    @property
    def codomain(self) -> Support:
        return as_support(self.box)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        y, log_slope = from_reals(self.box, x, self.cut)
        return y, log_slope.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        x, log_slope = to_reals(self.box, y, self.cut, jnp)
        return x, log_slope.sum()
