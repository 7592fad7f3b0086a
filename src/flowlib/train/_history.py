"""What a fit tells of itself: the losses, and why it stopped."""

import math
import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from flowlib.train._state import FAILURES, Status, TrainState


@dataclass(frozen=True)
class FitReport:
    """Why a fit stopped, and how far it came.

    Attributes:
        stopped: "max_epochs", "patience", "max_steps", "max_seconds", "callback", "interrupted", "exhausted" (a stream
            without more batches), "non-finite", "checkpoint" (one that could not be written), or "error" (any other
            exception, which carries these losses).
        epochs: epochs run, and
        steps: updates made, in this run and, where it was resumed, in those before.
        skipped: steps whose loss or update was not finite, and that were left out.
        best_epoch: the epoch with the lowest loss, counted from zero; None if there is none.
        best_loss: its loss, on the validation rows if there are any.
        seconds: how long this run took.
        resumed: whether it began at a checkpoint.
        falling: whether it came to `max_epochs` (or `steps`) while the loss was still falling, beyond its noise.
    """

    stopped: str
    epochs: int
    steps: int
    skipped: int
    best_epoch: int | None
    best_loss: float
    seconds: float
    resumed: bool
    falling: bool = False

    def __str__(self) -> str:
        done = f"{self.epochs} epochs and {self.steps} steps" if self.epochs else f"{self.steps} steps"
        parts = [f"stopped by {self.stopped} after {done}"]
        if self.best_epoch is not None:
            parts.append(f"the lowest loss was {self.best_loss:.6g}, in epoch {self.best_epoch} (counted from zero)")
        if self.skipped:
            parts.append(f"{self.skipped} steps were skipped")
        if self.falling:
            parts.append("the loss was still falling")
        return "; ".join(parts) + f". {self.seconds:.1f} s{', resumed' if self.resumed else ''}."

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, for a logger."""
        return asdict(self)


class _OneFit:
    """What histories of a single fit share."""

    report: FitReport

    def judged_losses(self) -> list[float]:
        """The losses that parameters are judged by, one after another."""
        raise NotImplementedError

    def status(self, state: TrainState) -> Status:
        """Whether the fit goes on, or why not."""
        return Status(int(state.status))

    def close(self, state: TrainState, stopped: str, seconds: float, resumed: bool) -> None:
        """Write the report."""
        report = report_of(state, stopped, seconds, resumed)
        at_limit = stopped in ("max_epochs", "max_steps")
        self.report = replace(report, falling=at_limit and still_falling(self.judged_losses()))


class EpochHistory(_OneFit, dict):
    """The losses of each epoch, `{"train": [...], "val": [...]}`, and in `report` why the fit stopped."""

    report: FitReport

    def __init__(self, validated: bool):
        super().__init__(train=[], val=[])
        self._names = ("train", "val") if validated else ("train",)
        # Of the first batch, before any step.
        self.first_loss = math.nan

    @property
    def done(self) -> int:
        """The number of epochs."""
        return len(self["train"])

    @property
    def latest(self) -> dict[str, float]:
        """The last losses by name."""
        return {name: self[name][-1] for name in self._names if self[name]}

    def judged_losses(self) -> list[float]:
        """The losses by which the best parameters are told."""
        return self[self._names[-1]]

    def add(self, state: TrainState, losses: Float[Array, "epochs 3"]) -> None:
        """Add what a dispatch ran."""
        values, epoch = jax.device_get((losses, state.epoch))
        self.add_values(values, int(epoch))

    def add_values(self, values: np.ndarray, epochs: int) -> None:
        """Add losses, so that there are those of so many epochs."""
        if not self.done:
            self.first_loss = float(values[0, 2])
        for i, name in enumerate(self._names):
            self[name].extend(values[: epochs - len(self[name]), i].tolist())

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return dict(self) | {"first": self.first_loss}

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.update({name: list(map(float, record[name])) for name in self})
        self.first_loss = float(record.get("first", math.nan))


class StepHistory(_OneFit, list):
    """The loss of each step, and in `report` why the fit stopped."""

    report: FitReport

    @property
    def done(self) -> int:
        """The number of steps."""
        return len(self)

    @property
    def latest(self) -> dict[str, float]:
        """The last loss."""
        return {"loss": self[-1]} if self else {}

    def judged_losses(self) -> list[float]:
        """The losses."""
        return self

    def add(self, state: TrainState, losses: Float[Array, " steps"]) -> None:
        """Add what a dispatch ran."""
        values, step, skipped, status = jax.device_get((losses, state.step, state.skipped, state.status))
        # The step that failed made no update, but has a loss.
        tried = int(step) + int(skipped) + (int(status) in FAILURES)
        self.extend(values[: tried - len(self)].tolist())

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"loss": list(self)}

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self[:] = map(float, record["loss"])


class EnsembleHistory(list):
    """The `EpochHistory` of each member of an ensemble."""

    def __init__(self, members: int, validated: bool):
        super().__init__(EpochHistory(validated) for _ in range(members))

    def status(self, state: TrainState) -> Status:
        """Whether one of the fits goes on, or why the first does not."""
        found = [Status(status) for status in state.status.tolist()]
        return Status.RUNNING if Status.RUNNING in found else found[0]

    def close(self, state: TrainState, stopped: str, seconds: float, resumed: bool) -> None:
        """Write the reports."""
        for i, history in enumerate(self):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], jax.device_get(_numbers(state)))
            status = Status(int(own[0]))
            reason = stopped if status == Status.RUNNING else REASONS[status]
            falling = reason == "max_epochs" and still_falling(history.judged_losses())
            history.report = replace(_report(own, reason, seconds, resumed), falling=falling)

    @property
    def done(self) -> int:
        """The number of epochs of the members that go on longest."""
        return max(history.done for history in self)

    @property
    def latest(self) -> dict[str, float]:
        """The means over members of their last losses."""
        return {name: statistics.fmean(h[name][-1] for h in self) for name in self[0].latest}

    def judged_losses(self) -> list[float]:
        """The means over members, as long as all go on."""
        return [statistics.fmean(each) for each in zip(*(history.judged_losses() for history in self), strict=False)]

    def add(self, state: TrainState, losses: Float[Array, "members epochs 3"]) -> None:
        """Add what a dispatch ran."""
        values, epochs = jax.device_get((losses, state.epoch))
        for history, own, epoch in zip(self, values, epochs.tolist(), strict=True):
            history.add_values(own, epoch)

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"members": [history.record() for history in self]}

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        for history, own in zip(self, record["members"], strict=True):
            history.restore(own)


History = EpochHistory | StepHistory | EnsembleHistory

# The names of what the device decides.
REASONS = {
    Status.OUT_OF_PATIENCE: "patience",
    Status.OUT_OF_STEPS: "max_steps",
    **dict.fromkeys(FAILURES, "non-finite"),
}


# Of fewer losses a trend cannot be told from noise; and how much, in nats, a last quarter must gain to be worth a word.
_FEWEST = 8
_GAIN = 0.02


def still_falling(losses: list[float]) -> bool:
    """Whether the last quarter of the losses falls, by a straight line, by more than its noise explains.

    Of a handful of losses, whether the last one is the lowest.
    """
    values = np.asarray(losses, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return False
    if len(values) < _FEWEST:
        return bool(values[-1] < values[:-1].min())
    last = values[-max(len(values) // 4, 4) :]
    steps = np.arange(len(last)) - (len(last) - 1) / 2
    slope = (steps @ last) / (steps @ steps)
    noise = np.sqrt(np.square(last - last.mean() - slope * steps).sum() / (len(last) - 2) / (steps @ steps))
    return bool(slope < -4 * noise and -slope * len(last) > _GAIN)


def rose(first: float, now: float, room: float = 1.0) -> bool:
    """Whether a loss is above the one of the first batch by more than these differ by chance."""
    return math.isfinite(first) and now > first + max(room, room * abs(first) / 10)


def report_of(state: TrainState, stopped: str, seconds: float, resumed: bool) -> FitReport:
    """The report of a fit that ended in a state."""
    return _report(jax.device_get(_numbers(state)), stopped, seconds, resumed)


def _numbers(state):
    return state.status, state.epoch, state.step, state.skipped, state.best_epoch, state.best_loss


def _report(numbers, stopped, seconds, resumed):
    _, epoch, step, skipped, best_epoch = map(int, numbers[:5])
    best_loss = float(numbers[5])
    found = best_epoch >= 0 and math.isfinite(best_loss)
    return FitReport(stopped, epoch, step, skipped, best_epoch if found else None, best_loss, seconds, resumed)
