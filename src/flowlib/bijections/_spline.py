"""Rational-quadratic splines."""

import math
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Circle, Real, Support

Edges = Literal["identity", "free", "circular"]


class RationalQuadraticSpline(AbstractBijection):
    """A monotone spline of rational quadratics on an interval (Durkan et al. 2019, arXiv:1906.04032).

    In a bin of width w and height h, with s = h/w, end slopes d0, d1 and t = (x - x0)/w in [0, 1],

        y = y0 + h (s t^2 + d0 t (1-t)) / (s + (d0 + d1 - 2s) t (1-t))              (eq. 4)
        dy/dx = s^2 (d1 t^2 + 2s t (1-t) + d0 (1-t)^2) / (s + (d0 + d1 - 2s) t (1-t))^2   (eq. 5)

    and x follows from y by a quadratic equation. Event shape (); `Vmap` gives one spline to each
    coordinate. Both directions O(knots). It starts as the identity. Value and slope are
    continuous everywhere, so the density has no jump.

    Args:
        knots: the number of inner knots; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b).
        min_derivative: the least slope at a knot, in (0, 1).
        min_width: the least width and height of a bin.
        edges: what happens at the ends of the interval.
            "identity": the end slopes are 1 and the map is the identity outside.
            "free": the end slopes are trained and the map continues outside in a straight line.
            "circular": both ends are one point of a circle, with one slope; outside is nothing.

    Raises:
        ValueError: if an argument is out of its range, or the bins do not fit into the interval.
    """

    widths: Float[Array, "..."]
    heights: Float[Array, "..."]
    slopes: Float[Array, "..."]
    knots: int = eqx.field(static=True)
    interval: tuple[float, float] = eqx.field(static=True)
    min_derivative: float = eqx.field(static=True)
    min_width: float = eqx.field(static=True)
    edges: Edges = eqx.field(static=True)
    shape: ClassVar[tuple[int, ...]] = ()
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        knots: int,
        interval: float | tuple[float, float],
        min_derivative: float = 1e-3,
        min_width: float = 1e-3,
        edges: Edges = "identity",
    ):
        self.knots = check_count(knots, "knots")
        lower, upper = interval if isinstance(interval, tuple) else (-interval, interval)
        self.interval = (float(lower), float(upper))
        if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
            raise ValueError(
                f"RationalQuadraticSpline expected an interval with lower < upper, got ({lower}, {upper})."
            )
        if not 0 < min_derivative < 1:
            raise ValueError(f"RationalQuadraticSpline expected min_derivative in (0, 1), got {min_derivative}.")
        if not 0 < min_width * (knots + 1) < upper - lower:
            raise ValueError(
                f"RationalQuadraticSpline expected min_width in (0, {(upper - lower) / (knots + 1):.4g}) "
                f"so that {knots + 1} bins fit, got {min_width}."
            )
        if edges not in get_args(Edges):
            raise ValueError(f"RationalQuadraticSpline expected edges to be one of {get_args(Edges)}, got {edges!r}.")
        self.min_derivative = float(min_derivative)
        self.min_width = float(min_width)
        self.edges = edges
        # Unconstrained: softmax logits of the bins, and slopes before a softplus, 0 for slope 1.
        self.widths = jnp.zeros(knots + 1)
        self.heights = jnp.zeros(knots + 1)
        self.slopes = jnp.zeros({"identity": knots, "free": knots + 2, "circular": knots + 1}[edges])

    @property
    def domain(self) -> Support:
        return Circle(*self.interval) if self.edges == "circular" else Real()

    @property
    def codomain(self) -> Support:
        return self.domain

    # All of these also take lanes: x of shape (n,), and arrays with one more axis, the last, of size n or 1.

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._with_tails(x, inverse=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._with_tails(y, inverse=True)

    def _with_tails(self, x, *, inverse):
        lower, upper = self.interval
        # The spline sees a clipped input, so that rows outside cannot spoil the gradient of the others.
        # Not jnp.clip: at an end of the interval its derivative is a half.
        clipped = jnp.where(x < lower, lower, jnp.where(x > upper, upper, x))
        slopes = self._slopes()
        spline = spline_inverse if inverse else spline_forward
        y, log_slope = spline(clipped, lower, self._sizes(self.widths), self._sizes(self.heights), slopes)
        # A rounding must not leave the interval.
        y = y + jax.lax.stop_gradient(jnp.clip(y, lower, upper) - y)
        if self.edges == "circular":
            return y, log_slope
        beyond = x - clipped
        end = jnp.where(x < lower, slopes[0], slopes[-1])
        end_slope = 1 / end if inverse else end
        outside = beyond != 0
        log_end = jnp.where(outside, jnp.log(end_slope), log_slope)
        # Adding the distance to the clipped value loses it for the identity at large x, so that one is x itself.
        tail = x if self.edges == "identity" else clipped + beyond * end_slope
        return jnp.where(outside, tail, y), log_end

    def _sizes(self, logits: Array) -> Array:
        """The widths or heights of the bins."""
        lower, upper = self.interval
        spare = (upper - lower) - self.min_width * (self.knots + 1)
        return self.min_width + spare * jax.nn.softmax(logits, axis=0)

    def _slopes(self) -> Array:
        free = 1 - self.min_derivative
        slopes = self.min_derivative + jax.nn.softplus(self.slopes + math.log(math.expm1(free)))
        if self.edges == "identity":
            one = jnp.ones((1, *slopes.shape[1:]), slopes.dtype)
            return jnp.concatenate([one, slopes, one])
        return jnp.concatenate([slopes, slopes[:1]]) if self.edges == "circular" else slopes


def spline_forward(
    x: Float[Array, "*lanes"],
    lower: float,
    widths: Float[Array, "bins *#lanes"],
    heights: Float[Array, "bins *#lanes"],
    slopes: Float[Array, "knots *#lanes"],
) -> tuple[Array, Array]:
    """y and log dy/dx of the spline at x, which lies between the first and the last knot."""
    x0, width, y0, height, d0, d1 = _bin(x, widths, lower, widths, heights, slopes)
    return _rational_quadratic(_within((x - x0) / width), width, y0, height, d0, d1)


def spline_inverse(
    y: Float[Array, "*lanes"],
    lower: float,
    widths: Float[Array, "bins *#lanes"],
    heights: Float[Array, "bins *#lanes"],
    slopes: Float[Array, "knots *#lanes"],
) -> tuple[Array, Array]:
    """x and log dx/dy of the spline at y, which lies between the first and the last knot."""
    x0, width, y0, height, d0, d1 = _bin(y, heights, lower, widths, heights, slopes)
    s = height / width
    # Eqs. 6 to 8 with y counted in heights, which keeps the coefficients near 1.
    u = _within((y - y0) / height)
    curvature = u * (d0 + d1 - 2 * s)
    a = s - d0 + curvature
    b = d0 - curvature
    c = -s * u
    # The discriminant is a square of the slope and so positive; rounding may say otherwise.
    discriminant = jnp.maximum(b * b - 4 * a * c, jnp.finfo(y.dtype).tiny)
    # Of the two forms of the root this one does not cancel, since b > -sqrt(discriminant).
    t = _within(-2 * c / (b + jnp.sqrt(discriminant)))
    _, log_slope = _rational_quadratic(t, width, y0, height, d0, d1)
    return x0 + width * t, -log_slope


def _within(t):
    # A rounding beyond the bin is taken back in the value, not in the derivative.
    return t + jax.lax.stop_gradient(jnp.clip(t, 0, 1) - t)


def _bin(at, searched, lower, widths, heights, slopes):
    """Start, width, bottom, height and end slopes of the bin at which `at` lies.

    Sums over a mask instead of indexing: a gather an element is slow, and its gradient a scatter.
    """
    ends = lower + jnp.cumsum(jax.lax.stop_gradient(searched), axis=0)[:-1]
    reached = at >= ends
    edge = jnp.ones_like(reached[:1])
    # Of the bins up to that of x all but the last lie before it.
    before = jnp.concatenate([reached, ~edge])
    here = jnp.concatenate([edge, reached]) & ~before

    def chosen(mask, values):
        return jnp.where(mask, values, 0).sum(axis=0)

    return (
        lower + chosen(before, widths),
        chosen(here, widths),
        lower + chosen(before, heights),
        chosen(here, heights),
        chosen(here, slopes[:-1]),
        chosen(here, slopes[1:]),
    )


def _rational_quadratic(t, width, y0, height, d0, d1):
    s = height / width
    inside = t * (1 - t)
    denominator = s + (d0 + d1 - 2 * s) * inside
    y = y0 + height * (s * t**2 + d0 * inside) / denominator
    numerator = d1 * t**2 + 2 * s * inside + d0 * (1 - t) ** 2
    return y, 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(denominator)
