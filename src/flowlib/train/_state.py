"""The state of a fit, and the single step that takes it further."""

from collections.abc import Callable
from dataclasses import replace
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
    OUT_OF_STEPS = 5


# What ends a fit with a warning.
FAILURES = (Status.BAD_LOSS, Status.BAD_UPDATE, Status.BAD_VALIDATION)


class Limits(eqx.Module):
    """Where a fit ends. All are arrays: other limits compile nothing."""

    # The epochs, and the steps, that may pass without an improvement of more than `min_improvement`.
    patience: Int[Array, ""]
    patience_steps: Int[Array, ""]
    min_improvement: Float[Array, ""]
    # The most updates, and the most steps that may be skipped because they are not finite.
    steps: Int[Array, ""]
    skips: Int[Array, ""]


class TrainState(eqx.Module):
    """All that changes during a fit; every leaf is an array.

    Randomness is a function of `key` and the counters, so that the state says everything about what comes next.
    """

    # The trainable half of the tree, now and where the loss was lowest (None if that is not followed).
    params: Any
    best_params: Any
    opt_state: Any
    key: PRNGKeyArray
    # The mean of the parameters over the last steps (None if that is not followed).
    averaged: Any
    # Updates made, steps skipped, and epochs begun.
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    epoch: Int[Array, ""]
    # The lowest loss of an epoch, and that epoch.
    best_loss: Float[Array, ""]
    best_epoch: Int[Array, ""]
    # The loss that the next one must improve on; the epochs, and the step, since it did.
    to_beat: Float[Array, ""]
    fruitless: Int[Array, ""]
    improved_at: Int[Array, ""]
    # In a fit without epochs, the mean of the losses over the last steps.
    smoothed: Float[Array, ""]
    # A `Status`.
    status: Int[Array, ""]

    @property
    def running(self) -> Bool[Array, ""]:
        return self.status == Status.RUNNING

    @property
    def judged(self) -> Any:
        """The parameters that validation judges and that are returned: the averaged ones, where there are."""
        return self.params if self.averaged is None else self.averaged


def trainable_half(tree: Any) -> tuple[Any, Any]:
    """The trainable leaves of a tree, and the rest.

    Raises:
        ValueError: if nothing is trainable.
    """
    params, static = partition_trainable(tree)
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(tree).__name__} has no trainable parameters: all are frozen, or there are none.")
    return params, static


def combined(static: Any, params: Any) -> Any:
    """The tree of which these are the halves."""
    return eqx.combine(params, static)


def initial_state(
    key: PRNGKeyArray,
    params: Any,
    optimizer: optax.GradientTransformation | None,
    *,
    follow_best: bool,
    averages: bool = False,
) -> TrainState:
    """The state before the first step; run it compiled.

    Every leaf is a buffer of its own, because a fit donates its state: neither the caller's arrays
    nor one buffer twice may be among them.
    """
    # Two types for one parameter, weak and strong, would compile twice.
    params = _copied(params)

    def count(value=0):
        # An enum would be of a weak type in newer versions of JAX, and that compiles the loop twice.
        return jnp.full((), int(value), jnp.int32)

    return TrainState(
        params=params,
        best_params=_copied(params) if follow_best else None,
        opt_state=_copied(init_optimizer(optimizer, params)),
        key=jnp.copy(key),
        averaged=_copied(params) if averages else None,
        step=count(),
        skipped=count(),
        epoch=count(),
        best_loss=jnp.full((), jnp.inf, default_float()),
        best_epoch=count(-1),
        to_beat=jnp.full((), jnp.inf, default_float()),
        fruitless=count(),
        improved_at=count(),
        smoothed=jnp.zeros((), default_float()),
        status=count(Status.RUNNING),
    )


