"""The state of a fit, and the single step that takes it further."""

from collections.abc import Callable
from enum import IntEnum
from functools import partial, reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from flowlib._arrays import default_float
from flowlib.parameters import partition_trainable
from flowlib.train._optimizer import init_optimizer, updated


class Status(IntEnum):
    """Why a fit goes on, or why it stopped."""

    RUNNING = 0
    OUT_OF_PATIENCE = 1
    BAD_LOSS = 2
    BAD_UPDATE = 3
    BAD_VALIDATION = 4


# What ends a fit with a warning.
FAILURES = (Status.BAD_LOSS, Status.BAD_UPDATE, Status.BAD_VALIDATION)


class TrainState(eqx.Module):
    """All that changes during a fit; every leaf is an array.

    Randomness is a function of `key` and the counters, so that the state says everything about what comes next.
    """

    # The trainable half of the tree, now and where the loss was lowest (None if that is not followed).
    params: Any
    best_params: Any
    opt_state: Any
    key: PRNGKeyArray
    # Updates made, and epochs begun.
    step: Int[Array, ""]
    epoch: Int[Array, ""]
    # The lowest loss of an epoch, and the epochs since.
    best_loss: Float[Array, ""]
    fruitless: Int[Array, ""]
    # A `Status`.
    status: Int[Array, ""]

    @property
    def running(self) -> Bool[Array, ""]:
        return self.status == Status.RUNNING


def trainable_half(tree: Any) -> tuple[Any, Any]:
    """The trainable leaves of a tree, and the rest.

    Raises:
        ValueError: if nothing is trainable.
    """
    params, static = partition_trainable(tree)
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(tree).__name__} has no trainable parameters: all are frozen, or there are none.")
    return params, static


def initial_state(
    key: PRNGKeyArray, params: Any, optimizer: optax.GradientTransformation | None, *, follow_best: bool
) -> TrainState:
    """The state before the first step; run it compiled.

    Every leaf is a buffer of its own, because a fit donates its state: neither the caller's arrays
    nor one buffer twice may be among them.
    """
    # Two types for one parameter, weak and strong, would compile twice.
    params = _copied(params)
    return TrainState(
        params=params,
        best_params=_copied(params) if follow_best else None,
        opt_state=_copied(init_optimizer(optimizer, params)),
        key=jnp.copy(key),
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        best_loss=jnp.full((), jnp.inf, default_float()),
        fruitless=jnp.zeros((), jnp.int32),
        status=jnp.full((), Status.RUNNING, jnp.int32),
    )


def advance(
    state: TrainState, loss_fn: Callable[[Any], Array], optimizer: optax.GradientTransformation | None, rate: Any
) -> tuple[TrainState, Float[Array, ""]]:
    """One update, and the loss before it, where the fit is running; else the same parameters and counters.

    A non-finite loss or parameter stops the fit: the update is not made, and the status says why. The state of
    the optimiser is of no use then, and spared the cost of a choice at every step.
    """

    def scalar_loss(params):
        loss = jnp.asarray(loss_fn(params))
        if loss.shape != ():
            raise ValueError(f"loss_fn expected to return a scalar, got shape {loss.shape}.")
        return loss

    loss, grads = jax.value_and_grad(scalar_loss)(state.params)
    params, opt_state = updated(
        state.params, grads, state.opt_state, optimizer, rate, step=state.step, loss=loss, loss_fn=scalar_loss
    )
    loss = loss.astype(default_float())
    found = jnp.where(_all_finite(params), Status.RUNNING, Status.BAD_UPDATE)
    found = jnp.where(jnp.isfinite(loss), found, Status.BAD_LOSS)
    status = jnp.where(state.running, found, state.status).astype(jnp.int32)
    accepted = status == Status.RUNNING

    state = TrainState(
        params=jax.tree.map(partial(jnp.where, accepted), params, state.params),
        best_params=state.best_params,
        opt_state=opt_state,
        key=state.key,
        step=state.step + accepted.astype(jnp.int32),
        epoch=state.epoch,
        best_loss=state.best_loss,
        fruitless=state.fruitless,
        status=status,
    )
    return state, loss


def epoch_key(state: TrainState) -> PRNGKeyArray:
    """The key of the epoch that is about to run."""
    return jr.fold_in(state.key, state.epoch + 1)


def validation_key(state: TrainState) -> PRNGKeyArray:
    """The key of every validation pass: the same one, so that losses of different epochs compare."""
    return jr.fold_in(state.key, 0)


def _all_finite(tree: Any) -> Bool[Array, ""]:
    # Zero times infinity is NaN: one reduction a leaf, where a vector of flags would be written out first.
    return reduce(jnp.logical_and, [jnp.isfinite((leaf * 0).sum()) for leaf in jax.tree.leaves(tree)])


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), tree)
