"""Bijections whose trainable arrays come from a flat vector, as a conditioner makes it."""

import math
from collections.abc import Sequence
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
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    backward,
    backward_lanes,
    check_is_bijection,
    forward,
    forward_lanes,
)
from flowlib.parameters import partition_trainable


class Template(Module):
    """A bijection with a gap for each of its arrays, the values of the trainable ones, and the frozen ones.

    Frozen arrays stay where they are: no conditioner makes them. The gaps are in static data, so
    that nothing that maps over the tree of a flow meets a bijection without its arrays.
    """

    skeleton: AbstractBijection = eqx.field(static=True)
    is_trainable: tuple[bool, ...] = eqx.field(static=True)
    init: AbstractUnwrappable[Array] | Array
    frozen: tuple[AbstractUnwrappable[Array] | Array, ...]

    def __init__(self, bijection: AbstractBijection):
        arrays, rest = eqx.partition(bijection, eqx.is_array)
        leaves = jax.tree.leaves(arrays)
        trained = {id(leaf) for leaf in jax.tree.leaves(partition_trainable(bijection)[0])}
        self.is_trainable = tuple(id(leaf) in trained for leaf in leaves)
        self.skeleton = eqx.combine(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays), rest)
        flat = [leaf.reshape(-1) for leaf, yes in zip(leaves, self.is_trainable, strict=True) if yes]
        self.init = paramax.NonTrainable(jnp.concatenate(flat) if flat else jnp.zeros(0))
        self.frozen = tuple(
            paramax.NonTrainable(leaf) for leaf, yes in zip(leaves, self.is_trainable, strict=True) if not yes
        )

    @property
    def size(self) -> int:
        """The number of trainable scalars."""
        return paramax.unwrap(self.init).shape[-1]

    def build(self, params: Float[Array, "size *lanes"]) -> AbstractBijection:
        """The bijection with its gaps filled from `params`; trained arrays get the lanes as last axes."""
        start = 0
        frozen = iter(paramax.unwrap(self.frozen))
        is_trainable = iter(self.is_trainable)

        def fill(leaf):
            nonlocal start
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return leaf
            if not next(is_trainable):
                return next(frozen)
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
            self.templates = (Template(transformer),)
            self.members = ((),) if joint else (tuple(range(dim)),)
        else:
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
        return not self.joint and len(self.templates) == 1 and not self.templates[0].frozen

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
            return step(template.build(params), x)
        y, log_det = self._apply_each(partial(_apply_one, step), params, x)
        return y, log_det.sum()

    def apply_columns(
        self, params: Float[Array, "size n"], x: Float[Array, "dim n"], *, inverse: bool
    ) -> tuple[Float[Array, "dim n"], LogDet]:
        """`apply` to each column."""
        if self.joint or any(template.frozen for template in self.templates):
            return jax.vmap(partial(self.apply, inverse=inverse), -1, (-1, 0))(params, x)
        step = backward_lanes if inverse else forward_lanes
        y, log_det = self._apply_each(partial(_apply_one, step), params, x)
        return y, LogDet(log_det.value.sum(0), log_det.valid.all(0))

    def invert_one(self, params: Float[Array, "parameters n"], y: Float[Array, " n"]) -> tuple[Array, LogDet]:
        """Invert the transformer of one coordinate with these parameters, where they are `alike`."""
        return backward_lanes(self.templates[0].build(params), y)

    def _apply_each(self, apply_one, params, x):
        start, outputs, log_dets = 0, [], []
        for template, members in zip(self.templates, self.members, strict=True):
            n = len(members)
            own = params[start : start + n * template.size].reshape(n, template.size, *x.shape[1:])
            start += n * template.size
            part = x if n == self.dim else x[np.asarray(members)]
            y, log_det = jax.vmap(partial(apply_one, template))(own, part)
            outputs.append(y)
            log_dets.append(log_det)
        if len(outputs) == 1:
            return outputs[0], log_dets[0]
        back = np.argsort([i for members in self.members for i in members])
        return jnp.concatenate(outputs)[back], jax.tree.map(lambda *parts: jnp.concatenate(parts), *log_dets)


def _apply_one(step, template, params, x):
    return step(template.build(params), x)


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
    """One template whose initial values have a row for each of the given ones."""
    init = paramax.NonTrainable(jnp.stack([_plain(template.init) for template in templates]))
    return eqx.tree_at(lambda template: template.init, templates[0], init)
