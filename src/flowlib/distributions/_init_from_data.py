"""Flows whose parameters are set from a first batch of data."""

import math
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike

from flowlib._arrays import is_concrete
from flowlib._module import peel
from flowlib._run_once import run_once
from flowlib.bijections import asks_for_data, initialise
from flowlib.distributions._dequantized import Dequantized
from flowlib.distributions._distribution import AbstractDistribution, as_rows, draw_batch, validated
from flowlib.distributions._transformed import AbstractTransformed

T = TypeVar("T", bound=AbstractDistribution)


def init_from_data(flow: T, x: ArrayLike, condition: ArrayLike | None = None) -> T:
    """The flow with each `ActNorm` set so that this batch comes out of it with mean 0 and standard deviation 1.

    From the data to the base, as in `log_prob`: each layer sees what the layers before it, already set, make of the
    batch. Bijections with an `_init_from_data` of their own take part too; frozen parts stay. It is a pure function
    whose result is in the arrays alone, so that loading a flow never repeats it. Costs one pass, as `log_prob`.

    Rows that are not finite, or that a layer does not reach, do not count. A constant channel gets the scale 1. A flow
    inside a `Dequantized` sees whole numbers somewhere in their cells, as in a fit, but in the same places each time.

    A fit that puts the units of its data into the flow does this by itself. Call it before a fit of a flow
    that keeps the units it has: one of images, or one that is fitted with `standardise=False`.

    Args:
        flow: a `Transformed`, or a `Dequantized` one.
        x: events, of shape `(*batch, *shape)`, two at least; some hundreds are enough.
        condition: conditions, of shape `(*batch, *cond_shape)`; None if unconditional.

    Raises:
        TypeError: if the flow is neither, or x or condition does not hold real numbers.
        ValueError: if shapes do not match, a needed condition is missing or one is given that cannot be used, or
            fewer than two rows are finite.

    References:
        Kingma and Dhariwal 2018, section 3.1 (arXiv:1807.03039).
    """
    inner = peel(flow.dist) if isinstance(flow, Dequantized) else flow
    if not isinstance(inner, AbstractTransformed):
        raise TypeError(f"init_from_data expected a Transformed, got {type(inner).__name__}.")
    x, condition, *shapes = validated(flow, x, condition, flow.shape)
    _check_rows(flow, x, condition, *shapes)
    if not asks_for_data(flow):
        return flow
    return jax.tree.map(_like, _initialised(flow, x, condition, *shapes), flow)


def _check_rows(flow, x, condition, event_shape, batch):
    n = math.prod(batch)
    if n < 2:
        raise ValueError(f"init_from_data expected at least 2 rows of x, got {n}.")
    if not (is_concrete(x) and is_concrete(condition)):
        return
    finite = _is_finite(np.asarray(x), event_shape)
    if condition is not None:
        finite = finite & _is_finite(np.asarray(condition), flow.cond_shape)
    n = int(np.broadcast_to(finite, batch).sum())
    if n < 2:
        raise ValueError(f"init_from_data expected at least 2 rows of finite numbers, got {n}.")


def _is_finite(values, event_shape):
    axes = tuple(range(values.ndim - len(event_shape), values.ndim))
    return (np if isinstance(values, np.ndarray) else jnp).isfinite(values).all(axis=axes)


@run_once
def _initialised(flow, x, condition, event_shape, batch):
    flow, x, condition = as_rows(flow, x, condition, event_shape, batch)
    if condition is not None:
        finite = jnp.broadcast_to(_is_finite(condition, flow.cond_shape), len(x))
        x = jnp.where(finite.reshape(-1, *[1] * len(event_shape)), x, jnp.nan)
    return _set(flow, x, condition)


def _set(dist, x, condition):
    if isinstance(dist, Dequantized):
        inner = _set(dist.dist, _in_cells(dist, x), condition)
        return eqx.tree_at(lambda dist: dist.dist, dist, inner)
    if not isinstance(dist, AbstractTransformed):
        # A base without layers, or what is frozen as a whole.
        return dist
    bijection, z = initialise(dist.bijection, x, condition, inverse=True)
    base = _set(dist.base_dist, z, condition)
    return eqx.tree_at(lambda dist: (dist.bijection, dist.base_dist), dist, (bijection, base))


def _in_cells(dist: Dequantized, x: Array) -> Array:
    key = jr.key(0)
    if dist.noise is None:
        # Never 0, at which an open cell ends.
        places = jr.uniform(key, x.shape, x.dtype, minval=jnp.finfo(x.dtype).eps)
    else:
        places = draw_batch(dist.noise, key, len(x), x).astype(x.dtype)
    # The sum may be rounded up to the next cell.
    return jnp.where(dist.support.mask, jnp.minimum(x + places, jnp.nextafter(x + 1, x)), x)


def _like(new, old):
    """In the dtype and the kind of array that the flow had."""
    if not (eqx.is_array(old) or isinstance(old, np.ndarray)):
        return old
    new = jnp.asarray(new, old.dtype)
    return np.asarray(new) if isinstance(old, np.ndarray) and is_concrete(new) else new
