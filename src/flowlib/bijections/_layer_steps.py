"""A composed bijection taken layer by layer."""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array

from flowlib._module import peel, unwrap_own
from flowlib.bijections._bijection import AbstractBijection, LogDet, backward_batch, forward_batch
from flowlib.bijections._chain import Chain
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._invert import Invert
from flowlib.bijections._numerical_inverse import NumericalInverse
from flowlib.bijections._permute import Flip, Permute
from flowlib.bijections._scan import Scan


class LayerSteps(NamedTuple):
    """Layers taken one after another: their short names, and stacked the batches of events after each and log-dets."""

    names: tuple[str, ...]
    events: Array
    log_dets: LogDet


def layer_steps(
    bijection: AbstractBijection, x: Array, condition: Array | None = None, *, inverse: bool = False
) -> list[LayerSteps]:
    """`forward_batch`, with `inverse` `backward_batch`, that keeps the events after each of the layers of `layers_of`.

    In the order in which they are taken. A `Scan` is scanned, so that its layers are compiled once.
    """
    bijection = unwrap_own(bijection)
    if isinstance(bijection, Chain):
        steps: list[LayerSteps] = []
        for part in reversed(bijection.bijections) if inverse else bijection.bijections:
            steps += layer_steps(part, x, condition, inverse=inverse)
            x = steps[-1].events[-1]
        return steps
    if isinstance(bijection, Scan):
        return [_scan_steps(bijection, x, condition, inverse)]
    if isinstance(bijection, EmbedCondition) and condition is not None:
        return layer_steps(bijection.bijection, x, bijection._embed_batch(condition), inverse=inverse)
    if isinstance(bijection, InDataUnits):
        return _unit_steps(bijection, x, condition, inverse)
    if isinstance(bijection, Invert):
        return layer_steps(bijection.bijection, x, condition, inverse=not inverse)
    return [_one(bijection, _take(bijection, x, condition, inverse))]


def _scan_steps(scan, x, condition, inverse):
    arrays, rest = eqx.partition(scan.bijection, eqx.is_array)

    def body(x, layer_arrays):
        x, log_det = _take(eqx.combine(layer_arrays, rest), x, condition, inverse)
        return x, (x, log_det)

    _, taken = jax.lax.scan(body, x, arrays, reverse=inverse)
    events, log_dets = jax.tree.map(lambda leaf: leaf[::-1], taken) if inverse else taken
    return LayerSteps((_short_name(scan.bijection),) * len(scan), events, log_dets)


def _unit_steps(units, x, condition, inverse):
    condition = units._standardise_condition(condition)
    if inverse:
        first = _one(units, units._from_units(x, batched=True))
        return [first, *layer_steps(units.bijection, first.events[0], condition, inverse=True)]
    steps = layer_steps(units.bijection, x, condition)
    return [*steps, _one(units, units._to_units(steps[-1].events[-1], batched=True))]


def _one(bijection, taken):
    return LayerSteps((_short_name(bijection),), *jax.tree.map(lambda leaf: leaf[None], taken))


def _take(bijection, x, condition, inverse):
    return (backward_batch if inverse else forward_batch)(bijection, x, condition)


def _short_name(bijection: AbstractBijection) -> str:
    """The name of a layer's class, without what wraps it and the permutation beside it."""
    bijection = peel(bijection)
    if isinstance(bijection, Invert | EmbedCondition | NumericalInverse):
        return _short_name(bijection.bijection)
    if isinstance(bijection, Chain):
        parts = [part for part in bijection if not isinstance(peel(part), Flip | Permute)]
        return ", ".join(map(_short_name, parts or list(bijection)[:1]))
    return type(bijection).__name__
