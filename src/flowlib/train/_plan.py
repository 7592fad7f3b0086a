"""A fit that is ready to run, whatever its data are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from flowlib.train._state import TrainState


@dataclass(frozen=True)
class FitPlan:
    """What `fit_to_data` needs to know of its data.

    Attributes:
        static: the tree less its trainable leaves, in the units of the data.
        state: where the fit begins.
        validated: whether there are rows for validation.
        settings: gives the fingerprints of what the data are.
        dispatch: gives, for `static`, the function that runs epochs.
        longest: the most epochs in a dispatch.
        sample: rows to look for faults with: all there are, or some.
        steps_per_epoch: None if that is not known.
    """

    static: Any
    state: TrainState
    validated: bool
    settings: Callable[[], dict[str, str]]
    dispatch: Callable[[Any], Callable]
    longest: int
    sample: tuple[Array, ...]
    steps_per_epoch: int | None