class Descent(eqx.Module):
    """How a fit takes a step: by which optimiser, and what becomes of a step that is not finite."""

    optimizer: optax.GradientTransformation | None
    learning_rate: Any
    # The weight of the past in the mean of the parameters; None if there is no mean.
    averaging: Float[Array, ""] | None
    limits: Limits
    # Whether steps that are not finite may be skipped; else the first one ends the fit.
    skips: bool = eqx.field(static=True)

    def advance(self, state: TrainState, loss_fn: Callable[[Any], Array]) -> tuple[TrainState, Float[Array, ""]]:
        """One update, and the loss before it, where the fit is running; else the same parameters and counters.

        A non-finite loss or parameter stops the fit or is skipped: the update is not made. Where it stops, the
        status says why; the state of the optimiser is of no use then, and spared the cost of a choice at every step.
        """

        def scalar_loss(params):
            loss = jnp.asarray(loss_fn(params))
            if loss.shape != ():
                raise ValueError(f"loss_fn expected to return a scalar, got shape {loss.shape}.")
            return loss

        loss, grads = jax.value_and_grad(scalar_loss)(state.params)
        params, opt_state = updated(
            state.params, grads, state.opt_state, self.optimizer, self.learning_rate,
            step=state.step, loss=loss, loss_fn=scalar_loss,
        )  # fmt: skip
        loss = loss.astype(default_float())
        found = jnp.where(_all_finite(params), Status.RUNNING, Status.BAD_UPDATE)
        found = jnp.where(jnp.isfinite(loss), found, Status.BAD_LOSS)
        accepted = state.running & (found == Status.RUNNING)
        skipped = state.skipped
        if self.skips:
            opt_state = jax.tree.map(partial(jnp.where, accepted), opt_state, state.opt_state)
            spared = state.running & ~accepted & (skipped < self.limits.skips)
            found = jnp.where(spared, Status.RUNNING, found)
            skipped = skipped + spared.astype(jnp.int32)
        step = state.step + accepted.astype(jnp.int32)
        found = jnp.where((found == Status.RUNNING) & (step >= self.limits.steps), Status.OUT_OF_STEPS, found)
        params = jax.tree.map(partial(jnp.where, accepted), params, state.params)
        averaged = state.averaged
        if self.averaging is not None:
            averaged = jax.tree.map(partial(_averaged, accepted, self.averaging, step), averaged, params)
        state = replace(
            state,
            params=params,
            opt_state=opt_state,
            averaged=averaged,
            step=step,
            skipped=skipped,
            status=jnp.where(state.running, found, state.status).astype(jnp.int32),
        )
        return state, loss


def judge(state: TrainState, limits: Limits, loss: Float[Array, ""], first_step: Int[Array, ""]) -> TrainState:
    """The state after an epoch that began at `first_step` and whose parameters have the loss `loss`."""
    finite = jnp.isfinite(loss)
    going = state.running | (state.status == Status.OUT_OF_STEPS)
    status = jnp.where(going & ~finite, Status.BAD_VALIDATION, state.status)
    # An epoch cut short by a failure counts only where there is nothing better, and not if cut at its first step.
    eligible = going | (jnp.isinf(state.best_loss) & (state.step > first_step))
    better = eligible & finite & (loss < state.best_loss)
    improved = eligible & finite & (loss < state.to_beat - limits.min_improvement)
    fruitless = jnp.where(improved, 0, state.fruitless + 1)
    improved_at = jnp.where(improved, state.step, state.improved_at)
    impatient = (fruitless > limits.patience) | (state.step - improved_at > limits.patience_steps)
    status = jnp.where((status == Status.RUNNING) & impatient, Status.OUT_OF_PATIENCE, status)
    return replace(
        state,
        best_params=jax.tree.map(partial(jnp.where, better), state.judged, state.best_params),
        epoch=state.epoch + 1,
        best_loss=jnp.where(better, loss, state.best_loss),
        best_epoch=jnp.where(better, state.epoch, state.best_epoch),
        to_beat=jnp.where(improved, loss, state.to_beat),
        fruitless=fruitless,
        improved_at=improved_at,
        status=status.astype(jnp.int32),
    )


def judge_step(
    before: TrainState, state: TrainState, limits: Limits, loss: Float[Array, ""], smoothing: Float[Array, ""]
) -> TrainState:
    """The state after a step that was not one of an epoch: the mean of the last losses judges its parameters.

    These are the ones `before` the update, of which `loss` is the loss.
    """
    made = state.step > before.step
    smoothed = _averaged(made, smoothing, state.step, state.smoothed, loss)
    better = made & (smoothed < state.best_loss)
    improved = made & (smoothed < state.to_beat - limits.min_improvement)
    improved_at = jnp.where(improved, state.step, state.improved_at)
    impatient = (state.status == Status.RUNNING) & (state.step - improved_at > limits.patience_steps)
    return replace(
        state,
        best_params=jax.tree.map(partial(jnp.where, better), before.judged, state.best_params),
        best_loss=jnp.where(better, smoothed, state.best_loss),
        to_beat=jnp.where(improved, smoothed, state.to_beat),
        improved_at=improved_at,
        smoothed=smoothed,
        status=jnp.where(impatient, Status.OUT_OF_PATIENCE, state.status).astype(jnp.int32),
    )


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


def _averaged(accepted: Array, past: Array, step: Array, mean: Array, new: Array) -> Array:
    # At the start the past is short: with n steps made, the weight of the past is at most (n - 1) / n,
    # a plain mean of them, so that the initial parameters do not linger.
    made = step.astype(default_float())
    past = jnp.minimum(past, (made - 1) / jnp.maximum(made, 1)).astype(mean.dtype)
    return jnp.where(accepted, past * mean + (1 - past) * new, mean)
