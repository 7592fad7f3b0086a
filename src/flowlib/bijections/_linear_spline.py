"""Piecewise linear maps of an interval."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._interval import Interval, checked_interval
from flowlib.bijections._spline_bins import Bin, apply_between_ends, bin_sizes, check_min_width, mean_slope


class LinearSpline(AbstractBijection):
    """y = y0 + (x - x0) h/w in a bin of width w and height h, on an interval with bins of one width.

    log dy/dx = log(h/w), and outside the interval the map is the identity. The slope jumps at knots, and so
    does the density: it is a histogram. Event shape (); `Vmap` gives one spline to each coordinate. Both
    directions O(knots). It starts as the identity.

    The gradient of log dy/dx in x is 0 but for the jumps, of which derivatives know nothing. So parameters of the maps
    that x went through before are trained on a part of their gradient, and stacked layers can fit much worse than those
    of the other splines: try one of those for more than one layer.

    Args:
        knots: the number of inner knots; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b).
        min_width: the least height of a bin.

    Raises:
        ValueError: if an argument is out of its range, or the bins do not fit into the interval.

    References:
        Müller et al. 2019, Neural importance sampling, section 4.1 (arXiv:1808.03856).
    """

    heights: Float[Array, "..."]
    interval: Interval = eqx.field(static=True)
    min_width: float = eqx.field(static=True)
    shape: ClassVar[tuple[int, ...]] = ()
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, *, knots: int, interval: float | tuple[float, float], min_width: float = 1e-3):
        bins = check_count(knots, "knots") + 1
        self.interval = checked_interval(interval, "LinearSpline")
        self.min_width = check_min_width(min_width, bins, self.interval, "LinearSpline")
        # Softmax logits.
        self.heights = jnp.zeros(bins)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return apply_between_ends(_forward, x, self._table(), self.interval, inverse=False, products=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return apply_between_ends(_inverse, y, self._table(), self.interval, inverse=True, products=False)

    def _table(self):
        heights = bin_sizes(self.heights, self.interval, self.min_width)
        widths = jnp.full_like(heights, (self.interval[1] - self.interval[0]) / len(heights))
        # Of the knots nothing is needed.
        knots = jnp.zeros((len(heights) + 1, *heights.shape[1:]), heights.dtype)
        return widths, heights, knots, heights / widths


def _forward(x: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    return at.y0 + (x - at.x0) * mean_slope(at), jnp.log(mean_slope(at))


def _inverse(y: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    return at.x0 + (y - at.y0) / mean_slope(at), -jnp.log(mean_slope(at))
