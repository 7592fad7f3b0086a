"""One bijection along a new leading axis of the event."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from flowlib._arrays import check_count
from flowlib._module import check_condition, peel, unwrap_own
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_lanes,
    check_is_bijection,
    forward,
    forward_lanes,
    takes_lanes,
)
from flowlib.support import Repeated, Support, is_elementwise


class Vmap(AbstractBijection):
    """y[i] = f_i(x[i]; condition), where the f_i share their code and, as chosen, their parameters.

    Costs and log-dets are the sums over i. With `eqx.filter_vmap(make, axis_size=n)()` and
    `in_axes=eqx.if_array(0)` each f_i has parameters of its own.

    Args:
        bijection: f, its arrays with an extra axis where `in_axes` says so.
        in_axes: a prefix of the tree of f with the mapped axis of each array or None, or a
            callable that gives it for a leaf. By default all arrays are shared.
        axis_size: the number of f_i; needed, and allowed, only if nothing is mapped.
        in_axes_condition: the axis of the condition to map over, or None to share it.

    Raises:
        ValueError: if neither or both of `in_axes` and `axis_size` are given, sizes differ, or an array or the
            condition has no such axis.
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection
    axes: tuple[int | None, ...] = eqx.field(static=True)
    axis_size: int = eqx.field(static=True)
    condition_axis: int | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        bijection: AbstractBijection,
        *,
        in_axes: PyTree[int | Callable[[Any], int | None] | None] = None,
        axis_size: int | None = None,
        in_axes_condition: int | None = None,
    ):
        check_is_bijection(bijection, "Vmap")
        self.bijection = bijection
        # The axes are kept as plain integers, one for each array: eqx.if_array makes a new closure at each call.
        self.axes = _axis_of_each_array(bijection, in_axes)
        self.axis_size = _size(bijection, self.axes, axis_size)
        self.condition_axis = in_axes_condition
        inner = peel(bijection)
        self.shape = (self.axis_size, *inner.shape)
        self.cond_shape = inner.cond_shape
        if inner.cond_shape is not None and in_axes_condition is not None:
            most = len(inner.cond_shape)
            if not -most - 1 <= in_axes_condition <= most:
                raise ValueError(
                    f"Vmap expected in_axes_condition from {-most - 1} to {most}, got {in_axes_condition}."
                )
            self.condition_axis = in_axes_condition % (len(inner.cond_shape) + 1)
            before, after = inner.cond_shape[: self.condition_axis], inner.cond_shape[self.condition_axis :]
            self.cond_shape = (*before, self.axis_size, *after)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.axis_size, *peel(self.bijection).out_shape)

    @property
    def domain(self) -> Support:
        domain = peel(self.bijection).domain
        return domain if is_elementwise(domain) else Repeated(domain)

    @property
    def codomain(self) -> Support:
        codomain = peel(self.bijection).codomain
        return codomain if is_elementwise(codomain) else Repeated(codomain)

    def _check_condition(self, condition: ArrayLike) -> None:
        if self.cond_shape is not None and self.condition_axis is not None:
            batch = np.ndim(condition) - len(self.cond_shape)
            condition = np.moveaxis(np.asarray(condition), batch + self.condition_axis, 0)
        check_condition(self.bijection, condition)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._map(forward, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._map(backward, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        if takes_lanes(self.bijection):
            return self._map_lanes(forward_lanes, x)
        return super()._transform_and_log_det_batch(x, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        if takes_lanes(self.bijection):
            return self._map_lanes(backward_lanes, y)
        return super()._inverse_and_log_det_batch(y, condition)

    def _map_lanes(self, step, x):
        """A batch with its rows as the lanes of each f_i."""
        y, log_det = self._map_each(partial(_apply_to_lanes, step), x.T, None)
        return y.T, LogDet(log_det.value.sum(0), log_det.valid.all(0))

    def _map(self, step, x, condition):
        y, log_det = self._map_each(step, x, condition)
        return y, log_det.sum()

    def _map_each(self, step, x, condition):
        arrays, rest = eqx.partition(self.bijection, eqx.is_array)
        leaves, treedef = jax.tree.flatten(arrays)
        step = partial(_apply, step, treedef, rest)
        in_axes = (list(self.axes), 0, None if condition is None else self.condition_axis)
        return jax.vmap(step, in_axes, axis_size=self.axis_size)(leaves, x, condition)


def _apply(step, treedef, rest, leaves, x, condition):
    return step(eqx.combine(jax.tree.unflatten(treedef, leaves), rest), x, condition)


def _apply_to_lanes(step, bijection, x, condition):
    bijection = unwrap_own(bijection)
    return step(jax.tree.map(lambda leaf: leaf[..., None] if eqx.is_array(leaf) else leaf, bijection), x)


def _axis_of_each_array(tree: PyTree, in_axes: PyTree) -> tuple[int | None, ...]:
    def is_choice(node):
        return node is None or (callable(node) and not isinstance(node, eqx.Module))

    def spread(axis: Any, subtree):
        def one(leaf):
            chosen: Any = axis(leaf) if callable(axis) else axis
            return _Axis(chosen) if eqx.is_array(leaf) else None

        return jax.tree.map(one, subtree)

    axes = jax.tree.map(spread, in_axes, tree, is_leaf=is_choice)
    return tuple(leaf.value for leaf in jax.tree.leaves(axes, is_leaf=lambda leaf: isinstance(leaf, _Axis)))


class _Axis:
    # None would vanish from the tree, so an axis travels in a box.
    def __init__(self, value: int | None):
        self.value = value


def _size(bijection: PyTree, axes: tuple[int | None, ...], axis_size: int | None) -> int:
    arrays = [leaf for leaf in jax.tree.leaves(bijection) if eqx.is_array(leaf)]
    mapped = [(leaf, axis) for leaf, axis in zip(arrays, axes, strict=True) if axis is not None]
    for leaf, axis in mapped:
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ValueError(f"Vmap expected arrays with an axis {axis} to map over, got one of shape {leaf.shape}.")
    sizes = {leaf.shape[axis] for leaf, axis in mapped}
    if axis_size is not None:
        if sizes:
            raise ValueError("Vmap expected either in_axes or axis_size, got both.")
        return check_count(axis_size, "axis_size")
    if len(sizes) != 1:
        raise ValueError(f"Vmap expected in_axes that map arrays of one size, or axis_size; got sizes {sorted(sizes)}.")
    return sizes.pop()
