"""Which coordinates the parameters of a transformer are made from: a flow by the name of its kind."""

from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_args

from jaxtyping import Array

from flowlib.bijections import Gradient
from flowlib.flows._coupling import coupling_flow
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow

Kind = Literal["coupling", "autoregressive"]


class LayerOptions(TypedDict, total=False):
    """The arguments that `coupling_flow` and `masked_autoregressive_flow` have in common, but base and transformer."""

    cond_dim: int | None
    flow_layers: int
    nn_width: int
    nn_depth: int
    nn_activation: Callable
    mixing: Mixing
    invert: bool
    embedding: Callable[[Array], Array] | None
    raw_cond_shape: tuple[int, ...] | None
    gradient: Gradient
    support: Any


def check_kind(kind: Kind) -> Kind:
    """The name as given.

    Raises:
        ValueError: if it is none of `Kind`.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}.")
    return kind


def flow_of_kind(kind: Kind, *args: Any, **options: Any) -> Flow:
    """A coupling or a masked autoregressive flow."""
    return (coupling_flow if check_kind(kind) == "coupling" else masked_autoregressive_flow)(*args, **options)
