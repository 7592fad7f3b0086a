"""Steps on the device that need no data: many of them in one dispatch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from flowlib._arrays import default_float
from flowlib.train._state import Descent, TrainState, judge_step

# Room for the losses of one dispatch, and so the most steps in one.
MAX_STEPS = 1024


class StepProblem(eqx.Module):
    """All that steps read and do not change."""

    static: Any
    loss_fn: Callable[..., Array]
    descent: Descent
    # The weight of the past in the mean of the losses; None if nothing is judged by it.
    smoothing: Float[Array, ""] | None

    def loss(self, params: Any, key: Array) -> Array:
        return self.loss_fn(params, self.static, key=key)


# Not donated: the problem and the number of steps. The state is a buffer of the fit's own.
@partial(eqx.filter_jit, donate="warn-except-first")
def run_steps(
    problem_and_steps: tuple[StepProblem, Int[Array, ""]], state: TrainState
) -> tuple[TrainState, Float[Array, " steps"]]:
    """Run steps until there are enough of them or the fit stops, which its last step then did not survive.

    Returns:
        The state, and the loss of each step that was run.
    """
    problem, steps = problem_and_steps

    def proceed(carry):
        done, state, _ = carry
        return (done < steps) & state.running

    def step(carry):
        done, state, losses = carry
        loss_fn = partial(problem.loss, key=jr.fold_in(state.key, state.step + state.skipped))
        before = state
        state, loss = problem.descent.advance(state, loss_fn)
        if problem.smoothing is not None:
            state = judge_step(before, state, problem.descent.limits, loss, problem.smoothing)
        return done + 1, state, losses.at[done].set(loss)

    losses = jnp.zeros(MAX_STEPS, default_float())
    _, state, losses = jax.lax.while_loop(proceed, step, (jnp.zeros((), jnp.int32), state, losses))
    return state, losses
