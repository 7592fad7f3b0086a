"""Rational-quadratic splines."""

import math
from functools import partial
from typing import ClassVar, Literal, NamedTuple, get_args

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
        raw = self._raw_slopes()
        widths, heights = self._sizes(self.widths), self._sizes(self.heights)
        if x.ndim > 0 and raw.shape[1:] == x.shape:
            # Each lane has parameters of its own, and makes positive slopes only of the two that it needs.
            at = _bin(clipped, (widths, heights, raw, None), lower, inverse)
            at = at._replace(d0=self._slope(at.d0), d1=self._slope(at.d1))
            y, log_slope = (spline_inverse if inverse else spline_forward)(clipped, at)
        else:
            at = _bin(clipped, (widths, heights, self._slope(raw), heights / widths), lower, inverse)
            # The gradient computes this again: that is cheaper than to store what it needs of it.
            y, log_slope = jax.checkpoint(spline_inverse if inverse else spline_forward, prevent_cse=False)(clipped, at)
        # A rounding must not leave the interval.
        y = y + jax.lax.stop_gradient(jnp.clip(y, lower, upper) - y)
        if self.edges == "circular":
            return y, log_slope
        outside = x != clipped
        if self.edges == "identity":
            return jnp.where(outside, x, y), jnp.where(outside, 0, log_slope)
        beyond = x - clipped
        end = self._slope(jnp.where(x < lower, raw[0], raw[-1]))
        end_slope = 1 / end if inverse else end
        return jnp.where(outside, clipped + beyond * end_slope, y), jnp.where(outside, jnp.log(end_slope), log_slope)

    def _sizes(self, logits: Array) -> Array:
        """The widths or heights of the bins."""
        lower, upper = self.interval
        spare = (upper - lower) - self.min_width * (self.knots + 1)
        exponentials = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=0)))
        # No product is added here: whether XLA rounds that once or twice may differ between the operations that
        # compute it again, and they must find the same bin.
        return self.min_width + exponentials / (exponentials.sum(axis=0) / spare)

    def _raw_slopes(self) -> Array:
        """What `_slope` makes the slope at each knot from, the ends of the interval included."""
        if self.edges == "identity":
            end = jnp.zeros((1, *self.slopes.shape[1:]), self.slopes.dtype)
            return jnp.concatenate([end, self.slopes, end])
        return jnp.concatenate([self.slopes, self.slopes[:1]]) if self.edges == "circular" else self.slopes

    def _slope(self, raw: Array) -> Array:
        free = 1 - self.min_derivative
        return self.min_derivative + jax.nn.softplus(raw + math.log(math.expm1(free)))


class Bin(NamedTuple):
    """The bin in which a point lies: its start, width, bottom, height, end slopes, and perhaps height / width."""

    x0: Float[Array, "*lanes"]
    width: Float[Array, "*lanes"]
    y0: Float[Array, "*lanes"]
    height: Float[Array, "*lanes"]
    d0: Float[Array, "*lanes"]
    d1: Float[Array, "*lanes"]
    slope: Float[Array, "*lanes"] | None


