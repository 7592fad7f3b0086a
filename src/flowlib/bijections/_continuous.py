"""The map of a differential equation from its start to its end."""

import math
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count
from flowlib._module import unwrap_own
from flowlib.bijections._bijection import AbstractBijection, LogDet, _condition_axis, _own
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._integrate import Adjoint, Field, Setting, Solution, field_at, integrate, require_diffrax
from flowlib.bijections._invert import Invert


class ContinuousFlow(AbstractBijection):
    """y = x(1), where dx/dt = field(t, x(t), condition) and x(0) = x; log |det dy/dx| is the integral of div field.

    `inverse` follows the same equation from time 1 to 0. Both are solved by Tsitouras' method of order 5 with steps
    chosen for each event by itself; a row for which `max_steps` are not enough is NaN. An evaluation of the field
    costs size forward-mode passes through it besides, for the exact divergence, and a solve about 6 a step.
    `values_batch` leaves the divergence out, and so do `sample`, `to_base` and `from_base` of a flow with such a layer
    in its chains, scans and inverses; `transform` and `inverse` do not. It needs diffrax: `pip install flowlib[ode]`.

    Args:
        field: a function `field(t, x, condition) -> dx/dt` of a scalar, one event and one condition (or None), smooth
            in x; a module such as `flowlib.nn.TimeMLP`, or a module-level function.
        shape: the shape of an event.
        cond_shape: the shape of a condition. Defaults to None.
        tolerance: the error allowed to a step, |dx_i| <= tolerance (1 + |x_i|) in every coordinate, and likewise in
            the log-det. The error of the result is some times that. Defaults to 1e-6 in float32 and 1e-9 in float64.
        max_steps: the most steps, those that were rejected included.
        adjoint: how the gradient is found.
            "checkpoint": that of the steps taken, of which some are kept and the others taken once more; reverse mode.
            "backsolve": by a differential equation backwards in time, in constant memory and to the tolerance
            only; reverse mode.
            "direct": as "checkpoint", slower to compile and to run, in forward mode too.
        throw: raise where the solver fails, instead of NaN.

    Raises:
        ValueError: if the tolerance is not positive, there are no coordinates or steps, or the adjoint is unknown.
        TypeError: if `field` cannot be called.
        ImportError: without diffrax.

    References:
        Chen, Rubanova, Bettencourt and Duvenaud (2018), https://arxiv.org/abs/1806.07366, equation 8.
    """

    field: Field
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    adjoint: Adjoint = eqx.field(static=True)
    throw: bool = eqx.field(static=True)

    def __init__(
        self,
        field: Field,
        shape: int | tuple[int, ...],
        *,
        cond_shape: int | tuple[int, ...] | None = None,
        tolerance: float | None = None,
        max_steps: int = 1024,
        adjoint: Adjoint = "checkpoint",
        throw: bool = False,
    ):
        if not callable(field):
            raise TypeError(f"ContinuousFlow expected field to be callable, got {type(field).__name__}.")
        if tolerance is not None and not (tolerance > 0 and math.isfinite(tolerance)):
            raise ValueError(f"ContinuousFlow expected a positive tolerance, got {tolerance}.")
        if adjoint not in get_args(Adjoint):
            raise ValueError(f"ContinuousFlow expected adjoint to be one of {get_args(Adjoint)}, got {adjoint!r}.")
        self.field = field
        self.shape = as_shape(shape)
        if math.prod(self.shape) == 0:
            raise ValueError(f"ContinuousFlow expected at least one coordinate, got shape {self.shape}.")
        self.cond_shape = None if cond_shape is None else as_shape(cond_shape, "cond_shape")
        self.tolerance = None if tolerance is None else float(tolerance)
        self.max_steps = check_count(max_steps, "max_steps")
        self.adjoint = adjoint
        self.throw = throw
        require_diffrax()

    @property
    def _cheap_both_ways(self) -> bool:
        # Neither direction is analytic.
        return False

    def velocity(self, t: Array, x: Array, condition: Array | None = None) -> Array:
        """dx/dt of one event at one time."""
        flow = unwrap_own(self)
        return field_at(flow.field, t, condition, x)

    def follow(
        self,
        x: Array,
        condition: Array | None = None,
        *,
        backwards: bool = False,
        probe: Array | None = None,
        log_det: bool = True,
    ) -> Solution:
        """One event carried from time 0 to 1, or `backwards`; with a `probe`, with Hutchinson's estimate of log-det.

        The probe is a random vector of the event's shape with mean 0 and covariance 1, kept for the whole solve.
        Without `log_det` an evaluation of the field costs no pass besides.
        """
        flow = unwrap_own(self)
        setting = Setting(flow.tolerance, flow.max_steps, flow.adjoint)
        return integrate(flow.field, x, condition, setting, backwards=backwards, probe=probe, log_det=log_det)

    def values_batch(
        self, x: Float[Array, "rows *shape"], condition: Array | None = None, *, inverse: bool = False
    ) -> Float[Array, "rows *shape"]:
        """Rows after `transform`, with `inverse` after that, without log-dets; conditions are one for all, or each."""

        def one(x, condition):
            return self._point(self.follow(x, condition, backwards=inverse, log_det=False))

        condition = _own(self, condition)
        return jax.vmap(one, (0, _condition_axis(self, condition)))(x, condition)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._or_nan(self.follow(x, condition))

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._or_nan(self.follow(y, condition, backwards=True))

    def _or_nan(self, solution: Solution) -> tuple[Array, LogDet]:
        # No density of -inf, which would say that the event is impossible.
        log_det = jnp.where(solution.found, solution.log_det, jnp.nan)
        return self._point(solution), LogDet(log_det, jnp.ones((), bool))

    def _point(self, solution: Solution) -> Array:
        """The event, or NaN, as after other numerical failures."""
        flow = unwrap_own(self)
        found, x = solution.found, solution.x
        if flow.throw:
            x = eqx.error_if(
                x,
                ~found,
                f"The equation of a ContinuousFlow was not solved: it needs more than max_steps={flow.max_steps} steps "
                "at its tolerance, or the event or the field is not finite.",
            )
        return jnp.where(found, x, jnp.nan)


def continuous_part(
    layer: Any, condition: Array | None = None, *, inverted: bool = False
) -> tuple[ContinuousFlow, Array | None, bool] | None:
    """The `ContinuousFlow` that one of `layers_of` is, with the condition that it sees and whether it is inverted.

    None if the layer is something else.
    """
    layer = unwrap_own(layer)
    if isinstance(layer, ContinuousFlow):
        return layer, None if layer.cond_shape is None else condition, inverted
    if isinstance(layer, Invert):
        return continuous_part(layer.bijection, condition, inverted=not inverted)
    # What `layers_of` makes of these two around a layer changes the condition alone.
    if isinstance(layer, EmbedCondition):
        condition = None if condition is None else layer._embed(condition)
        return continuous_part(layer.bijection, condition, inverted=inverted)
    if isinstance(layer, InDataUnits):
        return continuous_part(layer.bijection, layer._standardise_condition(condition), inverted=inverted)
    return None
