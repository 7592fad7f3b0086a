"""Flows of increasing vectors."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import InDataUnits, Ordered
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows._neural_spline import SplineOptions, neural_spline_flow
from flowlib.flows._tail import refuse_support, without_units


def ordered_flow(key: PRNGKeyArray, *, dim: int, **options: Unpack[SplineOptions]) -> Transformed:
    """A neural spline flow of vectors that increase: order statistics, cut points, spectra.

    The first number and the logarithms of the steps (`flowlib.bijections.Ordered`, O(dim) both ways) are standard
    normal at the start, and `fit_to_data` standardises them. Two numbers that are equal have no density.

    Args:
        key: a PRNG key.
        dim: the length of a vector.
        **options: of `neural_spline_flow`, all but `base_dist`: `cond_dim`, `flow_layers`, `knots`, ...

    Raises:
        ValueError: if `dim` is not positive, or an option is out of range.
        TypeError: if `key` is of the wrong type.
    """
    refuse_support(options, "ordered_flow")
    base = StandardNormal((check_count(dim, "dim"),))
    flow = neural_spline_flow(key, base_dist=base, **options)
    return Transformed(base, InDataUnits.unset(without_units(flow), to_data=Ordered(dim)))
