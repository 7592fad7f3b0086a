"""Piecewise quadratic maps of an interval."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._interval import Interval, checked_interval, within
from flowlib.bijections._spline_bins import Bin, apply_between_ends, bin_sizes, check_min_width


class QuadraticSpline(AbstractBijection):
    """A monotone spline of quadratics on an interval: its slope is linear between knots.

    In a bin of width w with end slopes d0, d1 and t = (x - x0)/w in [0, 1],

        y = y0 + w (d0 t + (d1 - d0) t^2 / 2),    dy/dx = d0 + (d1 - d0) t,

    and x follows from y by a quadratic equation. The slopes at the ends of the interval are 1 and the mean slope
    is 1, so that value and slope are continuous with the identity outside. Event shape (); `Vmap` gives one
    spline to each coordinate. Both directions O(knots). It starts as the identity.

    Args:
        knots: the number of inner knots, at least 2; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b).
        min_derivative: the least slope, in (0, 1).
        min_width: the least width of a bin.

    Raises:
        ValueError: if an argument is out of its range, or the bins do not fit into the interval.

    References:
        Müller et al. 2019, Neural importance sampling, section 4.2 (arXiv:1808.03856).
    """

    widths: Float[Array, "..."]
    slopes: Float[Array, "..."]
    interval: Interval = eqx.field(static=True)
    min_derivative: float = eqx.field(static=True)
    min_width: float = eqx.field(static=True)
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
    ):
        # With one, end slopes and mean slope leave only the identity.
        knots = check_count(knots, "knots", 2)
        self.interval = checked_interval(interval, "QuadraticSpline")
        if not 0 < min_derivative < 1:
            raise ValueError(f"QuadraticSpline expected min_derivative in (0, 1), got {min_derivative}.")
        self.min_derivative = float(min_derivative)
        self.min_width = check_min_width(min_width, knots + 1, self.interval, "QuadraticSpline")
        # Softmax logits of the widths, and logarithms of the slopes up to a common factor.
        self.widths = jnp.zeros(knots + 1)
        self.slopes = jnp.zeros(knots)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return apply_between_ends(_forward, x, self._table(), self.interval, inverse=False, products=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return apply_between_ends(_inverse, y, self._table(), self.interval, inverse=True, products=True)

    def _table(self):
        widths = bin_sizes(self.widths, self.interval, self.min_width)
        total = self.interval[1] - self.interval[0]
        # Slopes up to a factor c; the area under them is that of the ends, where they are c, plus that of the others.
        inner = jnp.exp(self.slopes - jax.lax.stop_gradient(self.slopes.max(axis=0)))
        ends = (widths[0] + widths[-1]) / 2
        area = (inner * (widths[:-1] + widths[1:]) / 2).sum(axis=0)
        inner = self.min_derivative + (1 - self.min_derivative) * inner * (total - ends) / area
        one = jnp.ones_like(inner[:1])
        slopes = jnp.concatenate([one, inner, one])
        mean = (slopes[:-1] + slopes[1:]) / 2
        return widths, widths * mean, slopes, mean


def _forward(x: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    t = within((x - at.x0) / at.width, (0, 1))
    return at.y0 + at.width * t * (at.d0 + (at.d1 - at.d0) * t / 2), jnp.log(_slope(t, at.d0, at.d1))


def _inverse(y: Float[Array, "*lanes"], at: Bin) -> tuple[Array, Array]:
    u = within((y - at.y0) / at.height, (0, 1))
    # The square of the slope is linear in y, and positive.
    slope = jnp.sqrt(_slope(u, at.d0**2, at.d1**2))
    # Of the two forms of the root this one does not cancel.
    return at.x0 + at.width * u * (at.d0 + at.d1) / (at.d0 + slope), -jnp.log(slope)


def _slope(t, start, end):
    return start * (1 - t) + end * t
