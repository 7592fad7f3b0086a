"""Bijections that bring in a condition: as a shift, or through an embedding."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from jaxtyping import Array, ArrayLike

from flowlib._arrays import as_shape, float_dtype
from flowlib._module import peel
from flowlib._wanted import check_function
from flowlib.bijections._bijection import (
    AbstractBijection,
    backward,
    backward_batch,
    check_is_bijection,
    forward,
    forward_batch,
)
from flowlib.support import Support


class AdditiveCondition(AbstractBijection):
    """y = x + module(condition); the log-det is 0. Each direction costs one call of the module.

    Args:
        module: a callable (an Equinox module, say) from one condition to an array that broadcasts to `shape`.
        shape: the shape of an event.
        cond_shape: the shape of one condition.
    """

    module: Callable[[Array], Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, module: Callable[[Array], Array], shape: tuple[int, ...], cond_shape: tuple[int, ...]):
        self.module = module
        self.shape = as_shape(shape)
        self.cond_shape = as_shape(cond_shape, "cond_shape")

    def _transform_and_log_det(self, x: Array, condition: Array):
        return x + self._shift(x, condition), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array):
        return y - self._shift(y, condition), 0.0

    def _check_condition(self, condition: ArrayLike) -> None:
        _check_by_net(self.module, condition)

    def _shift(self, x, condition):
        return jnp.broadcast_to(self.module(condition), self.shape).astype(x.dtype)


def _check_by_net(net: Any, condition: ArrayLike) -> None:
    """Let a network that sees the conditions first check them, if it can."""
    net = peel(net)
    while isinstance(net, eqx.nn.Sequential) and len(net) > 0:
        net = peel(net[0])
    check = getattr(net, "check_condition", None)
    if check is not None:
        check(condition)


class EmbedCondition(AbstractBijection):
    """A bijection that sees `embedding_net(condition)` in place of the condition.

    Each direction costs one of the bijection and one call of the network.

    Args:
        bijection: a conditional bijection.
        embedding_net: a callable from one raw condition to an array of shape `bijection.cond_shape`. Integer
            conditions (class labels) reach it as integers. If it has a method `check_condition`, this is called with
            conditions whose values are known, before anything is computed, and may raise (see `LabelEmbedding`); of
            an `equinox.nn.Sequential` its first layer counts.
        raw_cond_shape: the shape of one raw condition.

    Raises:
        ValueError: if the bijection is unconditional or the embedding has another shape.
        TypeError: if `bijection` is not a bijection, or `embedding_net` cannot be called.
    """

    bijection: AbstractBijection
    embedding_net: Callable[[Array], Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        bijection: AbstractBijection,
        embedding_net: Callable[[Array], Array],
        raw_cond_shape: tuple[int, ...],
    ):
        check_is_bijection(bijection, "EmbedCondition")
        if peel(bijection).cond_shape is None:
            raise ValueError("EmbedCondition expected a conditional bijection, got an unconditional one.")
        check_function(embedding_net, "embedding_net (embedding=)", "a module or function of one raw condition")
        self.bijection = bijection
        self.embedding_net = embedding_net
        self.shape = peel(bijection).shape
        self.cond_shape = as_shape(raw_cond_shape, "raw_cond_shape")
        _check_embedding(embedding_net, self.cond_shape, peel(bijection).cond_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return peel(self.bijection).out_shape

    @property
    def domain(self) -> Support:
        return peel(self.bijection).domain

    @property
    def codomain(self) -> Support:
        return peel(self.bijection).codomain

    def _transform_and_log_det(self, x: Array, condition: Array):
        return forward(self.bijection, x, self._embed(condition))

    def _inverse_and_log_det(self, y: Array, condition: Array):
        return backward(self.bijection, y, self._embed(condition))

    def _transform_and_log_det_batch(self, x: Array, condition: Array):
        return forward_batch(self.bijection, x, self._embed_batch(condition))

    def _inverse_and_log_det_batch(self, y: Array, condition: Array):
        return backward_batch(self.bijection, y, self._embed_batch(condition))

    def _check_condition(self, condition: ArrayLike) -> None:
        _check_by_net(self.embedding_net, condition)

    def _embed_batch(self, condition: Array) -> Any:
        return self._embed(condition) if condition.ndim == len(self.cond_shape) else jax.vmap(self._embed)(condition)

    def _embed(self, condition: Array) -> Array:
        embedded = self.embedding_net(condition)
        wanted = peel(self.bijection).cond_shape
        if jnp.shape(embedded) != wanted:
            raise ValueError(_other_shape(wanted, jnp.shape(embedded)))
        return embedded


def _check_embedding(net: Any, raw_shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise a ValueError if the network gives no vector of the size wanted, or cannot take a raw condition at all."""
    problem = None
    # Networks of labels and of pixels may take whole numbers only.
    for dtype in (float_dtype(net), jnp.int32, jnp.uint8, bool):
        try:
            got = eqx.filter_eval_shape(_unwrapped, net, jax.ShapeDtypeStruct(raw_shape, dtype))
        except Exception as error:
            problem = problem or error
            continue
        if jnp.shape(got) != wanted:
            raise ValueError(_other_shape(wanted, jnp.shape(got)))
        return
    raise ValueError(
        f"EmbedCondition: embedding_net (embedding=) does not take a condition of raw_cond_shape {raw_shape}: {problem}"
    ) from problem


def _unwrapped(net, raw):
    return paramax.unwrap(net)(raw)


def _other_shape(wanted, got):
    return (
        f"EmbedCondition expected embedding_net (embedding=) to give shape {wanted}, the condition of the bijection "
        f"(cond_dim), got {got}."
    )
