"""Polynomials whose derivative is a sum of squares."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count, check_fraction
from flowlib.bijections._interval import Interval, checked_interval
from flowlib.bijections._linear_tails import AbstractLinearTails
from flowlib.bijections._quadrature import integral_of

# The initial linear coefficients run from minus this to this. See the class.
_SPREAD = 0.1


class SumOfSquares(AbstractLinearTails):
    """y = c + the integral from 0 to x of e + (1-e) mean_k (1 + sum_l a_kl (u/b)^l)^2 du, elementwise on the reals.

    A polynomial of degree 2L + 1 in x on (-b, b), integrated exactly; every increasing polynomial of that degree with
    a slope above e is one with K = 2. Outside, where its powers would soon overflow, the map goes on in straight
    lines with the slopes at the ends.

    `transform` is O(K L^2). `inverse` is a search in the interval, to |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in
    float64, with implicit gradients.

    It starts near the identity: |log dy/dx| < 0.01. With all a = 0 it would be the identity exactly, but the K
    polynomials would have equal gradients, and never part. So the a_k1 start spread from -0.1 to 0.1.

    Args:
        polynomials: K, the number of squares. Defaults to 3.
        degree: L, the degree of each polynomial that is squared. Defaults to 4.
        bound: b. Defaults to 3: in a wide interval powers of u/b are small where the data are, and learn slowly.
        min_derivative: e, the least slope, in (0, 1).
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if an argument is out of its range.

    References:
        Jaini et al. 2019, Sum-of-squares polynomial flow, eq. 9 (arXiv:1905.02325).
    """

    coefficients: Float[Array, "..."]
    shift: Float[Array, "..."]
    interval: Interval = eqx.field(static=True)
    min_derivative: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(
        self,
        polynomials: int = 3,
        degree: int = 4,
        *,
        bound: float = 3.0,
        min_derivative: float = 1e-3,
        shape: tuple[int, ...] = (),
    ):
        polynomials, degree = check_count(polynomials, "polynomials"), check_count(degree, "degree")
        self.interval = checked_interval(bound, "SumOfSquares")
        self.min_derivative = check_fraction(min_derivative, "min_derivative", "SumOfSquares")
        self.shape = as_shape(shape)
        initial = np.zeros((degree + 1, polynomials, *self.shape))
        initial[1] += np.linspace(-_SPREAD, _SPREAD, polynomials).reshape(-1, *[1] * len(self.shape))
        self.coefficients = jnp.asarray(initial if polynomials > 1 else 0 * initial, float)
        self.shift = jnp.zeros(self.shape)

    def _inside(self):
        slope = partial(_slope, bound=self.interval[1], least=self.min_derivative)
        # As many nodes are exact: the degree of the slope is twice that of the polynomials.
        return *integral_of(slope, len(self.coefficients)), (self.coefficients, self.shift)


def _slope(x: Float[Array, "points *lanes"], coefficients: Array, *, bound: float, least: float) -> Array:
    u = x / bound
    # Horner's scheme, for each polynomial and point.
    polynomial = jnp.zeros_like(u[None])
    for one in coefficients[::-1]:
        polynomial = polynomial * u + one[:, None]
    return least + (1 - least) * ((1 + polynomial) ** 2).mean(axis=0)
