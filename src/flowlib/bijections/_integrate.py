"""Solving the differential equations of continuous flows, with diffrax, which is imported here and at its first use."""

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

Adjoint = Literal["checkpoint", "backsolve", "direct"]
# dx/dt of one event: called with the time, the event and the condition.
Field = Callable[[Array, Array, Array | None], Array]

# The first step tried. The solver's own guess is tiny where the field is 0, as it is before training.
_FIRST_STEP = 0.2


class Setting(NamedTuple):
    """How an equation is solved: the tolerance (None for that of the dtype), the most steps, and the gradient."""

    tolerance: float | None
    max_steps: int
    adjoint: Adjoint


class Solution(NamedTuple):
    """What a solve reached, whether it did, and in how many steps, those that were rejected included.

    The energy, the integral of |dx/dt|^2, is there with a probe and a log-det only; a log-det not asked for is NaN.
    """

    x: Array
    log_det: Float[Array, ""]
    energy: Float[Array, ""] | None
    found: Bool[Array, ""]
    steps: Int[Array, ""]


def require_diffrax() -> Any:
    """The package diffrax.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        # Its constants are made at import, which may come inside of a trace.
        with jax.ensure_compile_time_eval():
            return importlib.import_module("diffrax")
    except ModuleNotFoundError as error:
        if error.name != "diffrax":
            raise
        raise ModuleNotFoundError("continuous flows need diffrax: pip install flowlib[ode]", name="diffrax") from None


def solver_tolerance(dtype: Any) -> float:
    """The error allowed to a step, relative and absolute: 1e-6 in float32 and 1e-9 in float64."""
    return 1e-9 if dtype == jnp.float64 else 1e-6


def integrate(
    field: Field,
    x: Array,
    condition: Array | None,
    setting: Setting,
    *,
    backwards: bool,
    probe: Array | None = None,
    log_det: bool = True,
) -> Solution:
    """Follow dx/dt = field(t, x, condition) from time 0 to 1, or `backwards` from 1 to 0.

    The log-det is the integral of the divergence: exact, or with a `probe` v of x's shape v.(dfield/dx)v, which is
    Hutchinson's estimate of it. Without `log_det` the event alone is followed, for the price of the field alone. An
    event that is not finite, or for which the solver fails, comes back as it came.
    """
    diffrax = require_diffrax()
    # A value to go on from: the solver would try one step after another.
    finite = jnp.isfinite(x).all() if condition is None else jnp.isfinite(x).all() & jnp.isfinite(condition).all()
    start = jnp.where(finite, x, 0)
    condition = None if condition is None else jnp.where(finite, condition, jnp.zeros_like(condition))
    arrays, rest = eqx.partition((field, condition, probe), eqx.is_array)
    tolerance = solver_tolerance(x.dtype) if setting.tolerance is None else setting.tolerance
    t0, t1 = jnp.asarray(float(backwards), x.dtype), jnp.asarray(float(not backwards), x.dtype)
    # Here an error of the field's comes as it is; the solver would put its own around it.
    jax.eval_shape(partial(field_at, field), t0, condition, start)
    zero, shortest = jnp.zeros((), x.dtype), 4 * float(jnp.finfo(x.dtype).eps)
    # Of the log-det and, with a probe, the energy.
    totals = () if not log_det else (zero,) if probe is None else (zero, zero)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(Partial(_rates, rest)),
        diffrax.Tsit5(),
        t0,
        t1,
        (t1 - t0) * jnp.asarray(_FIRST_STEP, x.dtype),
        (start, *totals),
        arrays,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance, dtmin=shortest, norm=_largest),
        adjoint=_adjoint(diffrax, setting, tolerance),
        max_steps=setting.max_steps,
        throw=False,
    )
    x_end, *totals = jax.tree.map(lambda saved: saved[0], solution.ys)
    done = finite & (solution.result == diffrax.RESULTS.successful)
    found = done & jnp.isfinite(x_end).all() & jnp.isfinite(jnp.asarray(totals)).all()
    x_end = jnp.where(found, x_end, jax.lax.stop_gradient(start))
    totals = [jnp.where(found, total, 0) for total in totals]
    energy = None if len(totals) < 2 else -totals[1] if backwards else totals[1]
    steps = jnp.asarray(solution.stats["num_steps"])
    return Solution(x_end, totals[0] if totals else jnp.full((), jnp.nan, x.dtype), energy, found, steps)


def _adjoint(diffrax, setting, tolerance):
    if setting.adjoint == "direct":
        return diffrax.DirectAdjoint()
    if setting.adjoint == "checkpoint":
        return diffrax.RecursiveCheckpointAdjoint()
    # Gradients of parameters are integrals, which need no part in the choice of steps.
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=diffrax.adjoint_rms_seminorm)
    return diffrax.BacksolveAdjoint(
        solver=diffrax.Tsit5(), stepsize_controller=controller, max_steps=setting.max_steps, throw=False
    )


def _largest(error) -> Array:
    size = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(error)]).max()
    # A step that led nowhere is tried again with a shorter one; of NaN the controller would make steps of NaN.
    return jnp.where(jnp.isnan(size), jnp.inf, size)


def _rates(rest, t, state, arrays):
    """The rates of change of what the state has: the event, the log-det and, with a probe, the energy."""
    field, condition, probe = eqx.combine(arrays, rest)
    x = state[0]
    # A trial step may overflow; the gradient of what is computed there, though not used, must be no NaN.
    finite = jnp.isfinite(x).all()
    velocity = partial(field_at, field, jnp.asarray(t, x.dtype), condition)
    inside = jnp.where(finite, x, 0)
    if len(state) == 1:
        rates = (velocity(inside),)
    elif probe is None:
        rates = value_and_divergence(velocity, inside)
    else:
        rate, pushed = jax.jvp(velocity, (inside,), (probe,))
        rates = rate, (probe * pushed).sum(), (rate * rate).sum()
    return tuple(jnp.where(finite, part, jnp.nan) for part in rates)


def field_at(field: Field, t: Array, condition: Array | None, x: Array) -> Array:
    """The field at one event, in the dtype of the event.

    Raises:
        ValueError: if the field gives another shape.
    """
    rate = jnp.asarray(field(t, x, condition), x.dtype)
    if rate.shape != x.shape:
        raise ValueError(f"ContinuousFlow expected field to give shape {x.shape}, got {rate.shape}.")
    return rate


def value_and_divergence(velocity: Callable[[Array], Array], x: Array) -> tuple[Array, Float[Array, ""]]:
    """The field and the trace of its Jacobian, from one forward-mode pass for each coordinate, all at once."""
    size = math.prod(x.shape)
    directions = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape)
    value, columns = jax.vmap(lambda v: jax.jvp(velocity, (x,), (v,)), out_axes=(None, 0))(directions)
    return value, jnp.trace(columns.reshape(size, size))
