"""A pass through a composed bijection in which the log-dets of some layers are estimated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from flowlib._module import peel, unwrap_own
from flowlib._ranks import broadcasting
from flowlib.bijections._bijection import AbstractBijection, backward_batch, forward_batch
from flowlib.bijections._chain import Chain
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._invert import Invert
from flowlib.bijections._scan import Scan


class EstimatedPass(NamedTuple):
    """Rows after a pass, estimates of their log-dets, which rows were valid, and what else the pass adds to a loss."""

    x: Float[Array, "rows *shape"]
    log_det: Float[Array, " rows"]
    valid: Bool[Array, " rows"]
    penalty: Float[Array, " rows"]


class LayerEstimate(NamedTuple):
    """How one kind of layer is taken with an estimate of its log-det.

    `take(layer, x, condition, key, inverse=...)` is called with rows, and with a condition for each, one for all, or
    None.
    """

    kind: type[AbstractBijection]
    take: Callable[..., EstimatedPass]


def holds_layer(bijection: Any, kind: type[AbstractBijection]) -> bool:
    """Whether `pass_with_estimates` finds a layer of this class in a bijection."""
    bijection = peel(bijection)
    if isinstance(bijection, Chain):
        return any(holds_layer(part, kind) for part in bijection)
    if isinstance(bijection, Scan | EmbedCondition | InDataUnits | Invert):
        return holds_layer(bijection.bijection, kind)
    return isinstance(bijection, kind)


@broadcasting
def pass_with_estimates(
    bijection: AbstractBijection,
    x: Float[Array, "rows *shape"],
    condition: Array | None,
    key: PRNGKeyArray,
    estimate: LayerEstimate,
    *,
    inverse: bool = False,
) -> EstimatedPass:
    """`forward_batch`, with `inverse` `backward_batch`, with the log-dets of the layers of one kind estimated.

    Such layers are found in chains, scans and inverses, under embeddings and in units of data, and get keys of their
    own; all else is taken exactly. A `Scan` is scanned, so that its layers are compiled once.
    """
    bijection = unwrap_own(bijection)
    condition = None if bijection.cond_shape is None else condition
    if isinstance(bijection, estimate.kind):
        return estimate.take(bijection, x, condition, key, inverse=inverse)
    if not holds_layer(bijection, estimate.kind):
        return _exact(*(backward_batch if inverse else forward_batch)(bijection, x, condition))
    if isinstance(bijection, Scan):
        return _scanned(bijection, x, condition, key, estimate, inverse)
    if isinstance(bijection, Chain):
        result = EstimatedPass(x, jnp.zeros(len(x), x.dtype), jnp.ones(len(x), bool), jnp.zeros(len(x), x.dtype))
        for i, part in enumerate(reversed(bijection.bijections) if inverse else bijection.bijections):
            one = pass_with_estimates(part, result.x, condition, jr.fold_in(key, i), estimate, inverse=inverse)
            result = _then(result, one)
        return result
    if isinstance(bijection, Invert):
        return pass_with_estimates(bijection.bijection, x, condition, key, estimate, inverse=not inverse)
    if isinstance(bijection, EmbedCondition) and condition is not None:
        condition = bijection._embed_batch(condition)
        return pass_with_estimates(bijection.bijection, x, condition, key, estimate, inverse=inverse)
    assert isinstance(bijection, InDataUnits)
    condition = bijection._standardise_condition(condition)
    if inverse:
        units = _exact(*bijection._from_units(x, batched=True))
        return _then(units, pass_with_estimates(bijection.bijection, units.x, condition, key, estimate, inverse=True))
    inner = pass_with_estimates(bijection.bijection, x, condition, key, estimate)
    return _then(inner, _exact(*bijection._to_units(inner.x, batched=True)))


def _exact(x, log_det) -> EstimatedPass:
    return EstimatedPass(x, log_det.value, log_det.valid, jnp.zeros_like(log_det.value))


def _then(before: EstimatedPass, after: EstimatedPass) -> EstimatedPass:
    valid = before.valid & after.valid
    return EstimatedPass(after.x, before.log_det + after.log_det, valid, before.penalty + after.penalty)


def _scanned(scan, x, condition, key, estimate, inverse):
    arrays, rest = eqx.partition(scan.bijection, eqx.is_array)

    def body(x, layer):
        layer_arrays, layer_key = layer
        one = eqx.combine(layer_arrays, rest)
        taken = pass_with_estimates(one, x, condition, layer_key, estimate, inverse=inverse)
        return taken.x, taken[1:]

    # Rebuilding is for layers that are taken exactly: these are computed once more.
    if scan.gradient != "store":
        body = jax.checkpoint(body, prevent_cse=False)
    x, (log_dets, valid, penalties) = jax.lax.scan(body, x, (arrays, jr.split(key, len(scan))), reverse=inverse)
    return EstimatedPass(x, log_dets.sum(0), valid.all(0), penalties.sum(0))
