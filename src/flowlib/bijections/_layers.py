"""A composed bijection as the list of its layers."""

import equinox as eqx

from flowlib._module import peel
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._chain import Chain
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._elementwise import Identity
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._invert import Invert
from flowlib.bijections._scan import Scan
from flowlib.parameters import count_parameters


def layers_of(bijection: AbstractBijection) -> tuple[AbstractBijection, ...]:
    """The layers whose `Chain` equals `bijection`: chains spliced, scans unstacked, inverses turned around.

    The layers of a `Scan` stay whole, also where each is a chain itself. Under an `EmbedCondition`
    each conditional layer gets the embedding, under an `InDataUnits` the standardised condition; of that
    the last layer brings the units.
    """
    # `layer_steps`, `pass_with_estimates`, `holds_layer`, `continuous_part`, `rebuild_drift` and `initialise` take a
    # bijection apart in the same way: change all of them.
    bijection = peel(bijection)
    if isinstance(bijection, Chain):
        return tuple(layer for part in bijection for layer in layers_of(part))
    if isinstance(bijection, Scan):
        return tuple(bijection)
    if isinstance(bijection, EmbedCondition):
        inner = layers_of(bijection.bijection)
        return tuple(
            layer if layer.cond_shape is None else EmbedCondition(layer, bijection.embedding_net, bijection.cond_shape)
            for layer in inner
        )
    if isinstance(bijection, InDataUnits):
        inner = layers_of(bijection.bijection)
        return (*(_with_standard_condition(layer, bijection) for layer in inner), _units_alone(bijection))
    if isinstance(bijection, Invert):
        inner = layers_of(bijection.bijection)
        return tuple(layer.bijection if isinstance(layer, Invert) else Invert(layer) for layer in reversed(inner))
    return (bijection,)


def _with_standard_condition(layer: AbstractBijection, units: InDataUnits) -> AbstractBijection:
    if layer.cond_shape is None or units.cond_location is None:
        return layer
    conditions = (units.cond_location, units.cond_log_scale)
    layer = InDataUnits(layer, cond_location=0.0, labels=units.labels)
    return eqx.tree_at(lambda units: (units.cond_location, units.cond_log_scale), layer, conditions)


def _units_alone(units: InDataUnits) -> AbstractBijection:
    shape = peel(units.bijection).out_shape
    alone = InDataUnits(
        Identity(shape), to_data=units.to_data, columns=True if units.columns is None else units.columns
    )
    values = (units.location, units.log_scale)
    return eqx.tree_at(lambda units: (units.location, units.log_scale), alone, values)


def describe(bijection: AbstractBijection) -> str:
    """One readable line: the names of a bijection's parts and its number of trainable parameters."""
    return f"{_names(bijection)} ({count_parameters(bijection):,} parameters)"


def _names(bijection: AbstractBijection) -> str:
    bijection = peel(bijection)
    if isinstance(bijection, Invert):
        return f"Invert({_names(bijection.bijection)})"
    if isinstance(bijection, EmbedCondition):
        return f"EmbedCondition({_names(bijection.bijection)})"
    if isinstance(bijection, InDataUnits):
        return f"InDataUnits({_names(bijection.bijection)})"
    if isinstance(bijection, Chain):
        return f"Chain({', '.join(_names(part) for part in bijection)})"
    return type(bijection).__name__
