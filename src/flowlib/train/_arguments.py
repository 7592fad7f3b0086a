"""Checks of arguments that fits share."""

from typing import Any

import numpy as np

from flowlib._arrays import check_flag


def check_flags(**flags: Any) -> None:
    """Raise a TypeError that names the first argument that is neither True nor False."""
    for name, value in flags.items():
        check_flag(value, name)


def check_standardise(value: Any) -> None:
    """Raise a TypeError unless `standardise` is True, False or "again"."""
    if not (isinstance(value, str) and value == "again") and not isinstance(value, bool | np.bool_):
        raise TypeError(f'standardise must be True, False or "again", got {value!r}.')


def check_loss(loss_fn: Any) -> None:
    """Raise a TypeError unless a loss is a function; None stands for the default."""
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(
            f"loss_fn must be a function, such as flowlib.train.losses.MaximumLikelihoodLoss(), got {loss_fn!r}."
        )


def check_maker(make_dist: Any) -> None:
    """Raise a TypeError unless `make_dist` is a function, and no distribution."""
    if not callable(make_dist):
        raise TypeError(
            f"make_dist must be a function of a key that makes a distribution, got a {type(make_dist).__name__}. Each "
            f"member starts from a key of its own: lambda key: coupling_flow(key, ...)."
        )
