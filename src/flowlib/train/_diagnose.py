"""Whose fault it was: which row or which parameter made a fit stop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from flowlib.train._losses import AbstractRowLoss

_ROWS = 1000


def culprit(loss_fn: Callable[..., Array], params: Any, static: Any, arrays: tuple[Array, ...]) -> str:
    """The first row whose loss is not finite, or else the first such gradient, as further sentences; or nothing.

    Looked for at the parameters given, which are the last finite ones, and with a key of its own.
    """
    return _first_at_fault(loss_fn, params, static, arrays) + narrow_floats(params)


def narrow_floats(params: Any) -> str:
    """A sentence about float16, if there are such parameters; or nothing."""
    if not any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(params)):
        return ""
    return (
        " There are parameters in float16, where Adam's smallest numbers are 0 and 65504 is the largest: "
        "cast them to float32, or to bfloat16."
    )


def _first_at_fault(loss_fn, params, static, arrays):
    if not isinstance(loss_fn, AbstractRowLoss):
        return ""
    for start in range(0, len(arrays[0]), _ROWS):
        batch = [array[start : start + _ROWS] for array in arrays]
        if len(batch[0]) < loss_fn.min_rows:
            continue
        values, bad_leaves = jax.device_get(_look(loss_fn, params, static, batch))
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            return f" The loss of row {start + bad[0]} (counted from zero) is {values[bad[0]]} there."
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        names = [name for name, is_bad in zip(paths, bad_leaves, strict=True) if is_bad]
        if names:
            return f" The gradient of {names[0]} is not finite there, on rows {start} to {start + len(batch[0]) - 1}."
    return ""


@eqx.filter_jit
def _look(loss_fn, params, static, batch):
    def mean(params):
        values = loss_fn.per_row(params, static, *batch, key=jr.key(0))
        return values.mean(), values

    grads, values = jax.grad(mean, has_aux=True)(params)
    return values, [~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]
