"""Compiling what runs once, such as a constructor: quickly rather than well."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowlib._ranks import broadcasting


def run_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit`, on a CPU without XLA's optimisations, which do not pay for a program that runs once.

    Under another transformation it is `eqx.filter_jit`, for JAX takes such options for a whole program only.
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
        return (well if nested or jax.default_backend() != "cpu" else quickly)(*args)

    return call
