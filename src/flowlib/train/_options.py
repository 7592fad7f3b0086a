"""The settings that every fit takes, checked."""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._arrays import check_count, default_float
from flowlib.train._checkpoint import Checkpoints
from flowlib.train._checkpoint_plan import CheckpointPlan
from flowlib.train._fingerprint import fingerprint
from flowlib.train._lock import DirectoryLock
from flowlib.train._loop import Callback
from flowlib.train._processes import ALONE, Processes
from flowlib.train._settings import Moments
from flowlib.train._state import Limits

NO_LIMIT = 2**31 - 1


class HostOptions(NamedTuple):
    """What the host does between dispatches."""

    max_seconds: float
    callbacks: tuple[Callback, ...]
    checkpoint: str | None
    checkpoint_every: int
    checkpoint_keep: int
    checkpoint_errors: Literal["raise", "warn"]

    def plan(self, settings: dict[str, Any], constant: Any = (), processes: Processes = ALONE) -> CheckpointPlan | None:
        """The checkpoints of a fit with such settings, which are told by their fingerprints."""
        if self.checkpoint is None:
            return None
        moments = next((value for value in settings.values() if isinstance(value, Moments)), None)
        prints = {name: fingerprint(value) for name, value in settings.items() if value is not moments or value is None}
        writes = processes.index == 0
        lock = DirectoryLock(self.checkpoint) if writes else None
        try:
            store = Checkpoints(self.checkpoint, keep=self.checkpoint_keep, settings=prints, writes=writes)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return CheckpointPlan(store, self.checkpoint_every, self.checkpoint_errors, constant, lock, moments)


def check_host_options(
    max_seconds: Any, callbacks: Any, checkpoint: Any, every: Any, keep: Any, errors: Any
) -> HostOptions:
    """The options, after checking them.

    Raises:
        ValueError: if one is out of range.
        TypeError: if one is of another kind.
    """
    callbacks = tuple(callbacks) if isinstance(callbacks, Sequence) else (callbacks,)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of a Snapshot, got {type(callback).__name__}.")
    if errors not in ("raise", "warn"):
        raise ValueError(f'checkpoint_errors must be "raise" or "warn", got {errors!r}.')
    return HostOptions(
        check_number(math.inf if max_seconds is None else max_seconds, "max_seconds"),
        callbacks,
        None if checkpoint is None else _directory(checkpoint),
        check_count(every, "checkpoint_every"),
        check_count(keep, "checkpoint_keep"),
        errors,
    )


def fit_limits(
    max_patience: Any = math.inf,
    max_patience_steps: Any = math.inf,
    min_improvement: Any = 0.0,
    max_steps: Any = None,
    max_skipped: Any = 0,
) -> Limits:
    """The limits as arrays; no limit is infinity or None.

    Raises:
        ValueError: if one is out of range.
    """
    improvement = check_number(min_improvement, "min_improvement")
    if improvement == math.inf:
        raise ValueError("min_improvement must be finite, got inf.")
    limits = (
        _limit(max_patience, "max_patience"),
        _limit(max_patience_steps, "max_patience_steps"),
        np.asarray(improvement, default_float()),
        _limit(math.inf if max_steps is None else max_steps, "max_steps"),
        _limit(max_skipped, "max_skipped"),
    )
    # All at once: one by one would take a millisecond. By way of NumPy, for that compiles nothing.
    return Limits(*jax.device_put(limits))


def check_ema(ema: Any) -> Array | None:
    """`check_weight_of_past`, or None for no mean."""
    return None if ema is None else check_weight_of_past(ema, "ema")


def check_weight_of_past(value: Any, name: str) -> Array:
    """The weight of the past in a running mean, as an array.

    Raises:
        ValueError: unless it is at least 0 and less than 1.
    """
    if check_number(value, name) >= 1:
        raise ValueError(f"{name} must be less than 1, such as 0.99, got {value!r}.")
    return jnp.asarray(np.asarray(value, default_float()))


def check_number(value: Any, name: str) -> float:
    """`value` as a float of at least 0, infinity included.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value >= 0:
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}.")
    return float(value)


def _directory(path):
    path = os.fsdecode(path)
    if not path.strip():
        raise ValueError(f"checkpoint must name a directory, got {path!r}. Leave it out for a fit without.")
    return path


def _limit(value, name):
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return np.asarray(NO_LIMIT if value == math.inf else min(check_count(value, name, 0), NO_LIMIT), np.int32)
