"""Numerical inverses: roots with bounded errors and implicit gradients."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from flowlib._arrays import default_float
from flowlib._module import stop_gradient
from flowlib.bijections._monotone_root import monotone_root

Structure = Literal["triangular", "dense"]
Function = Callable[[Array, PyTree], Array]

_MAX_NEWTON_STEPS = 64


def default_tolerance(dtype: Any) -> float:
    """The bound on |dx| / (1 + |x|): 1e-5 in float32 and 1e-10 in float64."""
    return 1e-10 if dtype == jnp.float64 else 1e-5


def solve_scalar(
    fn: Function,
    target: Float[Array, "*lanes"],
    args: PyTree,
    *,
    start: Float[Array, "*lanes"] | None = None,
    bracket: tuple[Float[Array, "*lanes"], Float[Array, "*lanes"]] | None = None,
) -> Float[Array, "*lanes"]:
    """The x with fn(x, args) = target for a monotone function of one variable; NaN where none is found.

    The gradient is implicit, in `target` and `args`. With lanes, fn takes each by itself.

    Args:
        fn: the function.
        target: the value to reach.
        args: what else fn depends on.
        start: where to begin. Defaults to the target.
        bracket: see `monotone_root`.
    """
    searched, wanted, start, bracket = stop_gradient((args, target, target if start is None else start, bracket))

    def along(x):
        return _value_and_slope(lambda x: fn(x, searched), x)

    x, found = monotone_root(along, wanted, start, default_tolerance(target.dtype), bracket)
    # Not found, it is no point to differentiate at: what is shared with other rows would get a gradient of NaN.
    x = jnp.where(found, x, 0)
    x = jax.lax.custom_root(lambda x: fn(x, args) - target, x, _given, _scalar_tangent_solve)
    return jnp.where(found, x, jnp.nan)


def solve(
    fn: Function,
    targets: Float[Array, "rows dim"],
    args: PyTree,
    row_args: PyTree,
    *,
    structure: Structure,
    tolerance: float | None = None,
    guesses: Float[Array, "rows dim"] | None = None,
    contraction: float | None = None,
) -> tuple[Float[Array, "rows dim"], Bool[Array, " rows"]]:
    """For each row the vector x with fn(x, (args, row_args)) = target, and whether its error is within the tolerance.

    A row that fails has some finite x.

    A triangular function (output i depends on inputs 0 to i, monotonically on input i) is solved
    coordinate by coordinate, by Newton's method in a bracket; any other by Newton's method for all
    coordinates, and where that fails by Levenberg-Marquardt. One that is the identity plus a contraction is solved by
    the fixed-point iteration x <- x - (fn(x) - target) and one step of Newton's method. The error |dx_i| is bounded by
    tolerance (1 + |x_i|) in every coordinate, or by what the rounding of fn allows. The gradient
    is implicit, in the targets and all arguments, through a triangular solve where the Jacobian
    is triangular.

    Args:
        fn: a function of one row, `fn(x, (args, row_args))`.
        targets: the values to reach.
        args: what all rows share.
        row_args: what each row has of its own, on a leading axis.
        structure: of the Jacobian of fn.
        tolerance: the bound above. Defaults to `default_tolerance`.
        guesses: where to start. Defaults to the targets.
        contraction: where fn(x) = x + g(x), a Lipschitz constant of g below 1.
    """
    tolerance = default_tolerance(targets.dtype) if tolerance is None else tolerance
    # The search is not differentiated; the root is, by the implicit function theorem.
    searched = stop_gradient((targets, args, row_args))

    def on_rows(method, start):
        return _on_rows(method, fn, start, *searched)

    start = stop_gradient(targets if guesses is None else guesses)
    polish = partial(_polish, structure=structure, tolerance=tolerance)
    if structure == "triangular":
        x = on_rows(partial(_in_turn, tolerance=tolerance), start)
    elif contraction is not None:
        x = on_rows(partial(_contract, constant=contraction, tolerance=tolerance), start)
    else:
        x = _newton_then_least_squares(on_rows, polish, start, tolerance)
    x, accurate = on_rows(polish, x)
    # As in `solve_scalar`.
    x = jnp.where(accurate[:, None], x, 0)
    return implicit_root(fn, x, targets, args, row_args, structure), accurate


def implicit_root(
    fn: Function,
    x: Float[Array, "rows dim"],
    targets: Float[Array, "rows dim"],
    args: PyTree,
    row_args: PyTree,
    structure: Structure,
) -> Float[Array, "rows dim"]:
    """`x`, at which fn is `targets`, as a differentiable function of the targets and of all arguments; see `solve`."""
    return _on_rows(partial(_implicit_root, structure=structure), fn, x, targets, args, row_args)


def _on_rows(method, fn, start, targets, args, row_args):
    def one(start, target, row):
        return method(partial(_residual, fn, target, (args, row)), start, target)

    return jax.vmap(one)(start, targets, row_args)


def _newton_then_least_squares(on_rows, polish, start, tolerance):
    first, found = on_rows(partial(_newton, tolerance=tolerance), start)

    def rescue():
        rescued = on_rows(partial(_least_squares, tolerance=tolerance), start)
        return on_rows(polish, rescued)[0]

    # One branch for all rows: under vmap every row would pay for both.
    rescued = jax.lax.cond(found.all(), lambda: first, rescue)
    return jnp.where(found[:, None], first, rescued)


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


def _scalar_tangent_solve(linear, target):
    return target / linear(jnp.ones_like(target))


def _linear_solve(matrix, target, structure):
    if structure == "triangular":
        return jax.scipy.linalg.solve_triangular(matrix, target, lower=True)
    return jnp.linalg.solve(matrix, target)


def _residual(fn, target, args, x):
    return fn(x, args) - target


def _ignoring_args(fn, x, args):
    return fn(x)


def _newton(residual, start, target, *, tolerance):
    import optimistix

    # A tenth, because the last step bounds the error of the point before it.
    limits = {"rtol": tolerance / 10, "atol": tolerance / 10, "norm": optimistix.max_norm}
    solver = optimistix.Newton(**limits, cauchy_termination=False)
    residual = partial(_ignoring_args, residual)
    solution = optimistix.root_find(residual, solver, start, max_steps=_MAX_NEWTON_STEPS, throw=False)
    return solution.value, solution.result == optimistix.RESULTS.successful


def _contract(residual, start, target, *, constant, tolerance):
    # A tenth, for the step after it will be taken too.
    most = tolerance / 10 * (1 - constant) / constant
    # From a relative error of 1 the iteration is at the last digit after half as many.
    max_steps = 2 * math.ceil(math.log(jnp.finfo(start.dtype).eps) / math.log(constant)) + 10

    def is_open(state):
        _, length, last, n = state
        # Steps become shorter by the constant at least, until they are nothing but rounding.
        return (length > most) & (length <= (1 + constant) / 2 * last) & (n < max_steps)

    def step(state):
        x, length, _, n = state
        move = residual(x)
        return x - move, jnp.sqrt(move @ move), length, n + 1

    infinite = jnp.full((), jnp.inf, start.dtype)
    return jax.lax.while_loop(is_open, step, (start, infinite, infinite, 0))[0]


def _least_squares(residual, start, target, *, tolerance):
    import optimistix

    solver = optimistix.LevenbergMarquardt(rtol=tolerance / 10, atol=tolerance / 10, norm=optimistix.max_norm)

    def in_default_float(x, args):
        # The solver's own numbers are of the default precision, and it does not mix them with others.
        return residual(x.astype(start.dtype)).astype(default_float())

    found = optimistix.root_find(in_default_float, solver, start.astype(default_float()), max_steps=256, throw=False)
    return found.value.astype(start.dtype)


def _in_turn(residual, start, target, *, tolerance):
    """Each coordinate by its own equation, with those before it known."""

    def one(carry, i):
        x, alive = carry

        def along(value):
            return _value_and_slope(lambda t: residual(x.at[i].set(t))[i], value)

        # After a failure there is nothing more to search for.
        root, found = monotone_root(along, jnp.where(alive, 0, jnp.nan), x[i], tolerance)
        return (x.at[i].set(root), alive & found), None

    (x, _), _ = jax.lax.scan(one, (start, jnp.ones((), bool)), jnp.arange(start.size))
    return x


def _value_and_slope(fn, x):
    return jax.jvp(fn, (x,), (jnp.ones_like(x),))
