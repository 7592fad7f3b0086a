"""Flows with heavy tails."""

from typing import Unpack

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from flowlib.bijections import Chain, HeavyTails, InDataUnits
from flowlib.distributions import AbstractDistribution, Transformed
from flowlib.flows._neural_spline import SplineOptions, neural_spline_flow
from flowlib.flows._tail import Flow, on_support, vector_dim, without_units


def heavy_tailed_flow(
    key: PRNGKeyArray, *, base_dist: AbstractDistribution, weight: float = 0.1, **options: Unpack[SplineOptions]
) -> Flow:
    """A neural spline flow whose two tails in each coordinate are trained: P(|x_i| > r) falls like r^(-1/weight).

    No flow of Lipschitz layers on a normal base has heavier tails than normal ones. Here a last layer,
    `flowlib.bijections.HeavyTails`, makes them, with a weight for each side of each coordinate; it costs O(dim) both
    ways. It starts as that layer alone, at the weight given.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors with normal tails.
        weight: the weight at the start, above 0.001; 1/weight is the degrees of freedom of a Student t distribution
            with such tails. Defaults to 0.1.
        **options: of `neural_spline_flow`: `cond_dim`, `flow_layers`, `knots`, ...

    Raises:
        ValueError: if the weight or an option is out of range, or `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Hickling and Prangle 2024, Flexible tails for normalizing flows (arXiv:2406.16971).
    """
    weights = jnp.full(vector_dim(base_dist), weight)
    flow = neural_spline_flow(key, base_dist=base_dist, **{**options, "support": None})
    chain = Chain([without_units(flow), HeavyTails(weights, weights)]).merge_chains()
    return on_support(Transformed(base_dist, InDataUnits.unset(chain)), options.get("support"))
