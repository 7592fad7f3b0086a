"""Flows on spheres."""

from typing import Unpack

from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import Chain, InDataUnits, Invert, Stereographic
from flowlib.distributions import Transformed, UniformSphere
from flowlib.flows._neural_spline import SplineOptions, neural_spline_flow
from flowlib.flows._tail import refuse_support, without_units


def sphere_flow(key: PRNGKeyArray, *, dim: int, **options: Unpack[SplineOptions]) -> Transformed:
    """A neural spline flow of unit vectors: directions in the plane (dim = 2), in space (dim = 3), and beyond.

    The base is the uniform distribution on the sphere, projected onto dim - 1 real numbers, where the splines act, and
    back (`flowlib.bijections.Stereographic`, O(dim) both ways); the flow starts as that. A density is by area. The
    pole (0, ..., 0, 1), which the projection cannot reach, has none, and around it splines that end at b leave a cap
    where (1 + x_dim) / (1 - x_dim) > b^2 to the matrices alone: turn the data so that few lie there.

    Args:
        key: a PRNG key.
        dim: the length of a vector, at least 2.
        **options: of `neural_spline_flow`, all but `base_dist`: `cond_dim`, `flow_layers`, `knots`, ... The `interval`
            is 5 if not given.

    Raises:
        ValueError: if `dim` is below 2, or an option is out of range.
        TypeError: if `key` is of the wrong type.

    References:
        Gemici, Rezende and Mohamed 2016, Normalizing flows on Riemannian manifolds (arXiv:1611.02304).
    """
    refuse_support(options, "sphere_flow")
    n = check_count(dim, "dim", 2) - 1
    base, project = UniformSphere(n + 1), Stereographic(n)
    in_the_plane = Transformed(base, Invert(project))
    flow = neural_spline_flow(key, base_dist=in_the_plane, **{"interval": 5.0, **options})
    chain = Chain([Invert(project), without_units(flow)]).merge_chains()
    # A fit sets the units of conditions alone: points in the plane stay about its middle.
    return Transformed(base, InDataUnits.unset(chain, to_data=project, columns=False))
