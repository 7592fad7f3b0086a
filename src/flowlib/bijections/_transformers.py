"""Bijections whose trainable arrays come from a flat vector, as a conditioner makes it."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jaxtyping import Array, Float
from paramax import AbstractUnwrappable

from flowlib._module import Module, peel
from flowlib._wanted import kind_of
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_lanes,
    check_is_bijection,
    forward,
    forward_lanes,
)
from flowlib.parameters import Own, partition_trainable

Arrays = tuple[Array, ...]


class Template(Module):
    """A bijection with a gap for each of its arrays, and what fills them.

    A conditioner makes the trainable arrays, of which only the values that they had are kept. Those in an `Own` stay
    and are trained, one for each coordinate that the template serves; frozen ones stay as they are. The gaps are in
    static data, so that nothing that maps over the tree of a flow meets a bijection without its arrays.
    """

    skeleton: AbstractBijection = eqx.field(static=True)
    # Of each gap: whether a conditioner fills it.
    is_trainable: tuple[bool, ...] = eqx.field(static=True)
    init: AbstractUnwrappable[Array] | Array
    frozen: tuple[AbstractUnwrappable[Array] | Array, ...]
    # The own arrays, with a leading axis of coordinates, and the numbers of their gaps.
    own: tuple[AbstractUnwrappable[Array] | Array, ...] = ()
    own_gaps: tuple[int, ...] = eqx.field(static=True, default=())

    def __init__(self, bijection: AbstractBijection, n: int = 1):
        arrays, rest = eqx.partition(bijection, eqx.is_array)
        leaves = jax.tree.leaves(arrays)
        trained = {id(leaf) for leaf in jax.tree.leaves(partition_trainable(bijection)[0])}
        in_own = _in_own(bijection)
        self.is_trainable = tuple(id(leaf) in trained and not own for leaf, own in zip(leaves, in_own, strict=True))
        self.own_gaps = tuple(i for i, leaf in enumerate(leaves) if id(leaf) in trained and in_own[i])
        self.skeleton = eqx.combine(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays), rest)
        flat = [leaf.reshape(-1) for leaf, yes in zip(leaves, self.is_trainable, strict=True) if yes]
        self.init = paramax.NonTrainable(jnp.concatenate(flat) if flat else jnp.zeros(0))
        self.own = tuple(jnp.broadcast_to(leaves[i], (n, *leaves[i].shape)) for i in self.own_gaps)
        stay = [i for i, made in enumerate(self.is_trainable) if not made and i not in self.own_gaps]
        self.frozen = tuple(paramax.NonTrainable(leaves[i]) for i in stay)

    @property
    def size(self) -> int:
        """The number of trainable scalars."""
        return paramax.unwrap(self.init).shape[-1]

    def build(self, params: Float[Array, "size *lanes"], own: Arrays) -> AbstractBijection:
        """The bijection of one coordinate, its gaps filled from `params`, `own` and the frozen arrays.

        Arrays made of `params` get the lanes as last axes, all others axes of size 1.
        """
        start = 0
        frozen, owned = iter(paramax.unwrap(self.frozen)), iter(own)
        gaps = iter(enumerate(self.is_trainable))

        def fill(leaf):
            nonlocal start
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return leaf
            gap, made = next(gaps)
            if not made:
                array = next(owned if gap in self.own_gaps else frozen)
                return array.reshape(*array.shape, *[1] * (params.ndim - 1))
            n = math.prod(leaf.shape)
            start += n
            return params[start - n : start].reshape(*leaf.shape, *params.shape[1:])

        return jax.tree.map(fill, self.skeleton)


class Transformers(Module):
    """The bijections that a coupling or autoregressive layer applies to each of `dim` coordinates.

    Given one bijection of shape (), all coordinates use it, each with its own parameters. Given
    several, one for each coordinate, those with equal structure run together. Given one of
    shape (dim,), it takes all coordinates at once (`joint`).

    A conditioner's output is an offset from `initial`, the parameters that the given bijections had.
    Parameter `j` belongs to coordinate `owners[j]`.
    """

    templates: tuple[Template, ...]
    # The coordinates of each template; () where one joint template has them all.
    members: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def __init__(self, transformer: AbstractBijection | Sequence[AbstractBijection], dim: int, where: str):
        if isinstance(transformer, AbstractBijection | paramax.AbstractUnwrappable):
            _check(transformer, {(), (dim,)}, where)
            joint = peel(transformer).shape != ()
            self.templates = (Template(transformer, 1 if joint else dim),)
            self.members = ((),) if joint else (tuple(range(dim)),)
        else:
            if isinstance(transformer, type) or not isinstance(transformer, Iterable):
                raise TypeError(
                    f"{where} expected a bijection as transformer, or a sequence, got {kind_of(transformer)}."
                )
            transformer = tuple(transformer)
            if len(transformer) != dim:
                raise ValueError(f"{where} expected {dim} transformers, one a coordinate, got {len(transformer)}.")
            for one in transformer:
                _check(one, {()}, where)
            templates = [Template(one) for one in transformer]
            groups: dict[Any, list[int]] = {}
            for i, template in enumerate(templates):
                groups.setdefault(_structure(template), []).append(i)
            self.members = tuple(tuple(group) for group in groups.values())
            self.templates = tuple(_stacked([templates[i] for i in group]) for group in self.members)
        self.dim = dim

    @property
    def joint(self) -> bool:
        """Whether one bijection takes all coordinates at once."""
        return self.members == ((),)

    @property
    def size(self) -> int:
        """The number of parameters of all coordinates together."""
        return sum(t.size * max(len(m), 1) for t, m in zip(self.templates, self.members, strict=True))

    @property
    def owners(self) -> np.ndarray:
        """The coordinate to which each parameter belongs."""
        parts = [np.repeat(m, t.size) for t, m in zip(self.templates, self.members, strict=True)]
        return np.concatenate(parts).astype(int)

    @property
    def alike(self) -> bool:
        """Whether all coordinates have a transformer of one structure, so that they can take turns."""
        return not self.joint and len(self.templates) == 1

    @property
    def own(self) -> Arrays:
        """The own arrays of the coordinates where they are `alike`, with a leading axis of coordinates."""
        return paramax.unwrap(self.templates[0].own)

    @property
    def initial(self) -> Float[Array, " size"]:
        """The parameters that the given bijections had."""
        parts = []
        for template, members in zip(self.templates, self.members, strict=True):
            parts.append(jnp.broadcast_to(_plain(template.init), (max(len(members), 1), template.size)).reshape(-1))
        return jnp.concatenate(parts)

    def apply(self, params: Float[Array, " size"], x: Float[Array, " dim"], *, inverse: bool) -> tuple[Array, LogDet]:
        """Transform every coordinate, or invert, with these parameters."""
        step = backward if inverse else forward
        if self.joint:
            (template,) = self.templates
            return step(template.build(params, _first(template.own)), x)
        y, log_det = self._apply_each(partial(_apply_one, step), params, x)
        return y, log_det.sum()

    def apply_columns(
        self, params: Float[Array, "size n"], x: Float[Array, "dim n"], *, inverse: bool
    ) -> tuple[Float[Array, "dim n"], LogDet]:
        """`apply` to each column."""
        if self.joint:
            return jax.vmap(partial(self.apply, inverse=inverse), -1, (-1, 0))(params, x)
        step = backward_lanes if inverse else forward_lanes
        y, log_det = self._apply_each(partial(_apply_one, step), params, x)
        return y, LogDet(log_det.value.sum(0), log_det.valid.all(0))

    def invert_one(
        self, params: Float[Array, "parameters n"], own: Arrays, y: Float[Array, " n"]
    ) -> tuple[Array, LogDet]:
        """Invert the transformer of one coordinate with these parameters and own arrays, where they are `alike`."""
        return backward_lanes(self.templates[0].build(params, own), y)

    def _apply_each(self, apply_one, params, x):
        start, outputs, log_dets = 0, [], []
        for template, members in zip(self.templates, self.members, strict=True):
            n = len(members)
            each = params[start : start + n * template.size].reshape(n, template.size, *x.shape[1:])
            start += n * template.size
            part = x if n == self.dim else x[np.asarray(members)]
            y, log_det = jax.vmap(partial(apply_one, template))(each, paramax.unwrap(template.own), part)
            outputs.append(y)
            log_dets.append(log_det)
        if len(outputs) == 1:
            return outputs[0], log_dets[0]
        back = np.argsort([i for members in self.members for i in members])
        return jnp.concatenate(outputs)[back], jax.tree.map(lambda *parts: jnp.concatenate(parts), *log_dets)


def _apply_one(step, template, params, own, x):
    return step(template.build(params, own), x)


def _first(own):
    return tuple(array[0] for array in paramax.unwrap(own))


def _in_own(tree) -> list[bool]:
    """For each array in order, whether it stands in an `Own`."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Own))
    return [isinstance(node, Own) for node in nodes for leaf in jax.tree.leaves(node) if eqx.is_array(leaf)]


def _plain(init):
    return paramax.unwrap(init)


def _check(transformer, shapes, where):
    check_is_bijection(transformer, where)
    inner = peel(transformer)
    if inner.shape not in shapes or inner.out_shape != inner.shape or inner.cond_shape is not None:
        wanted = " or ".join(str(shape) for shape in sorted(shapes))
        raise ValueError(
            f"{where} expected an unconditional transformer of shape {wanted}, "
            f"got shape {inner.shape} and cond_shape {inner.cond_shape}."
        )


def _structure(template: Template) -> Any:
    # Frozen values are part of the structure: those who share a template share them.
    if template.frozen:
        return id(template)
    return jax.tree.structure(template), template.size


def _stacked(templates: list[Template]) -> Template:
    """One template whose initial values and own arrays have a row for each of the given ones."""
    init = paramax.NonTrainable(jnp.stack([_plain(template.init) for template in templates]))
    own = tuple(jnp.concatenate(arrays) for arrays in zip(*(template.own for template in templates), strict=True))
    return eqx.tree_at(lambda template: (template.init, template.own), templates[0], (init, own))
