"""Bernstein polynomial flows."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib.bijections import BernsteinPolynomial
from flowlib.distributions import AbstractDistribution
from flowlib.flows._kind import Kind, LayerOptions, flow_of_kind
from flowlib.flows._tail import Flow


def bernstein_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "autoregressive",
    degree: int = 16,
    interval: float | tuple[float, float] = 3.0,
    **options: Unpack[LayerOptions],
) -> Flow:
    """A Bernstein polynomial flow: each coordinate goes through an increasing polynomial made by a network.

    A sum of positive terms on the interval, exact to rounding at every degree, and straight lines outside. One
    direction is a network pass a layer; the other solves for each polynomial, and with kind="autoregressive" for one
    coordinate after another. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        degree: of the polynomials, at least 4.
        interval: (lower, upper), or one number b for (-b, b), on which they act; values and slopes at its ends are
            trained. In a wider one the same degree bends less sharply.
        **options: of `coupling_flow` and `masked_autoregressive_flow`: `cond_dim`, `flow_layers` (here 5 if not given),
            `nn_width`, `nn_depth` (2), `nn_activation`, `mixing`, `invert`, `embedding`, `raw_cond_shape`, `gradient`.

    Raises:
        ValueError: if a size or the interval is out of range, `kind` is no name of one, an option is wrong or
            `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Ramasinghe, Fernando, Khan and Barnes 2021, Robust normalizing flows using Bernstein-type polynomials
        (arXiv:2102.03509).
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=BernsteinPolynomial(degree=degree, interval=interval, edges="free"),
        **{"flow_layers": 5, "nn_depth": 2, **options},
    )
