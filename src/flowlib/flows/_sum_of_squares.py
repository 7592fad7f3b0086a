"""Sum-of-squares polynomial flows."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib.bijections import SumOfSquares
from flowlib.distributions import AbstractDistribution
from flowlib.flows._kind import Kind, LayerOptions, flow_of_kind
from flowlib.flows._tail import Flow


def sum_of_squares_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "autoregressive",
    polynomials: int = 3,
    degree: int = 4,
    **options: Unpack[LayerOptions],
) -> Flow:
    """A sum-of-squares flow: each coordinate goes through the integral of a sum of squared polynomials.

    Every increasing polynomial is such an integral, here on (-3, 3); outside it goes on in straight lines. A network
    makes the coefficients. One direction is a network pass a layer; the other solves for each polynomial, and with
    kind="autoregressive" for one coordinate after another. Starts near the identity: |log dy/dx| < 0.01 a layer.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        polynomials: the number of squares.
        degree: of the polynomials that are squared, L: the map has degree 2L + 1.
        **options: of `coupling_flow` and `masked_autoregressive_flow`: `cond_dim`, `flow_layers` (here 5 if not given),
            `nn_width`, `nn_depth` (2), `nn_activation`, `mixing`, `invert`, `embedding`, `raw_cond_shape`, `gradient`.

    Raises:
        ValueError: if a size is out of range, `kind` is no name of one, an option is wrong or `base_dist` has no
            vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Jaini, Selby and Yu 2019, Sum-of-squares polynomial flow (arXiv:1905.02325).
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=SumOfSquares(polynomials, degree),
        **{"flow_layers": 5, "nn_depth": 2, **options},
    )
