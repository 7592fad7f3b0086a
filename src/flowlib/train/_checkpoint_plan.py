"""The checkpoints of a fit: of what they are, and what is read from them."""

from dataclasses import dataclass
from typing import Any, Literal

from flowlib._warn import warn_user
from flowlib.errors import CheckpointError, CheckpointMismatchError
from flowlib.train._checkpoint import Checkpoints, Packed
from flowlib.train._history import History
from flowlib.train._lock import DirectoryLock
from flowlib.train._settings import Moments
from flowlib.train._state import TrainState


@dataclass
class CheckpointPlan:
    """Where, how often and for what a fit writes checkpoints."""

    store: Checkpoints
    every: int
    on_error: Literal["raise", "warn"]
    # Arrays that do not change, but that a stream of data cannot give again.
    constant: Any
    # Held until the fit ends.
    lock: DirectoryLock | None = None
    # Of a stream, by which other contents are told.
    moments: Moments | None = None
    warned: bool = False

    def release(self) -> None:
        """Let other fits have the directory."""
        if self.lock is not None:
            self.lock.release()

    def load(self, state: TrainState, history: History) -> tuple[TrainState, Any, bool]:
        """The state and the constant arrays of the newest checkpoint, if there is one, and whether there is."""
        try:
            found = self.store.load((state, self.constant))
            if found is None:
                return state, self.constant, False
            number, (state, self.constant), record = found
            if self.moments is not None:
                self._check_moments(record)
            _restore(history, number, record)
        except BaseException:
            self.release()
            raise
        return state, self.constant, True

    def _record(self, history):
        return history.record() | ({} if self.moments is None else {"first rows": list(self.moments)})

    def _check_moments(self, record):
        try:
            assert self.moments is not None
            difference = self.moments.unlike(record["first rows"]) if "first rows" in record else ""
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.store.directory} has a checkpoint that flowlib did not write.") from error
        if difference:
            raise CheckpointMismatchError(
                f"The checkpoint in {self.store.directory} is of other data: {difference}. Use another directory."
            )

    def pack(self, state: TrainState, history: History) -> Packed:
        """A checkpoint of now, to be written later or not at all."""
        return self.store.pack(history.done, (state, self.constant), self._record(history))

    def save(self, state: TrainState, history: History) -> None:
        """Write a checkpoint; raises or warns where that fails."""
        self.write(self.store.pack(history.done, (state, self.constant), self._record(history), copy=False))

    def write(self, packed: Packed) -> None:
        """Write what was packed; raises or warns where that fails."""
        try:
            self.store.write(packed)
        except CheckpointError as error:
            if self.on_error == "raise":
                raise
            if not self.warned:
                warn_user(f"{error} The fit goes on without.")
            self.warned = True


def _restore(history, number, record):
    try:
        history.restore(record)
        whole = history.done == number
    except (TypeError, LookupError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"The record of losses in checkpoint {number} is none that flowlib wrote. "
            "Delete it, or use another directory."
        )
