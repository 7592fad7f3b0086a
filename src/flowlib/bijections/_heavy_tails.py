"""A map from normal tails to heavy ones."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from flowlib._arrays import check_values
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._normal_tails import log_erfc, lower_tail, normal_quantile
from flowlib.bijections._overflow import exponents
from flowlib.constraints import Parameter, broadcast, finite, inverse_softplus

# Below it, gradients in a tail weight would lose their digits.
_LEAST = 1e-3
_SCALE = math.sqrt(math.pi / 2)


class HeavyTails(AbstractBijection):
    """y = sign(x) sqrt(pi/2) (erfc(|x| / sqrt 2)^-t - 1) / t, elementwise on the reals, with a weight t for each side.

    t is `lower` where x < 0, else `upper`, and at least 0.001. What has normal tails gets, on each side, those of the
    generalised Pareto distribution with shape t: P(|y| > r) falls like r^(-1/t), that is like a Student t
    distribution of 1/t degrees of freedom. The slope at 0 is 1, but at no parameters is it the identity: with t near 0
    tails are exponential. As the last step of a flow it gives tails that Lipschitz layers cannot make; it
    stays below a thousandth of the largest float. Both directions O(size).

    Args:
        lower: the weight of the lower tail, above 0.001. Defaults to 0.1.
        upper: that of the upper tail. Defaults to 0.1. Both broadcast to the shape of an event.

    Raises:
        ValueError: if a weight is not above 0.001 and finite, or they do not broadcast.

    References:
        Hickling and Prangle 2024, Flexible tails for normalizing flows, eq. 5 (arXiv:2406.16971).
    """

    lower: Parameter
    upper: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, lower: ArrayLike = 0.1, upper: ArrayLike = 0.1):
        lower, upper = broadcast(finite(lower, "lower"), finite(upper, "upper"))
        for value, name in [(lower, "lower"), (upper, "upper")]:
            check_values(value, name, lambda a: a > _LEAST, f"above {_LEAST:g}")
        self.shape = lower.shape
        # Before a softplus.
        self.lower, self.upper = inverse_softplus(lower - _LEAST), inverse_softplus(upper - _LEAST)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        weight = self._weight(x)
        size = jnp.where(x < 0, -x, x)
        # Exponentially distributed, if x is normal.
        depth = -log_erfc(size / math.sqrt(2))
        # With room for the derivative in the weight, y / weight.
        y = _SCALE * jnp.expm1(exponents(weight * depth, math.log(_SCALE / _LEAST**2))) / weight
        return jnp.where(x < 0, -y, y), self._log_det(size, weight * depth)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        weight = self._weight(y)
        stretch = jnp.log1p(jnp.where(y < 0, -y, y) * (weight / _SCALE))
        size = -normal_quantile(-stretch / weight - math.log(2))
        return jnp.where(y < 0, -size, size), -self._log_det(size, stretch)

    def _log_det(self, size, stretch):
        return (stretch + lower_tail(-size)[1] + math.log(_SCALE)).sum()

    def _weight(self, x):
        return _LEAST + jax.nn.softplus(jnp.where(x < 0, self.lower, self.upper))
