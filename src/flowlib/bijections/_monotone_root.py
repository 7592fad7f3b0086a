"""Roots of monotone functions of one variable, by Newton's method in a bracket."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Enough to widen a bracket to the largest float32 and to bisect it to its last digit, with some to spare.
_MAX_STEPS = 512
# Of Newton's method while the target has been seen from one side only.
_PLAIN_STEPS = 8


def monotone_root(
    fn: Callable[[Float[Array, "*lanes"]], tuple[Array, Array]],
    target: Float[Array, "*lanes"],
    start: Float[Array, "*lanes"],
    tolerance: float,
    bracket: tuple[Float[Array, "*lanes"], Float[Array, "*lanes"]] | None = None,
) -> tuple[Float[Array, "*lanes"], Bool[Array, "*lanes"]]:
    """In each lane the x at which a monotone function is `target`, and whether it was found.

    Newton's method; but once the function has been seen on both sides of the target, a step that
    leaves the bracket, or is not half as long as the one before, is replaced by a bisection. Without
    a bracket, steps grow after a while, and one that is not finite is replaced by one of a doubling
    walk to both sides. It ends with a step of Newton's method no longer than
    tolerance (1 + |x|), or a bisection of a tenth of that. Not differentiable.

    Args:
        fn: from x to the value and the slope there, in each lane.
        target: the value to reach.
        start: where to begin.
        tolerance: the bound on the error in x, relative to 1 + |x|.
        bracket: where they are known, a point whose value is below the target, or equal to it, and one above.
    """

    def is_open(state):
        *_, searching, _, n = state
        return jnp.any(searching) & (n < _MAX_STEPS)

    def step(state):
        x, below, above, last, reach, searching, found, n = state
        value, slope = fn(x)
        left = value - target
        below, above = jnp.where(left < 0, x, below), jnp.where(left > 0, x, above)
        middle = below / 2 + above / 2
        bracketed = ~jnp.isnan(middle)
        # Where steps stay short and on one side, as on an exponential, they are doubled until they cross.
        hurry = jnp.where(bracketed, 1, jnp.maximum(1, jnp.abs(reach) / 2**_PLAIN_STEPS))
        newton = x - hurry * left / slope
        # Whichever end is the lower one; a step too small to be seen stays at an end.
        inside = jnp.sign(newton - below) * jnp.sign(newton - above) <= 0
        converges = inside & (jnp.abs(newton - x) <= last / 2)
        by_newton = jnp.isfinite(newton) & jnp.isfinite(slope) & (converges | ~bracketed)
        moved = jnp.where(by_newton, newton, jnp.where(bracketed, middle, start + reach))
        moved = jnp.where(left == 0, x, moved)
        length = jnp.abs(moved - x)
        # The error after a step of Newton's method is of the order of its square, that after a bisection its length.
        allowed = jnp.where(by_newton, tolerance, jnp.where(bracketed, tolerance / 10, -1)) * (1 + jnp.abs(x))
        ends = searching & jnp.isfinite(left) & ((left == 0) | (length <= allowed))
        # No search can begin at a point without a value.
        hopeless = jnp.isnan(left) & (n == 0)
        x = jnp.where(searching, moved, x)
        return x, below, above, length, -2 * reach, searching & ~ends & ~hopeless, found | ends, n + 1

    searching = jnp.isfinite(target) & jnp.isfinite(start)
    unknown, infinite = jnp.full_like(start, jnp.nan), jnp.full_like(start, jnp.inf)
    below, above = (unknown, unknown) if bracket is None else bracket
    state = (start, below, above, infinite, jnp.ones((), start.dtype), searching, jnp.zeros_like(searching), 0)
    x, *_, found, _ = jax.lax.while_loop(is_open, step, state)
    return x, found
