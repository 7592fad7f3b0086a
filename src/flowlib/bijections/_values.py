"""Events after a composed bijection, the same with log-dets and without, where these cost much more than events."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float

from flowlib.bijections._bijection import AbstractBijection, LogDet, backward_batch, forward, forward_batch
from flowlib.bijections._continuous import ContinuousFlow
from flowlib.bijections._pass_with_estimates import EstimatedPass, LayerEstimate, holds_layer, pass_with_estimates


def values_batch(
    bijection: AbstractBijection,
    x: Float[Array, "rows *shape"],
    condition: Array | None = None,
    *,
    inverse: bool = False,
) -> tuple[Float[Array, "rows *out_shape"], Bool[Array, " rows"]]:
    """The events of `forward_batch`, with `inverse` of `backward_batch`, and which of them are valid.

    A `ContinuousFlow` is solved without its divergence.
    """
    # Of other layers XLA leaves out what is not used. A solver's steps depend on all that it solves for.
    if not holds_layer(bijection, ContinuousFlow):
        x, log_det = (backward_batch if inverse else forward_batch)(bijection, x, condition)
        return x, log_det.valid
    estimate = LayerEstimate(ContinuousFlow, _take)
    # Nothing is drawn.
    taken = pass_with_estimates(bijection, x, condition, jr.key(0), estimate, inverse=inverse)
    return taken.x, taken.valid


def value(
    bijection: AbstractBijection, x: Float[Array, "*shape"], condition: Array | None = None
) -> Float[Array, "*out_shape"]:
    """The event of `forward`; a `ContinuousFlow` is solved without its divergence."""
    if not holds_layer(bijection, ContinuousFlow):
        return forward(bijection, x, condition)[0]
    return values_batch(bijection, x[None], condition)[0][0]


def value_and_log_det(
    bijection: AbstractBijection, x: Float[Array, "*shape"], condition: Array | None = None
) -> tuple[Float[Array, "*out_shape"], LogDet]:
    """`forward`, with the event of `value`, for which a `ContinuousFlow` is solved once more."""
    y, log_det = forward(bijection, x, condition)
    return value(bijection, x, condition) if holds_layer(bijection, ContinuousFlow) else y, log_det


def values_and_log_det_batch(
    bijection: AbstractBijection, x: Float[Array, "rows *shape"], condition: Array | None = None
) -> tuple[Float[Array, "rows *out_shape"], LogDet]:
    """`forward_batch`, with the events of `values_batch`, for which a `ContinuousFlow` is solved once more."""
    y, log_det = forward_batch(bijection, x, condition)
    return values_batch(bijection, x, condition)[0] if holds_layer(bijection, ContinuousFlow) else y, log_det


def _take(layer: Any, x: Array, condition: Array | None, key: Any, *, inverse: bool) -> EstimatedPass:
    zeros = jnp.zeros(len(x), x.dtype)
    return EstimatedPass(layer.values_batch(x, condition, inverse=inverse), zeros, jnp.ones(len(x), bool), zeros)
