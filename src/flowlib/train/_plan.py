"""What a fit is given, and a fit that is ready to run, whatever its data are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Array

from flowlib.train._state import TrainState


class Given(NamedTuple):
    """The arguments of a fit that are about its distribution and data, as the user gave them.

    `units(dist, arrays, weights)` gives the function that fills the units of the distribution.
    """

    dist: Any
    data: Any
    loss_fn: Callable[..., Array]
    units: Callable[..., Any]
    batch_size: int
    weights: Any = None
    val_data: Any = None
    val_weights: Any = None
    val_prop: Any = 0.1
    steps_per_epoch: Any = None


@dataclass(frozen=True)
class FitPlan:
    """What `fit_to_data` needs to know of its data.

    Attributes:
        static: the tree less its trainable leaves, in the units of the data.
        state: where the fit begins.
        validated: whether there are rows for validation.
        settings: what the data are, by the names that messages use.
        dispatch: gives, for `static`, the function that runs epochs.
        longest: the most epochs in a dispatch.
        sample: rows to look for faults with: all there are, or some.
        steps_per_epoch: None if that is not known.
        start: the trainable leaves as they are before the fit, which gives up those of `state`.
    """

    static: Any
    state: TrainState
    validated: bool
    settings: dict[str, Any]
    dispatch: Callable[[Any], Callable]
    longest: int
    sample: tuple[Array, ...]
    steps_per_epoch: int | None
    start: Any
