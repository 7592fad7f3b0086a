"""The default optimiser, the user's optimiser, and one step by hand."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from flowlib._arrays import default_float, is_concrete, real_array
from flowlib.nn import MaskedLinear


@functools.cache
def _adam() -> optax.GradientTransformation:
    # One object for every fit, without the learning rate: compiled code is found again by its identity.
    return optax.scale_by_adam()


def init_optimizer(optimizer: optax.GradientTransformation | None, params: Any) -> Any:
    """The optimiser's first state; None stands for Adam."""
    with jax.numpy_dtype_promotion("standard"):
        return (_adam() if optimizer is None else optimizer).init(params)


def updated(
    params: Any,
    grads: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation | None,
    rate: Any,
    *,
    step: Array,
    loss: Array,
    loss_fn: Callable[[Any], Array],
) -> tuple[Any, Any]:
    """Parameters and optimiser state after one update.

    Args:
        params: the parameters.
        grads: their gradients.
        opt_state: the state of the optimiser.
        optimizer: any optax optimiser; None is Adam with the learning rate `rate`.
        rate: the learning rate, or a schedule of it; only for Adam.
        step: the number of updates made so far.
        loss: the loss at `params`, and
        loss_fn: the loss as a function of the parameters, for optimisers that ask for them.
    """
    # optax does not keep to strict dtype promotion.
    with jax.numpy_dtype_promotion("standard"):
        if optimizer is None:
            updates, opt_state = _adam().update(grads, opt_state, params)
            rate = jnp.asarray(rate(step) if callable(rate) else rate)
            updates = jax.tree.map(lambda update: -rate.astype(update.dtype) * update, updates)
        else:
            optimizer = optax.with_extra_args_support(optimizer)
            updates, opt_state = optimizer.update(grads, opt_state, params, value=loss, grad=grads, value_fn=loss_fn)
        return optax.apply_updates(params, updates), opt_state


def check_optimizer(optimizer: Any, rate: Any) -> Any:
    """The learning rate as an array (a schedule stays a function), after checking both.

    Raises:
        TypeError: if `optimizer` is no optax optimiser, or `rate` is neither a number nor a function.
        ValueError: if `rate` is negative or not finite.
    """
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be an optax.GradientTransformation, got {type(optimizer).__name__}.")
    if callable(rate):
        return rate
    try:
        number = real_array(rate, "learning_rate")
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(rate, bool):
        raise TypeError(f"learning_rate must be a number or an optax schedule, got {rate!r}.")
    # As it is where that is its dtype: a cast would compile.
    number = number if number.dtype == default_float() else number.astype(default_float())
    if number.shape != () or (is_concrete(number) and not 0 <= float(number) < float("inf")):
        raise ValueError(f"learning_rate must be one finite number of at least 0, got {rate!r}.")
    return number


def decay_mask(params: Any) -> Any:
    """True for the weight matrices of networks, False for every other parameter: what weight decay is meant for.

    Decay draws a bias, a knot or a scale towards a value that means nothing. As the `mask` of an optax optimiser:

        optax.adamw(1e-3, weight_decay=1e-2, mask=decay_mask)

    Args:
        params: a distribution, or its trainable half.
    """

    def is_layer(node):
        return isinstance(node, eqx.nn.Linear | MaskedLinear) and node.weight is not None

    def mask(node):
        none = jax.tree.map(lambda _: False, node)
        return eqx.tree_at(lambda layer: layer.weight, none, True) if is_layer(node) else none

    return jax.tree.map(mask, params, is_leaf=is_layer)


@eqx.filter_jit
def step(
    params: Any,
    *args: Any,
    optimizer: optax.GradientTransformation,
    opt_state: Any,
    loss_fn: Callable[..., Array],
    **kwargs: Any,
) -> tuple[Any, Any, Array]:
    """One step of optimisation, compiled: the building block for a training loop of one's own.

    `loss_fn(params, *args, **kwargs)` is differentiated in the arrays of `params`. Compiled code is found
    again by the identity of `optimizer` and `loss_fn`, so build them once, outside the loop.

    Args:
        params: the trainable half of a tree, from `flowlib.parameters.partition_trainable`.
        *args: further arguments of the loss, usually the other half first, then data.
        optimizer: an optax optimiser.
        opt_state: its state, at first `optimizer.init(params)`.
        loss_fn: returns a scalar.
        **kwargs: further keyword arguments of the loss, usually a key.

    Returns:
        The new parameters, the new optimiser state, and the loss before the step.
    """

    def loss_of(params):
        return loss_fn(params, *args, **kwargs)

    loss, grads = eqx.filter_value_and_grad(loss_of)(params)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.with_extra_args_support(optimizer)
        updates, opt_state = optimizer.update(grads, opt_state, params, value=loss, grad=grads, value_fn=loss_of)
        return eqx.apply_updates(params, updates), opt_state, loss
