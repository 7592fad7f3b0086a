"""What a fit tells of itself: the losses, and why it stopped."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from flowlib.train._state import FAILURES, Status, TrainState


@dataclass(frozen=True)
class FitReport:
    """Why a fit stopped, and how far it came.

    Attributes:
        stopped: "max_epochs", "patience", "max_steps", "max_seconds", "callback", "interrupted", "exhausted" (a stream
            without more batches), "non-finite", or "checkpoint" (one that could not be written).
        epochs: epochs run, and
        steps: updates made, in this run and, where it was resumed, in those before.
        skipped: steps whose loss or update was not finite, and that were left out.
        best_epoch: the epoch with the lowest loss, counted from zero; None if there is none.
        best_loss: its loss, on the validation rows if there are any.
        seconds: how long this run took.
        resumed: whether it began at a checkpoint.
    """

    stopped: str
    epochs: int
    steps: int
    skipped: int
    best_epoch: int | None
    best_loss: float
    seconds: float
    resumed: bool

    def __str__(self) -> str:
        parts = [f"stopped by {self.stopped} after {self.epochs} epochs and {self.steps} steps"]
        if self.best_epoch is not None:
            parts.append(f"the lowest loss was {self.best_loss:.6g}, in epoch {self.best_epoch} (counted from zero)")
        if self.skipped:
            parts.append(f"{self.skipped} steps were skipped")
        return "; ".join(parts) + f". {self.seconds:.1f} s{', resumed' if self.resumed else ''}."

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, for a logger."""
        return asdict(self)


class EpochHistory(dict):
    """The losses of each epoch, `{"train": [...], "val": [...]}`, and in `report` why the fit stopped."""

    report: FitReport

    def __init__(self, validated: bool):
        super().__init__(train=[], val=[])
        self._names = ("train", "val") if validated else ("train",)

    @property
    def done(self) -> int:
        """The number of epochs."""
        return len(self["train"])

    @property
    def latest(self) -> dict[str, float]:
        """The last losses by name."""
        return {name: self[name][-1] for name in self._names if self[name]}

    def add(self, state: TrainState, losses: Float[Array, "epochs 2"]) -> None:
        """Add what a dispatch ran."""
        values, epoch = jax.device_get((losses, state.epoch))
        for i, name in enumerate(self._names):
            self[name].extend(values[: int(epoch) - len(self[name]), i].tolist())

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return dict(self)

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.update({name: list(record[name]) for name in self})


class StepHistory(list):
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
        self[:] = record["loss"]


History = EpochHistory | StepHistory

# The names of what the device decides.
REASONS = {
    Status.OUT_OF_PATIENCE: "patience",
    Status.OUT_OF_STEPS: "max_steps",
    **dict.fromkeys(FAILURES, "non-finite"),
}


def report_of(state: TrainState, stopped: str, seconds: float, resumed: bool) -> FitReport:
    """The report of a fit that ended in a state."""
    numbers = jax.device_get((state.epoch, state.step, state.skipped, state.best_epoch, state.best_loss))
    epoch, step, skipped, best_epoch = map(int, numbers[:4])
    best_loss = float(numbers[4])
    found = best_epoch >= 0 and math.isfinite(best_loss)
    return FitReport(stopped, epoch, step, skipped, best_epoch if found else None, best_loss, seconds, resumed)
