"""The integral of a positive network."""

import math
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count, check_fraction
from flowlib.bijections._interval import Interval, checked_interval
from flowlib.bijections._linear_tails import AbstractLinearTails
from flowlib.bijections._quadrature import integral_of

# What the initial hidden units stretch the interval (-1, 1) by.
_STEEPNESS = 3.0


class MonotoneIntegral(AbstractLinearTails):
    """y = c + the integral from 0 to x of g(u) du with a network g > 0, elementwise on the reals.

    g(u) = e + softplus(sum_j v_j tanh(w_j u/b + s_j) + d) on (-b, b), and outside the map goes on in straight lines
    with the slopes at the ends. The integral is a Gauss-Legendre quadrature, and log dy/dx = log g(x). The error of the
    quadrature falls geometrically with its nodes, but grows with the steepness of g; so |w_j| stays below a
    bound that grows with the nodes (10.8 for 32), which holds the error from each tanh at 1e-8. Very large |v_j| make g
    steep too. `c` and all weights are parameters: in a coupling or autoregressive layer the conditioner makes them.

    `transform` is O(width nodes). `inverse` is a search in the interval, to |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10
    in float64, with implicit gradients. It starts as the identity, with v = 0.

    Args:
        width: the number of hidden units. Defaults to 16.
        nodes: the number of points of the quadrature. Defaults to 32.
        bound: b. Defaults to 5.
        min_derivative: e, the least slope, in (0, 1).
        shape: the shape of an event. Defaults to ().

    Raises:
        ValueError: if an argument is out of its range.

    References:
        Wehenkel and Louppe 2019, Unconstrained monotonic neural networks, section 3 (arXiv:1908.05164).
    """

    in_weights: Float[Array, "..."]
    in_biases: Float[Array, "..."]
    out_weights: Float[Array, "..."]
    out_bias: Float[Array, "..."]
    shift: Float[Array, "..."]
    nodes: int = eqx.field(static=True)
    interval: Interval = eqx.field(static=True)
    min_derivative: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(
        self,
        width: int = 16,
        nodes: int = 32,
        *,
        bound: float = 5.0,
        min_derivative: float = 1e-3,
        shape: tuple[int, ...] = (),
    ):
        width, self.nodes = check_count(width, "width"), check_count(nodes, "nodes", 4)
        self.interval = checked_interval(bound, "MonotoneIntegral")
        self.min_derivative = check_fraction(min_derivative, "min_derivative", "MonotoneIntegral")
        self.shape = as_shape(shape)
        each = (width, *self.shape)
        # Units that bend at places spread over the interval: equal ones would never part.
        places = np.linspace(-1, 1, width + 2)[1:-1].reshape(-1, *[1] * len(self.shape))
        self.in_weights = jnp.full(each, _STEEPNESS)
        self.in_biases = jnp.asarray(np.broadcast_to(-_STEEPNESS * places, each), float)
        self.out_weights = jnp.zeros(each)
        self.out_bias = jnp.zeros(self.shape)
        self.shift = jnp.zeros(self.shape)

    def _inside(self):
        steepest = _steepest(self.nodes)
        weights = steepest * jnp.tanh(self.in_weights / steepest)
        slope = partial(_slope, bound=self.interval[1], least=self.min_derivative)
        args = (weights, self.in_biases, self.out_weights, self.out_bias)
        return *integral_of(slope, self.nodes), (args, self.shift)


def _steepest(nodes: int) -> float:
    """The w for which the quadrature of tanh(w u + s) over half of (-1, 1) has an error of 1e-8.

    A function with a pole at the distance d from an interval of length 2 has an error of r^(-2 nodes) with
    r = d + sqrt(1 + d^2), and the poles of tanh are at pi/2.
    """
    r = 10 ** (4 / nodes)
    return math.pi / ((r - 1 / r) / 2)


def _slope(x: Float[Array, "points *lanes"], weights: tuple[Array, ...], *, bound: float, least: float) -> Array:
    in_weights, in_biases, out_weights, out_bias = weights
    hidden = jnp.tanh(in_weights[:, None] * (x / bound) + in_biases[:, None])
    raw = (out_weights[:, None] * hidden).sum(axis=0) + out_bias
    return least + jax.nn.softplus(raw + math.log(math.expm1(1 - least)))
