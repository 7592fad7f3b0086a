"""A bijection of standardised values, in the units of the data."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import cast_floats, check_positive, check_values, float_dtype, is_concrete, promoted, real_array
from flowlib._box import as_box
from flowlib._module import check_condition, peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_batch,
    check_is_bijection,
    forward,
    forward_batch,
)
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._to_support import ToSupport
from flowlib.constraints import Parameter
from flowlib.parameters import freeze
from flowlib.support import Box, Real, Support, fits, image


class InDataUnits(AbstractBijection):
    """y = g(location + scale f(x; (condition - cond_location) / cond_scale)), with g = to_data or the identity.

    f works on standardised values, the whole in the units of the data. Every premade flow is built with one, at
    location 0 and scale 1, and `fit_to_data` fills it in. Costs are those of f and g. Locations and scales are frozen
    (see `flowlib.parameters.freeze`) and come first among the leaves; scales are kept as logarithms.

    Args:
        bijection: f, conditional or not.
        location: broadcast to the shape of what f gives. Defaults to 0.
        scale: positive, likewise. Defaults to 1.
        cond_location: broadcast to the shape of a condition. With neither this nor `cond_scale`, f sees the
            condition as it is (integer labels, say).
        cond_scale: positive, likewise. Defaults to 1 where `cond_location` is given.
        to_data: g, a bijection of such events from the reals onto where the data live; `ToSupport` is made for it.
        columns: for vectors, a boolean for each coordinate that f gives: those with False, angles say, have location 0
            and scale 1 whatever is given; or one boolean for all. Defaults to True.
        labels: whether integers and booleans among the conditions are labels, which f gets as they are. Else they are
            standardised like other numbers.

    Raises:
        ValueError: if a scale is not positive, shapes or supports do not fit, g is conditional, or the
            condition's location or scale is given for an unconditional f.
        TypeError: if f or g is not a bijection.
    """

    # First among the leaves: arrays that were written without units fit into no flow that has them.
    location: Parameter
    log_scale: Parameter
    cond_location: Parameter
    cond_log_scale: Parameter
    to_data: AbstractBijection | None
    bijection: AbstractBijection
    # None, as in files of flowlib's first versions, is True.
    columns: tuple[bool, ...] | bool | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    labels: bool = eqx.field(static=True, default=False)

    def __init__(
        self,
        bijection: AbstractBijection,
        location: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        *,
        cond_location: ArrayLike | None = None,
        cond_scale: ArrayLike | None = None,
        to_data: AbstractBijection | None = None,
        columns: Sequence[bool] | np.ndarray | bool = True,
        labels: bool = False,
    ):
        check_is_bijection(bijection, "InDataUnits")
        inner = peel(bijection)
        if not fits(inner.codomain, Real()):
            raise ValueError(f"InDataUnits expected a bijection onto real numbers, got {inner.codomain.kind} output.")
        self.bijection = bijection
        self.shape = inner.shape
        self.cond_shape = inner.cond_shape
        self.location = _frozen(location, inner.out_shape, "location")
        self.log_scale = _frozen_log(scale, inner.out_shape, "scale")
        self.cond_location = self.cond_log_scale = None
        if cond_location is not None or cond_scale is not None:
            if inner.cond_shape is None:
                raise ValueError("InDataUnits expected no cond_location or cond_scale for an unconditional bijection.")
            self.cond_location = _frozen(
                0.0 if cond_location is None else cond_location, inner.cond_shape, "cond_location"
            )
            self.cond_log_scale = _frozen_log(1.0 if cond_scale is None else cond_scale, inner.cond_shape, "cond_scale")
        if to_data is not None:
            _check_to_data(to_data, inner.out_shape)
        self.to_data = to_data
        if np.shape(columns) not in ((), inner.out_shape):
            raise ValueError(f"InDataUnits expected columns of shape {inner.out_shape}, got {np.shape(columns)}.")
        self.columns = tuple(map(bool, np.asarray(columns))) if np.ndim(columns) else bool(columns)
        self.labels = bool(labels)

    @classmethod
    def unset(
        cls,
        bijection: AbstractBijection,
        *,
        to_data: AbstractBijection | None = None,
        columns: Sequence[bool] | np.ndarray | bool = True,
        dtype: Any = None,
    ) -> "InDataUnits":
        """A bijection in units that a first fit sets, those of its conditions too.

        Args:
            bijection: f.
            to_data: g.
            columns: the coordinates that have units, as above.
            dtype: of the units. Defaults to that of the bijection, but no half precision, which would round the data.
        """
        conditional = peel(bijection).cond_shape is not None
        dtype = promoted(float_dtype(bijection) if dtype is None else dtype, jnp.float32)
        zero, one = np.zeros((), dtype), np.ones((), dtype)
        return cls(
            bijection,
            zero,
            one,
            cond_location=zero if conditional else None,
            cond_scale=one if conditional else None,
            to_data=cast_floats(to_data, dtype),
            columns=columns,
            labels=conditional and _embeds(bijection),
        )

    @property
    def is_unset(self) -> bool:
        """Whether locations are 0 and scales 1, as they are built; of values that are not known, yes."""
        return _are_zero(self.location, self.log_scale)

    @property
    def is_condition_unset(self) -> bool:
        """`is_unset` of the units of conditions; True where there are none."""
        return self.cond_location is None or _are_zero(self.cond_location, self.cond_log_scale)

    @property
    def box(self) -> Box | None:
        """The support by columns; None where `to_data` is no `ToSupport`."""
        to_data = peel(self.to_data)
        if to_data is None:
            return as_box("real", self.out_shape)
        return to_data.box if isinstance(to_data, ToSupport) else None

    @property
    def out_shape(self) -> tuple[int, ...]:
        return peel(self.bijection).out_shape if self.to_data is None else peel(self.to_data).out_shape

    @property
    def domain(self) -> Support:
        return peel(self.bijection).domain

    @property
    def codomain(self) -> Support:
        # An interval, say, is another one after the affine map.
        reached = image(peel(self.bijection).codomain, Real(), Real())
        if self.to_data is None:
            return reached
        return image(reached, peel(self.to_data).domain, peel(self.to_data).codomain)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        z, log_det = forward(self.bijection, x, self._standardise_condition(condition))
        y, more = self._to_units(z)
        return y, log_det + more

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        z, log_det = self._from_units(y)
        x, more = backward(self.bijection, z, self._standardise_condition(condition))
        return x, log_det + more

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        z, log_det = forward_batch(self.bijection, x, self._standardise_condition(condition))
        y, more = self._to_units(z, batched=True)
        return y, log_det + more

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        z, log_det = self._from_units(y, batched=True)
        x, more = backward_batch(self.bijection, z, self._standardise_condition(condition))
        return x, log_det + more

    def _check_condition(self, condition: ArrayLike) -> None:
        parts = [peel(self.cond_location), peel(self.cond_log_scale)]
        floats = jnp.issubdtype(jnp.result_type(condition), jnp.floating)
        if self.cond_location is not None and (floats or not self.labels):
            if not all(map(is_concrete, parts)):
                return
            # In NumPy, which compiles nothing.
            location, log_scale = map(np.asarray, parts)
            condition = (np.asarray(condition) - location) / np.exp(log_scale)
        check_condition(self.bijection, condition)

    # The parts around f, for one event or for a batch, of which `rebuild_drift` follows f itself.

    def _to_units(self, z: Array, *, batched: bool = False) -> tuple[Array, LogDet]:
        location, log_scale = self._affine
        y = location + jnp.exp(log_scale) * z
        log_det = LogDet.zero(z, z.shape[:1] if batched else ())
        log_det = LogDet(log_det.value + log_scale.sum(), log_det.valid)
        if self.to_data is None:
            return y, log_det
        y, more = (forward_batch if batched else forward)(self.to_data, y)
        return y, log_det + more

    def _from_units(self, y: Array, *, batched: bool = False) -> tuple[Array, LogDet]:
        log_det = LogDet.zero(y, y.shape[:1] if batched else ())
        if self.to_data is not None:
            y, log_det = (backward_batch if batched else backward)(self.to_data, y)
        # The difference first: it is exact where the data are far from 0 and close together.
        location, log_scale = self._affine
        z = (y - location) / jnp.exp(log_scale)
        return z, LogDet(log_det.value - log_scale.sum(), log_det.valid)

    @property
    def _affine(self) -> tuple[Array, Array]:
        """Location and logarithm of the scale, 0 where a column has none."""
        if self.columns is None or self.columns is True:
            return self.location, self.log_scale
        columns = np.broadcast_to(np.asarray(self.columns), self.location.shape)
        return jnp.where(columns, self.location, 0), jnp.where(columns, self.log_scale, 0)

    def _standardise_condition(self, condition: Array | None) -> Array | None:
        if condition is None or self.cond_location is None:
            return condition
        if self.labels and not jnp.issubdtype(condition.dtype, jnp.floating):
            return condition
        condition = condition.astype(self.cond_location.dtype)
        return (condition - self.cond_location) / jnp.exp(self.cond_log_scale)


def _are_zero(*parts: Parameter) -> bool:
    """Whether arrays, perhaps frozen, are all 0; of values that are not known, yes."""
    arrays = [peel(part) for part in parts]
    return not any(is_concrete(array) and np.asarray(array).any() for array in arrays)


def _embeds(bijection: AbstractBijection) -> bool:
    def is_embedding(node):
        return isinstance(node, EmbedCondition)

    return any(map(is_embedding, jax.tree.leaves(bijection, is_leaf=is_embedding)))


def _frozen(value: ArrayLike, shape: tuple[int, ...], name: str) -> Parameter:
    value = real_array(value, name)
    check_values(value, name, np.isfinite, "finite")
    if value.ndim > len(shape) or any(n not in (1, m) for n, m in zip(value.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"InDataUnits expected {name} of a shape that broadcasts to {shape}, got {value.shape}.")
    # NumPy for concrete values: eager JAX would compile a program for each shape.
    if is_concrete(value):
        return freeze(jnp.asarray(np.broadcast_to(np.asarray(value), shape)))
    return freeze(jnp.broadcast_to(value, shape))


def _frozen_log(value: ArrayLike, shape: tuple[int, ...], name: str) -> Parameter:
    value = real_array(value, name)
    check_positive(value, name)
    return _frozen(np.log(np.asarray(value)) if is_concrete(value) else jnp.log(value), shape, name)


def _check_to_data(to_data: AbstractBijection, shape: tuple[int, ...]) -> None:
    check_is_bijection(to_data, "InDataUnits")
    part = peel(to_data)
    if part.shape != shape or part.cond_shape is not None:
        raise ValueError(
            f"InDataUnits expected an unconditional to_data of shape {shape}, "
            f"got shape {part.shape} and cond_shape {part.cond_shape}."
        )
    if not fits(Real(), part.domain):
        raise ValueError(f"InDataUnits expected to_data that takes real numbers, got {part.domain.kind} input.")
