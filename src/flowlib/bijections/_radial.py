"""Radial flows: space is drawn to a point or pushed away from it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._unit_parameters import above_minus_one, for_condition, make_conditioner, positive_from_one
from flowlib.nn import MLP


class Radial(AbstractBijection):
    r"""y = x + b (x - c) / (a + r) with r = |x - c| (Rezende and Mohamed 2015, arXiv:1505.05770, eq. 14).

    log |det dy/dx| = (dim - 1) log(1 + b / (a + r)) + log(1 + b a / (a + r)^2). The map is invertible if b > -a,
    and b is kept above -0.999 a, a above 0.001. It starts as the identity, with b = 0, a = 1 and c random.

    Both directions O(dim): the inverse solves a quadratic equation for r.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition, from which an MLP then makes a, b and c. Defaults to None.
        **mlp_kwargs: `width_size`, `depth` and `activation` of that MLP. Default to 50, 1 and `jax.nn.relu`.

    Raises:
        ValueError: if a size is not positive.
    """

    params: Array
    conditioner: MLP | None
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, *, dim: int, cond_dim: int | None = None, **mlp_kwargs: Any):
        dim = check_count(dim, "dim")
        centre_key, mlp_key = jr.split(check_key(key))
        self.params = jnp.concatenate([jr.normal(centre_key, (dim,)), jnp.zeros(2)])
        self.conditioner, self.cond_shape = make_conditioner(mlp_key, cond_dim, dim + 2, **mlp_kwargs)
        self.shape = (dim,)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        centre, a, ratio = self._parameters(condition)
        away = x - centre
        share, log_det = self._stretch(_length(away) / a, ratio)
        return x + share * away, log_det

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        centre, a, ratio = self._parameters(condition)
        away = y - centre
        # With r and |y - c| in units of a: t = r (1 + ratio / (1 + r)), so r^2 - (t - 1 - ratio) r - t = 0.
        t = _length(away) / a
        half = (t - 1 - ratio) / 2
        root = jnp.sqrt(half * half + t)
        # The form in which nothing cancels; each has a positive divisor where it is taken.
        r = jnp.where(half > 0, half + root, t / jnp.where(half > 0, 1, root - half))
        share, log_det = self._stretch(r, ratio)
        return y - share / (1 + share) * away, -log_det

    def _parameters(self, condition):
        params = for_condition(self.params, self.conditioner, condition)
        (dim,) = self.shape
        return params[:dim], positive_from_one(params[dim]), above_minus_one(params[dim + 1])

    def _stretch(self, r, ratio):
        """What is added to x - c, relative to it, and the log-det; r is in units of a, and ratio is b / a."""
        near = 1 / (1 + r)
        share = ratio * near
        return share, (self.shape[0] - 1) * jnp.log1p(share) + jnp.log1p(share * near)


def _length(x):
    square = x @ x
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
