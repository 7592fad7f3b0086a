"""Numerical inverses: roots with bounded errors and implicit gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from flowlib._arrays import default_float
from flowlib._module import stop_gradient

Structure = Literal["triangular", "dense"]
Function = Callable[[Array, PyTree], Array]

# Doublings of a bracket of half-width 1: enough to reach the largest value with a square in float32.
_MAX_DOUBLINGS = 64


def default_tolerance(dtype: Any) -> float:
    """The bound on |dx| / (1 + |x|): 1e-5 in float32 and 1e-10 in float64."""
    return 1e-10 if dtype == jnp.float64 else 1e-5


def solve_scalar(fn: Function, target: Float[Array, ""], args: PyTree) -> Float[Array, ""]:
    """The x with fn(x, args) = target for a monotone function of one variable; NaN where none is found.

    The gradient is implicit, in `target` and `args`.
    """
    x, found = solve(partial(_as_vector, fn), target[None, None], args, None, structure="triangular")
    return jnp.where(found[0], x[0, 0], jnp.nan)


def solve(
    fn: Function,
    targets: Float[Array, "rows dim"],
    args: PyTree,
    row_args: PyTree,
    *,
    structure: Structure,
    tolerance: float | None = None,
    guesses: Float[Array, "rows dim"] | None = None,
    max_steps: int = 64,
) -> tuple[Float[Array, "rows dim"], Bool[Array, " rows"]]:
    """For each row the vector x with fn(x, (args, row_args)) = target, and whether its error is within the tolerance.

    Newton's method first. If that fails for any row, a triangular function (output i depends on
    inputs 0 to i, monotonically on input i) is solved coordinate by coordinate by bisection, and
    any other by Levenberg-Marquardt. The error |dx_i| is bounded by tolerance (1 + |x_i|) in
    every coordinate, or by what the rounding of fn allows. The gradient is implicit, in the
    targets and all arguments, through a triangular solve where the Jacobian is triangular.

    Args:
        fn: a function of one row, `fn(x, (args, row_args))`.
        targets: the values to reach.
        args: what all rows share.
        row_args: what each row has of its own, on a leading axis.
        structure: of the Jacobian of fn.
        tolerance: the bound above. Defaults to `default_tolerance`.
        guesses: where to start. Defaults to the targets.
        max_steps: of Newton's method.
    """
    tolerance = default_tolerance(targets.dtype) if tolerance is None else tolerance
    problem = (targets, args, row_args)
    # The search is not differentiated; the root is, by the implicit function theorem.
    searched = stop_gradient(problem)

    def on_rows(method, start, problem):
        targets, args, row_args = problem

        def one(start, target, row):
            return method(partial(_residual, fn, target, (args, row)), start, target)

        return jax.vmap(one)(start, targets, row_args)

    newton = partial(_newton, structure=structure, tolerance=tolerance, max_steps=max_steps)
    rescue = partial(_bisect_each if structure == "triangular" else _least_squares, tolerance=tolerance)
    start = stop_gradient(targets if guesses is None else guesses)
    first, found = on_rows(newton, start, searched)
    # One branch for all rows: under vmap every row would pay for both.
    polish = partial(_polish, structure=structure, tolerance=tolerance)

    def rescue_all():
        # A coordinate found to its own tolerance may be too rough for the smaller ones after it: one step mends them.
        return on_rows(polish, on_rows(rescue, start, searched), searched)[0]

    rescued = jax.lax.cond(found.all(), lambda: first, rescue_all)
    x = jnp.where(found[:, None], first, rescued)
    x, accurate = on_rows(polish, x, searched)
    return on_rows(partial(_implicit_root, structure=structure), x, problem), accurate


def _implicit_root(residual, x, target, *, structure):
    """`x`, which is a root, as a differentiable function of all that `residual` closes over."""
    return jax.lax.custom_root(residual, x, _given, partial(_tangent_solve, structure=structure))


def _given(residual, x):
    return x


def _polish(residual, x, target, *, structure, tolerance):
    """One more Newton step, whose length is the error of the point before it; and whether that is small."""
    jacobian, left = jax.jacfwd(residual)(x), residual(x)
    inverse = _linear_solve(jacobian, jnp.eye(len(x), dtype=x.dtype), structure)
    step = inverse @ left
    # A residual of a few roundings is as good as none; an error in one coordinate rightly moves those after it.
    rounding = jnp.abs(inverse) @ (jnp.abs(jacobian) @ jnp.abs(x) + jnp.abs(target))
    allowed = tolerance * (1 + jnp.abs(x)) + 32 * jnp.finfo(x.dtype).eps * rounding
    return x - step, jnp.all(jnp.abs(step) <= allowed)


def _tangent_solve(linear, target, *, structure):
    return _linear_solve(jax.jacfwd(linear)(jnp.zeros_like(target)), target, structure)


def _linear_solve(matrix, target, structure):
    if structure == "triangular":
        return jax.scipy.linalg.solve_triangular(matrix, target, lower=True)
    return jnp.linalg.solve(matrix, target)


def _residual(fn, target, args, x):
    return fn(x, args) - target


def _ignoring_args(fn, x, args):
    return fn(x)


def _as_vector(fn, x, args):
    return fn(x[0], args[0])[None]


def _newton(residual, start, target, *, structure, tolerance, max_steps):
    import lineax
    import optimistix

    tags = frozenset({lineax.lower_triangular_tag}) if structure == "triangular" else frozenset()
    # A tenth, because the last step bounds the error of the point before it.
    limits = {"rtol": tolerance / 10, "atol": tolerance / 10, "norm": optimistix.max_norm}
    solver = optimistix.Newton(**limits, cauchy_termination=False)
    residual = partial(_ignoring_args, residual)
    solution = optimistix.root_find(residual, solver, start, max_steps=max_steps, throw=False, tags=tags)
    return solution.value, solution.result == optimistix.RESULTS.successful


def _least_squares(residual, start, target, *, tolerance):
    import optimistix

    solver = optimistix.LevenbergMarquardt(rtol=tolerance / 10, atol=tolerance / 10, norm=optimistix.max_norm)

    def in_default_float(x, args):
        # The solver's own numbers are of the default precision, and it does not mix them with others.
        return residual(x.astype(start.dtype)).astype(default_float())

    found = optimistix.root_find(in_default_float, solver, start.astype(default_float()), max_steps=256, throw=False)
    return found.value.astype(start.dtype)


def _bisect_each(residual, start, target, *, tolerance):
    def one(x, i):
        return x.at[i].set(_bisect(lambda t: residual(x.at[i].set(t))[i], x[i], tolerance)), None

    # From 0 rather than from where Newton's method went astray.
    return jax.lax.scan(one, jnp.zeros_like(start), jnp.arange(start.size))[0]


def _bisect(fn, start, tolerance):
    import optimistix

    def ends(half):
        return jax.vmap(fn)(jnp.stack([start - half, start + half]))

    def is_open(state):
        _, values, n = state
        return (values[0] * values[1] > 0) & (n < _MAX_DOUBLINGS)

    def widen(state):
        half, _, n = state
        return 2 * half, ends(2 * half), n + 1

    half = jnp.ones_like(start)
    half, values, _ = jax.lax.while_loop(is_open, widen, (half, ends(half), 0))
    # A decreasing function is turned around.
    sign = jnp.where(values[1] >= values[0], 1, -1).astype(start.dtype)
    solver = optimistix.Bisection(rtol=tolerance / 10, atol=tolerance / 10, flip=False)
    bracket = {"lower": start - half, "upper": start + half}
    return optimistix.root_find(
        lambda t, args: sign * fn(t), solver, start, options=bracket, max_steps=128, throw=False
    ).value
