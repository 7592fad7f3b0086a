"""Unconstrained monotonic flows."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib.bijections import MonotoneIntegral
from flowlib.distributions import AbstractDistribution
from flowlib.flows._kind import Kind, LayerOptions, flow_of_kind
from flowlib.flows._tail import Flow


def unconstrained_monotonic_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "autoregressive",
    units: int = 16,
    nodes: int = 32,
    **options: Unpack[LayerOptions],
) -> Flow:
    """An unconstrained monotonic flow: each coordinate goes through the integral of a positive network of it.

    The integral is a Gauss-Legendre quadrature on (-5, 5), with straight lines outside; the integration constant and
    all weights are made by the conditioner (in the paper the positive network has weights of its own and sees the
    conditioner's output). One direction is a network pass and a quadrature a layer; the other solves for each
    coordinate, and with kind="autoregressive" for one after another. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        units: the hidden units of the positive network.
        nodes: the points of the quadrature; more allow steeper maps.
        **options: of `coupling_flow` and `masked_autoregressive_flow`: `cond_dim`, `flow_layers` (here 5 if not given),
            `nn_width`, `nn_depth` (2), `nn_activation`, `mixing`, `invert`, `embedding`, `raw_cond_shape`, `gradient`.

    Raises:
        ValueError: if a size is out of range, `kind` is no name of one, an option is wrong or `base_dist` has no
            vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Wehenkel and Louppe 2019, Unconstrained monotonic neural networks (arXiv:1908.05164).
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=MonotoneIntegral(units, nodes),
        **{"flow_layers": 5, "nn_depth": 2, **options},
    )
