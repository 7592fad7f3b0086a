"""Broadcasting inside of the library where the user has made it an error."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def broadcasting(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, inside of which arrays of unlike ranks broadcast, whatever `jax_numpy_rank_promotion` is.

    The setting is there to find mistakes in the code of the one who set it.
    """

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # Not entered without need: to a cache of compiled programs another context is another program.
        config: Any = jax.config
        if config.jax_numpy_rank_promotion == "allow":
            return fn(*args, **kwargs)
        with jax.numpy_rank_promotion("allow"):
            return fn(*args, **kwargs)

    return run
