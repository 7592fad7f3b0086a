"""The contract of a bijection, and the four functions through which every bijection is called."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from flowlib._arrays import cast_floats, float_dtype, promoted, real_array
from flowlib._module import Node, check_condition, is_wrapped, peel, unwrap_own
from flowlib._ranks import broadcasting
from flowlib._wanted import in_sequence, kind_of
from flowlib.support import Real, Support


class LogDet(eqx.Module):
    """log |det J| of the direction taken, and whether the point was inside that direction's domain.

    Composite bijections add these; a leaf returns a plain scalar. Where `valid` is false the
    computation went on from a safe value and `value` belongs to that one.
    """

    value: Float[Array, "*batch"]
    valid: Bool[Array, "*batch"]

    @classmethod
    def zero(cls, like: Array, batch: tuple[int, ...] = ()) -> "LogDet":
        """The log-det of the identity, in the dtype of `like`."""
        return cls(jnp.zeros(batch, like.dtype), jnp.ones(batch, bool))

    def __add__(self, other: "LogDet") -> "LogDet":
        return LogDet(self.value + other.value, self.valid & other.valid)

    def sum(self) -> "LogDet":
        """Of independent parts, stacked by vmap: the log-det of all of them."""
        return LogDet(jnp.sum(self.value), jnp.all(self.valid))


class AbstractBijection(Node):
    """An invertible map of one event, with its log-determinant.

    Subclasses declare `shape` and `cond_shape`, and write `_transform_and_log_det` and
    `_inverse_and_log_det`. Those two receive one validated event of a floating dtype, the
    condition or None, and a `self` whose parameters are plain arrays of that dtype. The four
    public methods validate, promote and run compiled; a second call with equal shapes, also of
    an equal bijection, compiles nothing.

    Public methods return NaN for an event outside the domain (of `inverse`: the codomain).
    """

    # The shape of one event that goes in.
    shape: eqx.AbstractVar[tuple[int, ...]]
    # The shape of one condition, or None if the bijection is unconditional (it then ignores any).
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of one event that comes out: `shape`, unless the bijection reshapes."""
        return self.shape

    @property
    def domain(self) -> Support:
        """Where `transform` is defined."""
        return Real()

    @property
    def codomain(self) -> Support:
        """What `transform` reaches, and where `inverse` is defined."""
        return Real()

    @abstractmethod
    def _transform_and_log_det(self, x: Array, condition: Array | None) -> tuple[Array, Any]:
        """y and log |det dy/dx| (a scalar, or a `LogDet`)."""

    @abstractmethod
    def _inverse_and_log_det(self, y: Array, condition: Array | None) -> tuple[Array, Any]:
        """x and log |det dx/dy| (a scalar, or a `LogDet`)."""

    # The same for a batch on a leading axis; override them where a batch can be laid out better.
    # `condition` is None, one condition for all rows, or a batch of them.

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None) -> tuple[Array, LogDet]:
        return jax.vmap(partial(forward, self), (0, _condition_axis(self, condition)))(x, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None) -> tuple[Array, LogDet]:
        return jax.vmap(partial(backward, self), (0, _condition_axis(self, condition)))(y, condition)

    def _init_from_data(self, x: Array, condition: Array | None, *, inverse: bool) -> "AbstractBijection":
        """A copy with parameters set from a batch that comes in, backwards if `inverse`; see `flowlib.init_from_data`.

        Here the parameters are still in their wrappers. Rows that do not count are NaN. The default sets nothing.
        """
        return self

    # Whether the two methods of a scalar bijection, given x of shape (n,) and arrays that have one more axis than they
    # were built with, the last and of size n or 1, act on each of the n lanes. Otherwise `vmap` maps over lanes.
    _takes_lanes: ClassVar[bool] = False

    @property
    def _cheap_both_ways(self) -> bool:
        """Whether both directions are analytic and cost about as much, its parts aside."""
        return True

    def transform(self, x: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """y = f(x; condition) for one event.

        Raises:
            ValueError: if `x` or `condition` has the wrong shape, or a needed condition is missing.
            TypeError: if either does not hold real numbers.
        """
        return _call(*_validated(self, x, condition, self.shape, "x"), inverse=False, log_det=False)

    def inverse(self, y: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """x such that `transform(x, condition)` is y. Raises as `transform`."""
        return _call(*_validated(self, y, condition, self.out_shape, "y"), inverse=True, log_det=False)

    def transform_and_log_det(self, x: ArrayLike, condition: ArrayLike | None = None) -> tuple[Array, Array]:
        """y = f(x; condition) and the scalar log |det dy/dx|. Raises as `transform`."""
        return _call(*_validated(self, x, condition, self.shape, "x"), inverse=False, log_det=True)

    def inverse_and_log_det(self, y: ArrayLike, condition: ArrayLike | None = None) -> tuple[Array, Array]:
        """x = f^-1(y; condition) and the scalar log |det dx/dy|. Raises as `transform`."""
        return _call(*_validated(self, y, condition, self.out_shape, "y"), inverse=True, log_det=True)


def forward(bijection: AbstractBijection, x: Array, condition: Array | None = None) -> tuple[Array, LogDet]:
    """Apply a bijection inside another one: no validation, and points outside the domain flagged.

    Parameters are unwrapped here, so that inside a scan or vmap each layer unwraps its own.
    """
    bijection = unwrap_own(bijection)
    x, inside = _guard(bijection.domain, x)
    return _with_flag(bijection._transform_and_log_det(x, _own(bijection, condition)), inside)


def backward(bijection: AbstractBijection, y: Array, condition: Array | None = None) -> tuple[Array, LogDet]:
    """Invert a bijection inside another one; see `forward`."""
    bijection = unwrap_own(bijection)
    y, inside = _guard(bijection.codomain, y)
    return _with_flag(bijection._inverse_and_log_det(y, _own(bijection, condition)), inside)


def forward_batch(bijection: AbstractBijection, x: Array, condition: Array | None = None) -> tuple[Array, LogDet]:
    """`forward` over a leading axis of `x`; `condition` is None, shared, or one for each row."""
    bijection = unwrap_own(bijection)
    return bijection._transform_and_log_det_batch(x, _own(bijection, condition))


def backward_batch(bijection: AbstractBijection, y: Array, condition: Array | None = None) -> tuple[Array, LogDet]:
    """`backward` over a leading axis of `y`; `condition` is None, shared, or one for each row."""
    bijection = unwrap_own(bijection)
    return bijection._inverse_and_log_det_batch(y, _own(bijection, condition))


def forward_lanes(bijection: AbstractBijection, x: Array) -> tuple[Array, LogDet]:
    """`forward` of a scalar bijection in n lanes: x has shape (n,), and each of its arrays one more axis, the last.

    Its size is n, or 1 for all lanes alike.
    """
    if not takes_lanes(bijection):
        return _lane_by_lane(forward, bijection, x)
    x, inside = jax.vmap(partial(_guard, bijection.domain), -1, -1)(x)
    return _with_flags(bijection._transform_and_log_det(x, None), inside)


def backward_lanes(bijection: AbstractBijection, y: Array) -> tuple[Array, LogDet]:
    """`backward` of a scalar bijection in lanes; see `forward_lanes`."""
    if not takes_lanes(bijection):
        return _lane_by_lane(backward, bijection, y)
    y, inside = jax.vmap(partial(_guard, bijection.codomain), -1, -1)(y)
    return _with_flags(bijection._inverse_and_log_det(y, None), inside)


def one_row(
    batched: Callable[[Array, Array | None], tuple[Array, LogDet]], x: Array, condition: Array | None
) -> tuple[Array, LogDet]:
    """One event through the batched form of a direction, for classes that write only that."""
    y, log_det = batched(x[None], condition)
    return y[0], LogDet(log_det.value[0], log_det.valid[0])


def takes_lanes(bijection: Any) -> bool:
    """Whether the bijection itself acts on lanes; what is in a wrapper has yet to be unwrapped, lane by lane."""
    scalar = isinstance(bijection, AbstractBijection) and bijection.shape == ()
    return scalar and bijection._takes_lanes and not is_wrapped(bijection)


def event_log_det(log_slope: Array, shape: tuple[int, ...]) -> Array:
    """The log-det of an elementwise map of events of this shape; of a scalar in lanes, each lane's own."""
    return log_slope if shape == () else log_slope.sum()


def _lane_by_lane(step, bijection, x):
    each, shared = eqx.partition(bijection, lambda leaf: eqx.is_array(leaf) and leaf.shape[-1] != 1)
    shared = jax.tree.map(lambda leaf: leaf[..., 0] if eqx.is_array(leaf) else leaf, shared)
    return eqx.filter_vmap(partial(_one_lane, step, shared), in_axes=(eqx.if_array(-1), -1), out_axes=-1)(each, x)


def _one_lane(step, shared, each, x):
    return step(eqx.combine(each, shared), x)


def _with_flags(result, inside):
    y, log_det = result
    return y, LogDet(log_det, jnp.broadcast_to(inside, y.shape))


def _guard(domain: Support, x: Array) -> tuple[Array, Any]:
    # The densities themselves reject infinities, so that real-valued maps need no guard of their own.
    return (x, True) if isinstance(domain, Real) else domain.guard(x)


def _with_flag(result: tuple[Array, Any], inside: Any) -> tuple[Array, LogDet]:
    y, log_det = result
    if not isinstance(log_det, LogDet):
        log_det = LogDet(jnp.asarray(log_det, y.dtype), jnp.ones((), bool))
    return y, LogDet(log_det.value, log_det.valid & inside)


def _own(bijection: AbstractBijection, condition: Array | None) -> Array | None:
    return None if bijection.cond_shape is None else condition


def _condition_axis(bijection: AbstractBijection, condition: Array | None) -> int | None:
    if condition is None or bijection.cond_shape is None:
        return None
    return None if condition.ndim == len(bijection.cond_shape) else 0


def _validated(bijection, x, condition, shape, name):
    label = type(bijection).__name__
    x = real_array(x, name)
    if x.shape != shape:
        hint = " A bijection takes one event; use jax.vmap for a batch." if x.ndim > len(shape) else ""
        raise ValueError(f"{label} expected {name} of shape {shape}, got {x.shape}.{hint}")
    if bijection.cond_shape is None:
        return bijection, x, None
    if condition is None:
        raise ValueError(f"{label} expected a condition of shape {bijection.cond_shape}, got none. Pass condition=...")
    condition = real_array(condition, "condition", keep_integers=True)
    if condition.shape != bijection.cond_shape:
        raise ValueError(f"{label} expected a condition of shape {bijection.cond_shape}, got {condition.shape}.")
    check_condition(bijection, condition)
    return bijection, x, condition


@broadcasting
@eqx.filter_jit
def _call(bijection, x, condition, *, inverse, log_det) -> Any:
    dtype = float_dtype(bijection, x)
    # Half precision loses log-dets: compute in float32 and round the event only.
    compute = promoted(dtype, jnp.float32)
    bijection, x, condition = cast_floats((bijection, x, condition), compute)
    given = peel(bijection).codomain if inverse else peel(bijection).domain
    x = given.in_range(x) if given.has_circles else x
    y, change = (backward if inverse else forward)(bijection, x, condition)
    y = jnp.where(change.valid, y, jnp.nan).astype(dtype)
    return (y, jnp.where(change.valid, change.value, jnp.nan)) if log_det else y


def check_shapes_match(shapes: list[tuple[int, ...]], where: str) -> None:
    """Raise unless all shapes are the same."""
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"{where} expected parts of one shape, got {shapes[0]} and, at index {i}, {shape}.")


def merge_cond_shapes(shapes: list[tuple[int, ...] | None], where: str) -> tuple[int, ...] | None:
    """The one condition shape of the conditional parts, or None when there are none."""
    conditional = [shape for shape in shapes if shape is not None]
    for shape in conditional:
        if shape != conditional[0]:
            raise ValueError(f"{where} expected one condition shape for all parts, got {conditional[0]} and {shape}.")
    return conditional[0] if conditional else None


def check_is_bijection(value: Any, where: str) -> None:
    """Raise a TypeError unless `value` is a bijection (or one in a paramax wrapper)."""
    if not isinstance(peel(value), AbstractBijection):
        raise TypeError(f"{where} expected a bijection, got {kind_of(value)}.")


def checked_parts(bijections: Any, where: str) -> tuple[Any, ...]:
    """The bijections of a sequence, one at least, as a tuple.

    Raises:
        TypeError: if it is no sequence, or one of them no bijection.
        ValueError: if there is none.
    """
    parts = in_sequence(bijections, AbstractBijection, "bijection", where)
    if not parts:
        raise ValueError(f"{where} expected at least one bijection, got none.")
    for part in parts:
        check_is_bijection(part, where)
    return parts
