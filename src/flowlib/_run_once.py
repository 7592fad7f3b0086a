"""Compiling what runs once, such as a constructor: quickly rather than well."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowlib._ranks import broadcasting


class _Quick(threading.local):
    depth = 0


_QUICK = _Quick()


def compiles_quickly() -> bool:
    """Whether a function of `run_once` runs in this thread without optimisations."""
    return _QUICK.depth > 0


def run_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit`, on a CPU without XLA's optimisations, which do not pay for a program that runs once.

    Under another transformation it is `eqx.filter_jit`, for JAX takes such options for a whole program only.

    The function takes no derivatives inside: at that level those of stacked layers have been seen to be wrong.
    """
    well = eqx.filter_jit(function)
    options: dict[str, Any] = {"compiler_options": {"xla_backend_optimization_level": 0}}
    quickly = eqx.filter_jit(function, **options)

    @broadcasting
    @functools.wraps(function)
    def call(*args):
        # Inside jit this constant is traced too, also where no argument is.
        parts = [jnp.asarray(np.zeros(0)), *jax.tree.leaves(args)]
        nested = any(isinstance(part, Tracer) for part in parts)
        if nested or jax.default_backend() != "cpu":
            return well(*args)
        _QUICK.depth += 1
        try:
            return quickly(*args)
        finally:
            _QUICK.depth -= 1

    return call
