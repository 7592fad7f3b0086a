"""Monotone Bernstein polynomials."""

import math
from functools import partial
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count, check_fraction
from flowlib.bijections._interval import Interval, checked_interval
from flowlib.bijections._linear_tails import AbstractLinearTails

PolynomialEdges = Literal["identity", "free"]


class BernsteinPolynomial(AbstractLinearTails):
    """y = sum_k a_k C(n, k) t^k (1-t)^(n-k) with t = (x - lower) / (upper - lower) and a_0 < a_1 < ... < a_n.

    The slope is n / (upper - lower) sum_k (a_k+1 - a_k) C(n-1, k) t^k (1-t)^(n-1-k), a mean of positive numbers. A sum
    of positive terms, it is exact to rounding at every degree. Outside the interval the map goes on in straight
    lines with the slopes at the ends. Elementwise; it starts as the identity.

    `transform` is O(degree). `inverse` is a search in the interval, to |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in
    float64, with implicit gradients.

    Args:
        degree: n, at least 4.
        interval: (lower, upper), or one number b for (-b, b).
        edges: what happens at the ends of the interval.
            "identity": it is mapped to itself, with slopes of 1 at the ends: outside is the identity.
            "free": values and slopes at the ends are trained.
        min_derivative: the least slope, in (0, 1).
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if an argument is out of its range.

    References:
        Ramasinghe et al. 2021, Robust normalizing flows using Bernstein-type polynomials, section 3 (arXiv:2102.03509);
        Sick et al. 2020, arXiv:2004.00464.
    """

    increments: Float[Array, "..."]
    shift: Float[Array, "..."] | None
    interval: Interval = eqx.field(static=True)
    min_derivative: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(
        self,
        *,
        degree: int,
        interval: float | tuple[float, float],
        edges: PolynomialEdges = "identity",
        min_derivative: float = 1e-3,
        shape: tuple[int, ...] = (),
    ):
        # Below 4, slopes of 1 at both ends and mean slope 1 leave only the identity.
        degree = check_count(degree, "degree", 4)
        self.interval = checked_interval(interval, "BernsteinPolynomial")
        if edges not in get_args(PolynomialEdges):
            wanted = get_args(PolynomialEdges)
            raise ValueError(f"BernsteinPolynomial expected edges to be one of {wanted}, got {edges!r}.")
        self.min_derivative = check_fraction(min_derivative, "min_derivative", "BernsteinPolynomial")
        self.shape = as_shape(shape)
        # Of inner increments of a, softmax logits; else increments before a softplus, 0 for equal ones.
        self.increments = jnp.zeros((degree if edges == "free" else degree - 2, *self.shape))
        self.shift = jnp.zeros(self.shape) if edges == "free" else None

    def _inside(self):
        value, log_slope = (partial(one, interval=self.interval) for one in (_value, _log_slope))
        return value, log_slope, self._coefficients()

    def _coefficients(self) -> tuple[Array, Array]:
        """a, and what the slope is a mean of."""
        lower, upper = self.interval
        free = 1 - self.min_derivative
        if self.shift is None:
            inner = free * len(self.increments) * jax.nn.softmax(self.increments, axis=0)
            one = jnp.ones_like(inner[:1])
            slopes = jnp.concatenate([one, self.min_derivative + inner, one])
            first = jnp.full_like(one, lower)
        else:
            slopes = self.min_derivative + jax.nn.softplus(self.increments + math.log(math.expm1(free)))
            first = lower + self.shift[None]
        steps = slopes * ((upper - lower) / len(slopes))
        return jnp.concatenate([first, first + jnp.cumsum(steps, axis=0)]), slopes


def _value(x, coefficients, *, interval):
    return bernstein((x - interval[0]) / (interval[1] - interval[0]), coefficients[0])


def _log_slope(x, coefficients, *, interval):
    return jnp.log(bernstein((x - interval[0]) / (interval[1] - interval[0]), coefficients[1]))


def bernstein(t: Float[Array, "*lanes"], coefficients: Float[Array, "terms *#lanes"]) -> Float[Array, "*lanes"]:
    """The Bernstein polynomial with these coefficients, of degree one below their number, at t in [0, 1]."""
    degree = len(coefficients) - 1
    up, down = [jnp.ones_like(t)], [jnp.ones_like(t)]
    for _ in range(degree):
        up.append(up[-1] * t)
        down.append(down[-1] * (1 - t))
    basis = jnp.stack([math.comb(degree, k) * up[k] * down[degree - k] for k in range(degree + 1)])
    return (coefficients * basis).sum(axis=0)
