"""The events between the layers of a flow."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import float_dtype
from flowlib._module import Module, unwrap_own
from flowlib.bijections import LayerSteps, layer_steps
from flowlib.distributions._distribution import density_batch, draw_with_density_batch, in_range


class LayerValues(Module):
    """Events at each stage of a flow, from the base to the data, and their log densities there.

    Stage k has the distribution of the base pushed through the first k layers.

    Attributes:
        values: the events at each stage, of shape `(*batch, *event shape of the stage)`; one array more than layers.
        log_probs: their log densities under the distribution of the stage, of shape `(len(values), *batch)`.
        names: "base", and then a short name of each layer.
    """

    values: tuple[Array, ...]
    log_probs: Float[Array, "stages ..."]
    names: tuple[str, ...] = eqx.field(static=True)


# The next two functions are compiled. They give several stages in one array, on the axis after the batch: as an output
# of its own each stage would be one more kernel to compile.


def values_of_data(dist: Any, x: Array, condition: Array | None) -> tuple[list[Array], Any]:
    """The events between the layers for a batch of data; the log densities and the names. From the base to the data."""
    dist = unwrap_own(dist)
    safe, inside = jax.vmap(dist.support.guard)(in_range(dist.support, x))
    steps = layer_steps(dist.bijection, safe, condition, inverse=True)
    at_base = density_batch(dist.base_dist, steps[-1].events[-1], condition)
    log_dets = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(step.log_dets for step in steps))
    valid = log_dets.valid & inside
    changes = jax.lax.cumsum(jnp.where(valid, log_dets.value, -jnp.inf), reverse=True)
    # From the data on, whether an event is reached by the layers so far; the data are.
    reached = jnp.concatenate([jnp.ones_like(valid[:1]), jax.lax.cumprod(valid.astype(jnp.int32)) == 1])
    log_probs = jnp.where(reached, jnp.concatenate([at_base + changes, at_base[None]]), jnp.nan)

    stacks, stages = [x[None]], 1
    for step in steps:
        ok = reached[stages : stages + len(step.names)]
        stages += len(step.names)
        events = jnp.where(ok.reshape(*ok.shape, *[1] * (step.events.ndim - 2)), step.events, jnp.nan)
        stacks.append(events[::-1])
    return _batch_first(stacks[::-1]), (log_probs[::-1].T, _names(steps)[::-1])


def values_of_draws(dist: Any, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[list[Array], Any]:
    """The same for `size` draws of the base."""
    dist = unwrap_own(dist)
    z, log_prob = draw_with_density_batch(dist.base_dist, key, size, condition)
    z = z.astype(float_dtype(dist.bijection, dist.base_dist))
    steps = layer_steps(dist.bijection, z, condition)
    log_dets = jnp.concatenate([step.log_dets.value for step in steps])
    log_prob = log_prob.astype(log_dets.dtype)
    log_probs = jnp.concatenate([log_prob[None], log_prob - jax.lax.cumsum(log_dets)])
    return _batch_first([z[None], *(step.events for step in steps)]), (log_probs.T, _names(steps))


def by_stage(result: tuple[list[Array], Any]) -> LayerValues:
    """What either function gave, with an array for each stage."""
    stacks, (log_probs, names) = result
    batch = (slice(None),) * (log_probs.ndim - 1)
    values = [stack[(*batch, i)] for stack in stacks for i in range(stack.shape[len(batch)])]
    return LayerValues(tuple(values), jnp.moveaxis(log_probs, -1, 0), ("base", *names))


def _batch_first(stacks: list[Array]) -> list[Array]:
    return [jnp.moveaxis(stack, 0, 1) for stack in stacks]


def _names(steps: Sequence[LayerSteps]) -> tuple[str, ...]:
    return tuple(name for step in steps for name in step.names)
