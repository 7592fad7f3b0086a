"""Planar flows: one hyperbolic-tangent or leaky-ReLU unit added to the identity."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._solve import solve_scalar
from flowlib.bijections._unit_parameters import (
    above_minus_one,
    for_condition,
    make_conditioner,
    tanh_along,
    tanh_and_slope,
)
from flowlib.nn import MLP


class Planar(AbstractBijection):
    r"""y = x + u h(w . x + b), with h = tanh or a leaky ReLU (Rezende and Mohamed 2015, arXiv:1505.05770, eq. 10).

    log |det dy/dx| = log(1 + h'(w . x + b) w . u). The map is invertible if w . u > -1; the part
    of u along w is mapped to where that holds (appendix A.1 of the paper, shifted so that u = 0
    stays 0). It starts as the identity, with u = 0 and w random.

    `transform` is O(dim). `inverse` too: in closed form for the leaky ReLU; for tanh by a
    numerical solve of one scalar equation, with implicit gradients.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition, from which an MLP then makes w, u and b. Defaults to None.
        negative_slope: of the leaky ReLU, in (0, 1]; None for tanh.
        **mlp_kwargs: `width_size`, `depth` and `activation` of that MLP. Default to 50, 1 and `jax.nn.relu`.

    Raises:
        ValueError: if a size is not positive or the slope out of range.
    """

    params: Array
    conditioner: MLP | None
    negative_slope: float | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dim: int,
        cond_dim: int | None = None,
        negative_slope: float | None = None,
        **mlp_kwargs: Any,
    ):
        dim = check_count(dim, "dim")
        if negative_slope is not None and not 0 < negative_slope <= 1:
            raise ValueError(f"Planar expected negative_slope in (0, 1], got {negative_slope}.")
        weight_key, mlp_key = jr.split(check_key(key))
        weight = jr.normal(weight_key, (dim,)) / math.sqrt(dim)
        self.params = jnp.concatenate([weight, jnp.zeros(dim + 1)])
        self.conditioner, self.cond_shape = make_conditioner(mlp_key, cond_dim, 2 * dim + 1, **mlp_kwargs)
        self.negative_slope = None if negative_slope is None else float(negative_slope)
        self.shape = (dim,)

    @property
    def _cheap_both_ways(self) -> bool:
        return self.negative_slope is not None

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        w, u, bias, overlap = self._parameters(condition)
        y, slope = self._activation(w @ x + bias)
        return x + u * y, jnp.log1p(slope * overlap)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        w, u, bias, overlap = self._parameters(condition)
        target = w @ y + bias
        # Along w the map is a -> a + overlap h(a), an increasing function of one variable.
        if self.negative_slope is None:
            a = solve_scalar(tanh_along, target, overlap)
        else:
            a = target / (1 + overlap * jnp.where(target < 0, self.negative_slope, 1.0))
        value, slope = self._activation(a)
        return y - u * value, -jnp.log1p(slope * overlap)

    def _parameters(self, condition):
        params = for_condition(self.params, self.conditioner, condition)
        dim = self.shape[0]
        w, u, bias = params[:dim], params[dim : 2 * dim], params[2 * dim]
        free = w @ u
        overlap = above_minus_one(free)
        square = w @ w
        # For w = 0 the unit is constant, and any u will do.
        u = u + (overlap - free) * w / jnp.where(square > 0, square, 1)
        return w, u, bias, jnp.where(square > 0, overlap, 0)

    def _activation(self, a):
        if self.negative_slope is None:
            return tanh_and_slope(a)
        slope = jnp.where(a < 0, self.negative_slope, 1.0).astype(a.dtype)
        return slope * a, slope
