"""Fitting without data: to a loss of a key, and to an unnormalised density."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib.distributions import AbstractDistribution
from flowlib.train._losses import ElboLoss
from flowlib.train._optimizer import check_optimizer
from flowlib.train._progress import Interrupts, Pace, Progress, warn_of_failure, warn_of_interrupt
from flowlib.train._state import FAILURES, Status, initial_state, trainable_half
from flowlib.train._steps import MAX_STEPS, StepProblem, run_steps

T = TypeVar("T")


def fit_to_key_based_loss(
    key: PRNGKeyArray,
    tree: T,
    *,
    loss_fn: Callable[..., Array],
    steps: int,
    learning_rate: ArrayLike | Callable[[Array], Array] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    show_progress: bool = True,
) -> tuple[T, list[float]]:
    """Minimise a loss that depends on the parameters and a random key, such as an `ElboLoss`.

    Steps run on the device, many in one dispatch. Another number of steps or learning rate compiles nothing;
    `loss_fn`, `optimizer` and a schedule are told apart by identity, unless they are Equinox modules.

    If a loss or an update becomes NaN or infinite, the fit stops at that step with one `NonFiniteWarning`
    and returns the last finite parameters; that loss is the last in the list. Ctrl-C stops it after the running steps.

    Args:
        key: a JAX PRNG key, typed or legacy.
        tree: a distribution or any other tree of arrays; frozen parameters stay as they are.
        loss_fn: called as `loss_fn(params, static, key=key)`; returns a scalar.
        steps: the number of steps.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        show_progress: show a bar with the step and loss.

    Returns:
        The fitted tree, and the loss of each step as a float, before its update.

    Raises:
        ValueError: for a tree without trainable parameters, arguments out of range, or a loss that is no scalar.
        TypeError: for a `key` that is no key.
    """
    return _fit(key, tree, loss_fn, steps, learning_rate, optimizer, show_progress)


def fit_to_variational_target(
    key: PRNGKeyArray,
    dist: T,
    target: Callable[[Array], Array],
    *,
    steps: int,
    num_samples: int = 100,
    learning_rate: ArrayLike | Callable[[Array], Array] = 5e-4,
    optimizer: optax.GradientTransformation | None = None,
    stick_the_landing: bool = False,
    loss_fn: Callable[..., Array] | None = None,
    show_progress: bool = True,
) -> tuple[T, list[float]]:
    """Fit a distribution to an unnormalised log density by maximising the evidence lower bound.

    Minus the loss is, in expectation, a lower bound of the log normaliser of the target, and equals it when the
    fit is perfect. The objective looks for a mode and may miss others: compare samples and importance weights.

    Compiled code is found again by the identity of `target`, unless it is an Equinox module: pass the same function.
    Non-finite losses and Ctrl-C are treated as in `fit_to_key_based_loss`.

    Args:
        key: a JAX PRNG key, typed or legacy.
        dist: an unconditional distribution that can be sampled cheaply; frozen parameters stay as they are.
        target: the unnormalised log density of ONE event, a function of an array of shape `dist.shape`
            that returns a scalar; it is mapped over the draws.
        steps: the number of steps.
        num_samples: draws a step.
        learning_rate: of Adam, a number or an optax schedule of the number of steps; not used with `optimizer`.
        optimizer: any optax optimiser, in place of Adam.
        stick_the_landing: lower the variance of the gradient at the price of an inverse pass; see `ElboLoss`.
        loss_fn: another loss, called as `loss_fn(params, static, key=key)`. It brings its own target, and
            `target`, `num_samples` and `stick_the_landing` are then not used.
        show_progress: show a bar with the step and loss.

    Returns:
        The fitted distribution, and the loss of each step as a float.

    Raises:
        ValueError: for a conditional distribution, a target that returns no scalar, a distribution without
            trainable parameters, or arguments out of range.
        TypeError: for a `dist`, `target` or `key` that is none.
    """
    if loss_fn is None:
        if not isinstance(dist, AbstractDistribution):
            raise TypeError(f"fit_to_variational_target expected a distribution, got {type(dist).__name__}.")
        if dist.cond_shape is not None:
            raise ValueError(
                f"fit_to_variational_target expected an unconditional distribution, "
                f"got one with conditions of shape {dist.cond_shape}."
            )
        loss_fn = ElboLoss(target, num_samples, stick_the_landing=stick_the_landing)
    return _fit(key, dist, loss_fn, steps, learning_rate, optimizer, show_progress)


def _fit(key, tree, loss_fn, steps, learning_rate, optimizer, show_progress):
    key, steps = check_key(key), check_count(steps, "steps", 0)
    learning_rate = check_optimizer(optimizer, learning_rate)
    params, static = trainable_half(tree)
    state = _begin(key, params, optimizer)
    problem = StepProblem(static, loss_fn, optimizer, learning_rate)
    losses: list[float] = []
    pace, status = Pace(MAX_STEPS), Status.RUNNING
    with Progress(steps, "step", show_progress) as progress, Interrupts() as interrupts:
        while status == Status.RUNNING and len(losses) < steps and not interrupts.pressed:
            size = jnp.asarray(np.asarray(pace.next(steps - len(losses)), np.int32))
            state, dispatched = run_steps((problem, size), state)
            status = _record(losses, state, dispatched)
            pace.done()
            progress.show(len(losses), loss=losses[-1])

    if status in FAILURES:
        where = f"at step {len(losses) - 1} (counted from zero)"
        warn_of_failure(status, where, losses[-1], "the last finite parameters are returned")
    elif interrupts.pressed:
        warn_of_interrupt(f"{len(losses)} steps")
    return eqx.combine(state.params, static), losses


@eqx.filter_jit
def _begin(key, params, optimizer):
    return initial_state(key, params, optimizer, follow_best=False)


def _record(losses, state, dispatched):
    """Add the losses of a dispatch; returns its status."""
    values, step, status = jax.device_get((dispatched, state.step, state.status))
    status = Status(int(status))
    # The step that failed made no update, but has a loss.
    taken = int(step) + (status in FAILURES)
    losses.extend(values[: taken - len(losses)].tolist())
    return status
