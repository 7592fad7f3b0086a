"""Neural autoregressive flows."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib.bijections import MonotoneNetwork
from flowlib.distributions import AbstractDistribution
from flowlib.flows._kind import Kind, LayerOptions, flow_of_kind
from flowlib.flows._tail import Flow


def neural_autoregressive_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "autoregressive",
    units: int = 8,
    depth: int = 2,
    **options: Unpack[LayerOptions],
) -> Flow:
    """A neural autoregressive flow: each coordinate goes through a monotone network whose weights a network makes.

    The monotone networks are sigmoidal, as the paper's DSF (one hidden layer) and DDSF (more). One direction is a pass
    of both networks a layer; the other solves for each coordinate, and with kind="autoregressive" for one after
    another: take it for densities, seldom for draws. Starts near the identity: |log dy/dx| < 0.025 a layer, if
    the monotone networks have one or two layers of eight units or more.

    The conditioner makes all weights of every monotone network, some width^2 for each coordinate: few units go far. The
    paper has 5 or 10 layers of 16 units on tables.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        units: the units in each hidden layer of a monotone network.
        depth: the number of these layers; 1 for the paper's DSF.
        **options: of `coupling_flow` and `masked_autoregressive_flow`: `cond_dim`, `flow_layers` (here 5 if not given),
            `nn_width`, `nn_depth` (2), `nn_activation`, `mixing`, `invert`, `embedding`, `raw_cond_shape`, `gradient`.

    Raises:
        ValueError: if a size is out of range, `kind` is no name of one, an option is wrong or `base_dist` has no
            vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Huang, Krueger, Lacoste and Courville 2018, Neural autoregressive flows (arXiv:1804.00779).
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=MonotoneNetwork(units, depth),
        **{"flow_layers": 5, "nn_depth": 2, **options},
    )
