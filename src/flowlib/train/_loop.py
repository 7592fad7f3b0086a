"""What the host does in a fit: one dispatch after another, and between them bar, checkpoints, callbacks and clock."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flowlib._warn import warn_user
from flowlib.errors import CheckpointError
from flowlib.train._checkpoint import Checkpoints
from flowlib.train._history import REASONS, History
from flowlib.train._processes import ALONE, Processes, on_host
from flowlib.train._progress import Interrupts, Pace, Progress
from flowlib.train._state import Status, TrainState


@dataclass(frozen=True)
class Snapshot:
    """What a callback is given after each dispatch, which is one or many epochs, or steps.

    Attributes:
        metrics: "epoch", "step", "skipped", "seconds" (of this run), "best_loss", and the last losses ("train" and
            "val", or "loss"), by name.
        losses: all losses so far, as the fit will return them; not to be changed.
        state: the whole state. Its arrays are given up to the next dispatch: copy what is to be kept.
    """

    metrics: dict[str, float]
    losses: Any
    state: TrainState
    _tree_of: Callable[[Any], Any] = field(repr=False)

    def current(self) -> Any:
        """The distribution as it is now: a copy, to be kept or drawn."""
        return self._tree_of(_copied(self.state.judged))

    def best(self) -> Any:
        """The distribution of the lowest loss so far: a copy."""
        best = self.state.best_params
        return self.current() if best is None else self._tree_of(_copied(best))


# Returns True to stop the fit; anything else goes on.
Callback = Callable[[Snapshot], Any]


@dataclass
class CheckpointPlan:
    """Where, how often and for what a fit writes checkpoints."""

    store: Checkpoints
    every: int
    on_error: Literal["raise", "warn"]
    # Arrays that do not change, but that a stream of data cannot give again.
    constant: Any
    warned: bool = False

    def load(self, state: TrainState, history: History) -> tuple[TrainState, Any, bool]:
        """The state and the constant arrays of the newest checkpoint, if there is one, and whether there is."""
        found = self.store.load((state, self.constant))
        if found is None:
            return state, self.constant, False
        _, (state, self.constant), record = found
        history.restore(record)
        return state, self.constant, True

    def save(self, state: TrainState, history: History) -> None:
        """Write a checkpoint; raises or warns where that fails."""
        try:
            self.store.save(history.done, (state, self.constant), history.record())
        except CheckpointError as error:
            if self.on_error == "raise":
                raise
            if not self.warned:
                warn_user(f"{error} The fit goes on without.")
            self.warned = True


@dataclass
class Loop:
    """One fit, as the host sees it.

    `dispatch(size, state, cut)` runs at most so many epochs (or steps). It gives the new state, what `history` takes in
    (None if there are no data left), and whether it ran them whole: it may end early once `cut()` is true.
    """

    unit: str
    total: int
    longest: int
    history: History
    dispatch: Callable[[int, TrainState, Callable[[], bool]], tuple[TrainState, Any, bool]]
    tree_of: Callable[[Any], Any]
    callbacks: Sequence[Callback]
    max_seconds: float
    show_progress: bool
    checkpoints: CheckpointPlan | None
    resumed: bool = False
    # A checkpoint that could not be written, where that ends the fit.
    failure: CheckpointError | None = None
    # What the bar shows besides the losses.
    note: Callable[[TrainState], dict[str, Any]] | None = None
    processes: Processes = ALONE

    def run(self, state: TrainState) -> TrainState:
        """Dispatch until the fit ends."""
        history, start, seconds = self.history, time.monotonic(), 0.0
        pace = Pace(self.longest)

        def cut():
            return interrupts.pressed or time.monotonic() - start > self.max_seconds

        with Progress(self.total, self.unit, self.show_progress, history.done) as progress, Interrupts() as interrupts:
            stopped = self._stopped(state)
            while stopped is None:
                (size,) = self.processes.most(pace.next(self._until_next_stop()))
                state, losses, whole = self.dispatch(size, state, cut)
                if losses is None:
                    (pressed,) = self.processes.most(interrupts.pressed)
                    stopped = "exhausted" if whole else "interrupted" if pressed else "max_seconds"
                    if whole and self.checkpoints and history.done % self.checkpoints.every:
                        stopped = self._saved(state, stopped)
                    break
                history.add(state, losses)
                pace.done()
                progress.show(history.done, **history.latest, **(self.note(state) if self.note else {}))
                seconds = time.monotonic() - start
                called_off = self._called_back(state, seconds)
                stopped = self._stopped(state)
                pressed, called_off, late = self.processes.most(
                    interrupts.pressed, called_off, seconds > self.max_seconds
                )
                if stopped is None and pressed:
                    stopped = "interrupted"
                elif stopped is None and called_off:
                    stopped = "callback"
                elif stopped is None and late:
                    stopped = "max_seconds"
                # What is resumed must be what would have been without the cut.
                if self.checkpoints and whole and (stopped or history.done % self.checkpoints.every == 0):
                    stopped = self._saved(state, stopped)
        history.close(state, stopped, time.monotonic() - start, self.resumed)
        return state

    def _stopped(self, state):
        """Why the fit is at its end, or None."""
        status = self.history.status(state)
        if status != Status.RUNNING:
            return REASONS[status]
        return f"max_{self.unit}s" if self.history.done >= self.total else None

    def _saved(self, state, stopped):
        """Write a checkpoint; `stopped`, or that this failed."""
        assert self.checkpoints is not None
        try:
            save = partial(self.checkpoints.save, state, self.history)
            self.processes.in_step("Writing a checkpoint", save, error=CheckpointError)
        except CheckpointError as error:
            stopped, self.failure = "checkpoint", error
        return stopped

    def _until_next_stop(self):
        left = self.total - self.history.done
        if self.checkpoints:
            left = min(left, self.checkpoints.every - self.history.done % self.checkpoints.every)
        return left

    def _called_back(self, state, seconds):
        """Whether a callback wants the fit to stop; an exception in one is a wish to stop, and a warning."""
        if not self.callbacks:
            return False
        counts = jax.device_get({"epoch": state.epoch, "step": state.step, "skipped": state.skipped})
        # Of an ensemble, those of the member that is furthest, and the best.
        metrics = {name: int(np.max(count)) for name, count in counts.items()}
        best_loss = float(np.min(jax.device_get(state.best_loss)))
        best = {} if math.isinf(best_loss) else {"best_loss": best_loss}
        metrics = {**metrics, "seconds": seconds, **best, **self.history.latest}
        snapshot = Snapshot(metrics, self.history, state, self.tree_of)
        stop = False
        for callback in self.callbacks:
            try:
                stop |= callback(snapshot) is True
            except Exception as error:
                # The parameters must not be lost to it.
                what = f"{type(error).__name__}: {error}"
                warn_user(f"The fit stopped because a callback raised {what}.")
                stop = True
        return stop


def _copied(tree: Any) -> Any:
    # By way of NumPy: a copy on the device would be a program to compile for each shape.
    return jax.tree.map(lambda leaf: jnp.asarray(np.array(on_host(leaf))), tree)
