"""Piecewise cubic maps of an interval."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._interval import Interval, checked_interval, within
from flowlib.bijections._solve import solve_scalar
from flowlib.bijections._spline_bins import Bin, apply_between_ends, bin_sizes, check_min_width, mean_slope

# The least mean slope of the first and the last bin: with an end slope of 1, below 1/3 a cubic is not monotone.
_END = 0.4


class CubicSpline(AbstractBijection):
    """A monotone spline of cubics on an interval, with slopes at the knots that follow from the bins.

    In a bin of width w and height h, with s = h/w, end slopes d0 and d1, t = (x - x0)/w in [0, 1],

        y = y0 + h t^2 (3 - 2t) + w (d0 t (1-t)^2 - d1 t^2 (1-t)).

    The slope at a knot between mean slopes s, s' of bins of widths w, w' is the least of 2s, 2s' and
    (w' s + w s') / (w + w') (Steffen 1990), which keeps the cubics monotone. At the ends of the interval the slope is
    1 (in the paper it is trained, and the density jumps), for which the mean slopes of the first and last bin
    stay above 0.4; outside the map is the identity. Value and slope are continuous everywhere. Event shape ();
    `Vmap` gives one spline to each coordinate. It starts as the identity.

    `transform` is O(knots). `inverse` is a search in one bin, to |dt| <= 1e-5 in float32 and 1e-10 in float64, with
    implicit gradients: the closed form of the root loses digits where a cubic is nearly quadratic.

    Args:
        knots: the number of inner knots; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b).
        min_width: the least width and height of a bin.

    Raises:
        ValueError: if an argument is out of its range, or the bins do not fit into the interval.

    References:
        Durkan et al. 2019, Cubic-spline flows (arXiv:1906.02145).
    """

    widths: Float[Array, "..."]
    heights: Float[Array, "..."]
    interval: Interval = eqx.field(static=True)
    min_width: float = eqx.field(static=True)
    shape: ClassVar[tuple[int, ...]] = ()
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, *, knots: int, interval: float | tuple[float, float], min_width: float = 1e-3):
        bins = check_count(knots, "knots") + 1
        self.interval = checked_interval(interval, "CubicSpline")
        self.min_width = check_min_width(min_width, bins, self.interval, "CubicSpline")
        # Softmax logits.
        self.widths = jnp.zeros(bins)
        self.heights = jnp.zeros(bins)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return apply_between_ends(_forward, x, self._table(), self.interval, inverse=False, products=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return apply_between_ends(_inverse, y, self._table(), self.interval, inverse=True, products=True)

    def _table(self):
        widths = bin_sizes(self.widths, self.interval, self.min_width)
        heights = self._heights(widths)
        slopes = heights / widths
        before, after = slopes[:-1], slopes[1:]
        between = (widths[1:] * before + widths[:-1] * after) / (widths[:-1] + widths[1:])
        inner = jnp.minimum(2 * jnp.minimum(before, after), between)
        one = jnp.ones_like(slopes[:1])
        return widths, heights, jnp.concatenate([one, inner, one]), slopes

    def _heights(self, widths):
        """Of the least heights the bins share what is left, in equal bins with logits of 0 as the identity does."""
        total, bins = self.interval[1] - self.interval[0], len(widths)
        inner = jnp.full_like(widths[1:-1], self.min_width)
        least = jnp.concatenate([_END * widths[:1], inner, _END * widths[-1:]])
        ends = jnp.full_like(widths[:1], (1 - _END) * total / bins)
        share = jnp.concatenate([ends, total / bins - inner, ends])
        share = share * jnp.exp(self.heights - jax.lax.stop_gradient(self.heights.max(axis=0)))
        return least + share * ((total - least.sum(axis=0)) / share.sum(axis=0))


def _forward(x: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    t = within((x - at.x0) / at.width, (0, 1))
    ends = _relative(at)
    return at.y0 + at.height * _unit(t, ends), jnp.log(mean_slope(at) * _unit_slope(t, ends))


def _inverse(y: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    ends = _relative(at)
    u = within((y - at.y0) / at.height, (0, 1))
    t = within(solve_scalar(_unit, u, ends, bracket=(jnp.zeros_like(u), jnp.ones_like(u))), (0, 1))
    return at.x0 + at.width * t, -jnp.log(mean_slope(at) * _unit_slope(t, ends))


def _relative(at):
    """The end slopes of the bin as a square."""
    return at.d0 / mean_slope(at), at.d1 / mean_slope(at)


def _unit(t: Float[Array, "*lanes"], ends: tuple[Array, Array]) -> Float[Array, "*lanes"]:
    """The cubic of a bin as a square."""
    d0, d1 = ends
    return t * (d0 * (1 - t) ** 2 + t * (3 - 2 * t - d1 * (1 - t)))


def _unit_slope(t, ends):
    d0, d1 = ends
    return d0 * (1 - t) * (1 - 3 * t) + 6 * t * (1 - t) + d1 * t * (3 * t - 2)