def spline_forward(x: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    """y and log dy/dx of the spline at x."""
    return _rational_quadratic(_within((x - at.x0) / at.width), at)


def spline_inverse(y: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    """x and log dx/dy of the spline at y."""
    s = _mean_slope(at)
    # Eqs. 6 to 8 with y counted in heights, which keeps the coefficients near 1.
    u = _within((y - at.y0) / at.height)
    curvature = u * (at.d0 + at.d1 - 2 * s)
    a = s - at.d0 + curvature
    b = at.d0 - curvature
    c = -s * u
    # The discriminant is a square of the slope and so positive; rounding may say otherwise.
    discriminant = jnp.maximum(b * b - 4 * a * c, jnp.finfo(y.dtype).tiny)
    # Of the two forms of the root this one does not cancel, since b > -sqrt(discriminant).
    t = _within(-2 * c / (b + jnp.sqrt(discriminant)))
    _, log_slope = _rational_quadratic(t, at)
    return at.x0 + at.width * t, -log_slope


def _mean_slope(at):
    return at.height / at.width if at.slope is None else at.slope


def _within(t):
    # A rounding beyond the bin is taken back in the value, not in the derivative.
    return t + jax.lax.stop_gradient(jnp.clip(t, 0, 1) - t)


def _rational_quadratic(t, at):
    s = _mean_slope(at)
    inside = t * (1 - t)
    denominator = s + (at.d0 + at.d1 - 2 * s) * inside
    y = at.y0 + at.height * (s * t**2 + at.d0 * inside) / denominator
    numerator = at.d1 * t**2 + 2 * s * inside + at.d0 * (1 - t) ** 2
    return y, jnp.log(numerator) + 2 * jnp.log(s / denominator)


# Widths and heights of the bins, what there is at each knot, and the slope of each bin where it is known.
Table = tuple[
    Float[Array, "bins *#lanes"], Float[Array, "bins *#lanes"], Float[Array, "knots *#lanes"], Array | None
]  # fmt: skip


# With more bins than these, going through them one by one takes too long to compile.
_ONE_BY_ONE = 16


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _bin(x: Float[Array, "*lanes"], table: Table, lower: float, inverse: bool) -> Bin:
    """The bin of x, or with `inverse` the one whose heights x lies between."""
    if len(table[0]) > _ONE_BY_ONE:
        return _found_by_sums(x, table, lower, inverse)[0]
    return _found_one_by_one(x, table, lower, inverse)


@_bin.defjvp
def _bin_jvp(lower, inverse, primals, tangents):
    # The tangents need the number of the bin, and the gradient what finds the tangents: then sums are the cheaper way.
    x, table = primals
    at, index = _found_by_sums(x, table, lower, inverse)
    return at, _entries(index, tangents[1])


def _found_one_by_one(x, table, lower, inverse):
    """Bin after bin, each replacing the last one where it is reached.

    Elementwise operations, which XLA fuses into one loop. A gather for each element is slow.
    """
    widths, heights, knots, slopes = table

    def entries(i, left, bottom):
        slope = None if slopes is None else slopes[i]
        return Bin(left, widths[i], bottom, heights[i], knots[i], knots[i + 1], slope)

    lanes = jnp.broadcast_shapes(x.shape, widths.shape[1:])
    left = bottom = jnp.asarray(lower, x.dtype)
    at = jax.tree.map(lambda value: jnp.broadcast_to(value, lanes), entries(0, left, bottom))
    for i in range(1, len(widths)):
        left, bottom = left + widths[i - 1], bottom + heights[i - 1]
        reached = x >= (bottom if inverse else left)
        at = jax.tree.map(partial(jnp.where, reached), entries(i, left, bottom), at)
    return at


def _found_by_sums(x, table, lower, inverse):
    """The bin and its number, the count of the bins before it."""
    widths, heights, _, _ = table
    index = (x >= lower + _sums_before(heights if inverse else widths)[1:]).sum(axis=0)
    at = _entries(index, table)
    return at._replace(x0=lower + at.x0, y0=lower + at.y0), index


def _entries(index, table):
    """What a table has in the bin of this number, which is linear in the table; x0 and y0 without the lower end."""
    widths, heights, knots, slopes = table
    bins = jnp.arange(len(widths), dtype=index.dtype).reshape(-1, *[1] * index.ndim)
    here = bins == index
    if index.ndim > 0 and widths.shape[1:] != index.shape:
        # One table for all lanes: a product, whose transpose XLA does not compute bin by bin as it would a sum.
        columns = (_sums_before(widths), widths, _sums_before(heights), heights, knots[:-1], knots[1:], slopes)
        columns = jnp.stack([column[:, 0] for column in columns])
        chosen = jnp.matmul(columns, here.astype(columns.dtype), precision="highest")
        return Bin(*(row[0] for row in jnp.split(chosen, len(columns))))

    def total(mask, values):
        return jnp.where(mask, values, 0).sum(axis=0)

    before = bins < index
    return Bin(
        total(before, widths), total(here, widths), total(before, heights), total(here, heights),
        total(here, knots[:-1]), total(here, knots[1:]), None if slopes is None else total(here, slopes),
    )  # fmt: skip


def _sums_before(values):
    return jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values, axis=0)[:-1]])
