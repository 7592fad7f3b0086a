"""Which coordinates the parameters of a transformer are made from: a flow by the name of its kind."""

from typing import Any, Literal, get_args

from flowlib.distributions import Transformed
from flowlib.flows._coupling import coupling_flow
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow

Kind = Literal["coupling", "autoregressive"]


def check_kind(kind: Kind) -> Kind:
    """The name as given.

    Raises:
        ValueError: if it is none of `Kind`.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}.")
    return kind


def flow_of_kind(kind: Kind, *args: Any, **options: Any) -> Transformed:
    """A coupling or a masked autoregressive flow."""
    return (coupling_flow if check_kind(kind) == "coupling" else masked_autoregressive_flow)(*args, **options)
