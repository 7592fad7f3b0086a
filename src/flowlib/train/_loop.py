"""What the host does in a fit: one dispatch after another, and between them bar, checkpoints, callbacks and clock."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from flowlib._warn import warn_user
from flowlib.errors import CheckpointError
from flowlib.train._checkpoint_plan import CheckpointPlan
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


# So many of the last losses, and of the next, tell whether a resumed fit goes on where it was.
_FEW = 10

# Returns True to stop the fit; anything else goes on.
Callback = Callable[[Snapshot], Any]


class BrokenOffError(Exception):
    """Says of an exception in the midst of a dispatch which state was reached."""

    def __init__(self, state: TrainState, cause: BaseException):
        super().__init__()
        self.state, self.cause = state, cause


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
    # What ended the fit, if an exception did: of a checkpoint that could not be written, of the data, or any other.
    failure: BaseException | None = None
    # Whether a dispatch can end in its midst, for it waits for data.
    breakable: bool = False
    # What the bar shows besides the losses.
    note: Callable[[TrainState], dict[str, Any]] | None = None
    processes: Processes = ALONE

    def run(self, state: TrainState) -> TrainState:
        """Dispatch until the fit ends; what an exception ended is in `failure`, and the state is what was reached.

        Raises:
            BaseException: what ended the fit, where the state was lost to it.
        """
        try:
            return self._run(state)
        finally:
            if self.checkpoints is not None:
                self.checkpoints.release()

    def raise_failure(self, fitted: Any) -> None:
        """Raise what ended the fit, if an exception did, with what the fit would have returned."""
        error = self.failure
        if error is None:
            return
        # Some exceptions take no attributes.
        with suppress(AttributeError, TypeError):
            error.fitted, error.losses = fitted, self.history  # pyright: ignore[reportAttributeAccessIssue]
        raise error

    def _run(self, state):
        history, start, seconds = self.history, time.monotonic(), 0.0
        pace = Pace(self.longest)
        # What the next checkpoint would be of, were the running dispatch broken off; and whether the state is whole.
        packed, settled, check_resumed = None, True, self.resumed

        def cut():
            return interrupts.pressed or time.monotonic() - start > self.max_seconds

        try:
            with Progress(self.total, self.unit, self.show_progress, history.done) as bar, Interrupts() as interrupts:
                stopped = self._stopped(state)
                while stopped is None:
                    (size,) = self.processes.most(pace.next(self._until_next_stop()))
                    packed, settled, before = self._packed(state), False, history.done
                    state, losses, whole = self.dispatch(size, state, cut)
                    if losses is None:
                        (pressed,) = self.processes.most(interrupts.pressed)
                        stopped = "exhausted" if whole else "interrupted" if pressed else "max_seconds"
                        if not whole:
                            state = _with_last(state)
                            stopped = self._written(packed, stopped)
                        elif self.checkpoints and history.done % self.checkpoints.every:
                            stopped = self._saved(state, stopped)
                        break
                    history.add(state, losses)
                    settled = whole
                    if check_resumed:
                        check_resumed = False
                        _warn_of_jump(history.judged_losses(), before)
                    pace.done()
                    bar.show(history.done, **history.latest, **(self.note(state) if self.note else {}))
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
                    if not whole:
                        stopped = self._written(packed, stopped)
                    elif self.checkpoints and (stopped or history.done % self.checkpoints.every == 0):
                        stopped = self._saved(state, stopped)
        except BaseException as error:
            state, stopped = self._broken_off(error, state, packed, settled), "error"
        try:
            history.close(state, stopped, time.monotonic() - start, self.resumed)
        except Exception:
            # What broke the computation comes out again wherever its results are read.
            if self.failure is not None and stopped == "error":
                raise self.failure from None
            raise
        return state

    def _packed(self, state):
        """The checkpoint that the dispatch to come would take with it, were it broken off."""
        if self.checkpoints is None or not self.breakable or self.history.done % self.checkpoints.every == 0:
            return None
        return self.checkpoints.pack(state, self.history)

    def _written(self, packed, stopped):
        """Write what was packed before a dispatch that was cut; `stopped`, or that this failed."""
        if packed is not None and self.checkpoints is not None:
            try:
                self.checkpoints.write(packed)
            except CheckpointError as error:
                stopped, self.failure = "checkpoint", error
        return stopped

    def _broken_off(self, error, state, packed, settled):
        """The state that an exception left, with a checkpoint of the last whole one; raises it if none is left."""
        if isinstance(error, BrokenOffError):
            state, error = error.state, error.cause
        self.failure = error
        lost = any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        try:
            if self.checkpoints is None:
                pass
            elif packed is not None and not settled:
                self.checkpoints.write(packed)
            elif settled and not lost and self.history.done and self.processes.count == 1:
                self.checkpoints.save(state, self.history)
        except Exception as second:
            error.add_note(f"Nor could a checkpoint be written: {second}")
        if lost:
            raise error
        return _with_last(state)

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


def _with_last(state):
    """The state, where nothing has been judged yet with the last parameters as the best ones."""
    if state.best_params is None or not np.isinf(jax.device_get(state.best_loss)).all():
        return state
    # Not by `replace`: the states of an ensemble are stacked, which its constructor does not know.
    return eqx.tree_at(attrgetter("best_params"), state, state.judged)


def _warn_of_jump(losses, before):
    """Warn if the first loss after a checkpoint is far from those before it: something else may have changed."""
    old, new = losses[:before], losses[before : before + _FEW]
    if not old or not new:
        return
    recent, now = old[-_FEW:], statistics.median(new)
    room = 1 + abs(recent[-1]) / 10 + 5 * (max(recent) - min(recent))
    far_below = len(old) >= 3 and now < min(old) - room - 5 * (max(old) - min(old))
    if now > max(recent) + room or far_below:
        warn_user(
            f"The loss was {recent[-1]:.6g} at the checkpoint and is {now:.6g} in the resumed fit: the data, or what "
            "the loss reads, may not be what they were. Use another directory for another fit."
        )


def _copied(tree: Any) -> Any:
    # By way of NumPy: a copy on the device would be a program to compile for each shape.
    return jax.tree.map(lambda leaf: jnp.asarray(np.array(on_host(leaf))), tree)
