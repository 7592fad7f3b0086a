"""Flows on the simplex."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import InDataUnits, StickBreaking
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows._neural_spline import SplineOptions, neural_spline_flow
from flowlib.flows._tail import refuse_support, without_units


def simplex_flow(key: PRNGKeyArray, *, dim: int, **options: Unpack[SplineOptions]) -> Transformed:
    """A neural spline flow of `dim` positive parts whose sum is 1: compositions, probabilities.

    The parts are made from dim - 1 real numbers by breaking a stick (`flowlib.bijections.StickBreaking`), O(dim) both
    ways; these are standard normal at the start, and `fit_to_data` standardises them. A density is meant in the first
    dim - 1 parts, as that of SciPy's Dirichlet distribution. A part of exactly 0 has no density.

    Args:
        key: a PRNG key.
        dim: the number of parts, at least 2.
        **options: of `neural_spline_flow`, all but `base_dist`: `cond_dim`, `flow_layers`, `knots`, ...

    Raises:
        ValueError: if there are fewer parts, or an option is out of range.
        TypeError: if `key` is of the wrong type.
    """
    refuse_support(options, "simplex_flow")
    base = StandardNormal((check_count(dim, "dim", 2) - 1,))
    flow = neural_spline_flow(key, base_dist=base, **options)
    return Transformed(base, InDataUnits.unset(without_units(flow), to_data=StickBreaking(dim)))
