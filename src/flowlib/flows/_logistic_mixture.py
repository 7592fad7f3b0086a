"""Logistic mixture flows."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib.bijections import Chain, LogisticMixture
from flowlib.distributions import AbstractDistribution
from flowlib.flows._kind import Kind, LayerOptions, flow_of_kind
from flowlib.flows._tail import Flow, default_transformer


def logistic_mixture_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "coupling",
    components: int = 8,
    **options: Unpack[LayerOptions],
) -> Flow:
    """A logistic mixture flow: each coordinate goes through a mixture's distribution function and a logit.

    An affine map follows. This is the coupling layer of Flow++, for vectors; for images see `flow_plus_plus`. A
    coordinate's density may have as many modes as there are components. One direction is a network pass a layer; the
    other also solves for each coordinate, and with kind="autoregressive" for one after another. Starts near the
    identity: |log dy/dx| < 0.009 a layer with eight components or more, 0.09 with fewer.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        components: the number of logistic distributions in each mixture.
        **options: of `coupling_flow` and `masked_autoregressive_flow`: `cond_dim`, `flow_layers` (here 5 if not given),
            `nn_width`, `nn_depth` (2), `nn_activation`, `mixing`, `invert`, `embedding`, `raw_cond_shape`, `gradient`.

    Raises:
        ValueError: if a size is out of range, `kind` is no name of one, an option is wrong or `base_dist` has no
            vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Ho, Chen, Srinivas, Duan and Abbeel 2019, Flow++ (arXiv:1902.00275), section 3.2.
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=Chain([LogisticMixture(components), default_transformer()]),
        **{"flow_layers": 5, "nn_depth": 2, **options},
    )
