"""Sets that are the same, or of one kind, in each coordinate."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib.support._support import Support
from flowlib.support._turns import in_first_turn


class Real(Support):
    """The finite real numbers, in each coordinate."""

    kind: ClassVar[str] = "real"

    def inside(self, x):
        return jnp.isfinite(x)

    def anchor(self, x):
        return jnp.zeros((), x.dtype)

    def draw(self, key, shape, dtype=None):
        return jr.normal(key, shape, dtype)


class Positive(Support):
    """The positive numbers, in each coordinate; zero too if `closed`.

    Numbers below the smallest normal one are not among them unless `closed`: processors take them for zero.
    """

    kind: ClassVar[str] = "positive"
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        return jnp.isfinite(x) & (x >= (0 if self.closed else jnp.finfo(x.dtype).tiny))

    def anchor(self, x):
        return jnp.ones((), x.dtype)

    def draw(self, key, shape, dtype=None):
        return jnp.exp(jr.normal(key, shape, dtype))


class Interval(Support):
    """The interval from `lower` to `upper`, in each coordinate; its ends too if `closed`."""

    kind: ClassVar[str] = "interval"
    lower: Any
    upper: Any
    closed: bool = eqx.field(default=False, static=True)

    def inside(self, x):
        lower, upper = self._ends(x.dtype)
        return (x >= lower) & (x <= upper) if self.closed else (x > lower) & (x < upper)

    def anchor(self, x):
        lower, upper = self._ends(x.dtype)
        return lower + (upper - lower) / 2

    def draw(self, key, shape, dtype=None):
        unit = jr.uniform(key, shape, dtype, minval=0.02, maxval=0.98)
        lower, upper = self._ends(unit.dtype)
        return lower + (upper - lower) * unit

    def _ends(self, dtype):
        return jnp.asarray(self.lower, dtype), jnp.asarray(self.upper, dtype)


class Circle(Support):
    """Positions on a circle cut open at `lower`, whose end `upper` is the same point; by default angles.

    Its points are in one turn, from `lower` to `upper`; a density takes positions in any turn.
    """

    kind: ClassVar[str] = "circle"
    lower: float = eqx.field(default=-math.pi, static=True)
    upper: float = eqx.field(default=math.pi, static=True)

    @property
    def has_circles(self) -> bool:
        return True

    def in_range(self, x):
        return in_first_turn(x, self.lower, self.upper)

    def inside(self, x):
        # Both ends count, so that rounding cannot push a point off the circle.
        return (x >= jnp.asarray(self.lower, x.dtype)) & (x <= jnp.asarray(self.upper, x.dtype))

    def anchor(self, x):
        return jnp.asarray((self.lower + self.upper) / 2, x.dtype)

    def draw(self, key, shape, dtype=None):
        return Interval(self.lower, self.upper).draw(key, shape, dtype)


class Integers(Support):
    """The whole numbers from `lower` to `upper`, both included, in each coordinate.

    Args:
        lower: a whole number, or -inf. Defaults to -inf.
        upper: a whole number, or inf. Defaults to inf.

    Raises:
        ValueError: unless both are whole and `lower <= upper`.
    """

    kind: ClassVar[str] = "integers"
    lower: float = eqx.field(static=True)
    upper: float = eqx.field(static=True)

    def __init__(self, lower: float = -math.inf, upper: float = math.inf):
        self.lower, self.upper = float(lower), float(upper)
        whole = all(math.isinf(end) or end.is_integer() for end in (self.lower, self.upper))
        if not (whole and self.lower <= self.upper):
            raise ValueError(f"Integers expected whole numbers with lower <= upper, got ({lower:g}, {upper:g}).")

    def inside(self, x):
        return jnp.isfinite(x) & (x == jnp.floor(x)) & (x >= self.lower) & (x <= self.upper)

    def anchor(self, x):
        return jnp.asarray(min(max(0.0, self.lower), self.upper), x.dtype)

    def draw(self, key, shape, dtype=None):
        wide = jnp.round(3 * jr.normal(key, shape, dtype))
        if math.isfinite(self.lower) and math.isfinite(self.upper):
            return self.lower + jnp.mod(wide, self.upper - self.lower + 1)
        if math.isfinite(self.lower):
            return self.lower + jnp.abs(wide)
        return self.upper - jnp.abs(wide) if math.isfinite(self.upper) else wide


class Box(Support):
    """A set of its own for each column, the last axis: a line, half-line, open interval or circle, by its ends.

    Ends may be infinite. With one entry in each field, the set is the same for all coordinates, in every shape.
    """

    # Of any kind: `fits` cannot tell.
    kind: ClassVar[str] = "unknown"
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    # Where both ends are finite: whether they are one point, as in `Circle`, and so members.
    circular: tuple[bool, ...] = eqx.field(static=True)

    def extremes(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest member of each column in a floating dtype, of shape () or (columns,)."""
        info = jnp.finfo(dtype)
        tiny, most = np.asarray(info.tiny, dtype), np.asarray(info.max, dtype)
        lower, upper, circular = self.columns(dtype)
        least = np.where(circular, lower, np.nextafter(lower, most))
        greatest = np.where(circular, upper, np.nextafter(upper, -most))
        # Processors take subnormal numbers for 0.
        zero = np.zeros((), dtype)
        least = np.where(~circular & (abs(least) < tiny), np.where(lower < 0, zero, tiny), least)
        greatest = np.where(~circular & (abs(greatest) < tiny), np.where(upper > 0, zero, -tiny), greatest)
        return np.where(np.isfinite(lower), least, -most), np.where(np.isfinite(upper), greatest, most)

    @property
    def has_circles(self) -> bool:
        return any(self.circular)

    def in_range(self, x):
        if not self.has_circles:
            return x
        lower, upper, circular = self.columns(np.float64)
        lower, upper = np.where(circular, lower, 0), np.where(circular, upper, 1)
        return jnp.where(circular, in_first_turn(x, lower, upper), x)

    def columns(self, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fields as arrays of shape () or (columns,), the ends rounded to a floating dtype."""
        with np.errstate(over="ignore"):
            arrays = [np.asarray(ends, np.float64).astype(dtype) for ends in (self.lower, self.upper)]
        arrays.append(np.asarray(self.circular))
        lower, upper, circular = (array[0] if len(array) == 1 else array for array in arrays)
        return np.asarray(lower), np.asarray(upper), np.asarray(circular)

    def inside(self, x):
        least, greatest = self.extremes(x.dtype)
        return (x >= least) & (x <= greatest)

    def anchor(self, x):
        least, greatest = self.extremes(np.float64)
        lower, upper, _ = self.columns(np.float64)
        with np.errstate(invalid="ignore"):
            above, below = lower + np.maximum(1, abs(lower)), upper - np.maximum(1, abs(upper))
            middle = np.where(np.isfinite(lower), lower / 2 + upper / 2, 0)
        anchor = np.where(
            np.isinf(upper), np.where(np.isinf(lower), 0, above), np.where(np.isinf(lower), below, middle)
        )
        least, greatest = self.extremes(x.dtype)
        return jnp.asarray(np.clip(anchor.astype(x.dtype), least, greatest))

    def draw(self, key, shape, dtype=None):
        wide = jr.normal(key, shape, dtype)
        lower, upper, _ = self.columns(wide.dtype)
        unit = 0.02 + 0.96 * jax.scipy.stats.norm.cdf(wide)
        line = np.isinf(lower) & np.isinf(upper)
        start, end = np.where(np.isinf(lower), 0, lower), np.where(np.isinf(upper), 0, upper)
        half = jnp.where(np.isinf(upper), start + jnp.exp(wide), end - jnp.exp(wide))
        between = start + (end - start) * unit
        return jnp.where(line, wide, jnp.where(np.isinf(lower) | np.isinf(upper), half, between))
