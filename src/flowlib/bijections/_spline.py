"""Rational-quadratic splines."""

import math
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._interval import checked_interval, clipped, within
from flowlib.bijections._spline_bins import Bin, bin_sizes, check_min_width, find_bin, mean_slope
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
        self.interval = checked_interval(interval, "RationalQuadraticSpline")
        if not 0 < min_derivative < 1:
            raise ValueError(f"RationalQuadraticSpline expected min_derivative in (0, 1), got {min_derivative}.")
        self.min_width = check_min_width(min_width, knots + 1, self.interval, "RationalQuadraticSpline")
        if edges not in get_args(Edges):
            raise ValueError(f"RationalQuadraticSpline expected edges to be one of {get_args(Edges)}, got {edges!r}.")
        self.min_derivative = float(min_derivative)
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
        lower, inner = self.interval[0], clipped(x, self.interval)
        raw = self._raw_slopes()
        widths, heights = self._sizes(self.widths), self._sizes(self.heights)
        if x.ndim > 0 and raw.shape[1:] == x.shape:
            # Each lane has parameters of its own, and makes positive slopes only of the two that it needs.
            at = find_bin(inner, (widths, heights, raw, None), lower, inverse)
            at = at._replace(d0=self._slope(at.d0), d1=self._slope(at.d1))
            y, log_slope = (spline_inverse if inverse else spline_forward)(inner, at)
        else:
            at = find_bin(inner, (widths, heights, self._slope(raw), heights / widths), lower, inverse)
            # The gradient computes this again: that is cheaper than to store what it needs of it.
            y, log_slope = jax.checkpoint(spline_inverse if inverse else spline_forward, prevent_cse=False)(inner, at)
        # A rounding must not leave the interval.
        y = within(y, self.interval)
        if self.edges == "circular":
            return y, log_slope
        outside = x != inner
        if self.edges == "identity":
            return jnp.where(outside, x, y), jnp.where(outside, 0, log_slope)
        beyond = x - inner
        end = self._slope(jnp.where(x < lower, raw[0], raw[-1]))
        end_slope = 1 / end if inverse else end
        return jnp.where(outside, inner + beyond * end_slope, y), jnp.where(outside, jnp.log(end_slope), log_slope)

    def _sizes(self, logits: Array) -> Array:
        """The widths or heights of the bins."""
        return bin_sizes(logits, self.interval, self.min_width)

    def _raw_slopes(self) -> Array:
        """What `_slope` makes the slope at each knot from, the ends of the interval included."""
        if self.edges == "identity":
            end = jnp.zeros((1, *self.slopes.shape[1:]), self.slopes.dtype)
            return jnp.concatenate([end, self.slopes, end])
        return jnp.concatenate([self.slopes, self.slopes[:1]]) if self.edges == "circular" else self.slopes

    def _slope(self, raw: Array) -> Array:
        free = 1 - self.min_derivative
        return self.min_derivative + jax.nn.softplus(raw + math.log(math.expm1(free)))


def spline_forward(x: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    """y and log dy/dx of the spline at x."""
    return _rational_quadratic(within((x - at.x0) / at.width, (0, 1)), at)


def spline_inverse(y: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    """x and log dx/dy of the spline at y."""
    s = mean_slope(at)
    # Eqs. 6 to 8 with y counted in heights, which keeps the coefficients near 1.
    u = within((y - at.y0) / at.height, (0, 1))
    curvature = u * (at.d0 + at.d1 - 2 * s)
    a = s - at.d0 + curvature
    b = at.d0 - curvature
    c = -s * u
    # The discriminant is a square of the slope and so positive; rounding may say otherwise.
    discriminant = jnp.maximum(b * b - 4 * a * c, jnp.finfo(y.dtype).tiny)
    # Of the two forms of the root this one does not cancel, since b > -sqrt(discriminant).
    t = within(-2 * c / (b + jnp.sqrt(discriminant)), (0, 1))
    _, log_slope = _rational_quadratic(t, at)
    return at.x0 + at.width * t, -log_slope


def _rational_quadratic(t, at):
    s = mean_slope(at)
    inside = t * (1 - t)
    denominator = s + (at.d0 + at.d1 - 2 * s) * inside
    y = at.y0 + at.height * (s * t**2 + at.d0 * inside) / denominator
    numerator = at.d1 * t**2 + 2 * s * inside + at.d0 * (1 - t) ** 2
    return y, jnp.log(numerator) + 2 * jnp.log(s / denominator)
