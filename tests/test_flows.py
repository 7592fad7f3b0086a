"""What the constructors of premade flows promise beyond the contract of a distribution."""

from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows
from flowlib.bijections import RationalQuadraticSpline
from flowlib.distributions import StandardNormal


def spline_coupling(key, **options):
    return flows.coupling_flow(key, transformer=RationalQuadraticSpline(knots=4, interval=3.0), **options)


@pytest.mark.parametrize(
    "constructor",
    [
        flows.coupling_flow,
        spline_coupling,
        flows.masked_autoregressive_flow,
        flows.block_neural_autoregressive_flow,
        flows.planar_flow,
        flows.radial_flow,
        flows.residual_flow,
        flows.sylvester_flow,
        flows.triangular_spline_flow,
        flows.nice,
        flows.realnvp,
        flows.inverse_autoregressive_flow,
        flows.neural_spline_flow,
        flows.bernstein_flow,
        flows.gaussianization_flow,
        flows.ffjord,
    ],
    ids=lambda constructor: constructor.__name__,
)
def test_a_second_flow_of_the_same_kind_is_built_without_compiling(constructor, compiles):
    one, key, base_dist = jr.key(1), jr.key(2), StandardNormal((3,))
    compiled = compiles.compiled
    first = constructor(one, base_dist=base_dist)
    # One program for all layers, and a few for arrays of the transformer and the key.
    assert compiles.compiled - compiled <= 8
    with compiles.expect_none():
        second = constructor(key, base_dist=base_dist)
    arrays = [jax.tree.leaves(eqx.filter(flow, eqx.is_array)) for flow in (first, second)]
    assert any((a != b).any() for a, b in zip(*arrays, strict=True)), "two keys made one flow"


def test_sizes_may_be_numpy_numbers_and_are_checked_whatever_was_built_before(unchecked_annotations):
    def build(constructor, **options: Any):
        return constructor(jr.key(0), base_dist=StandardNormal((2,)), **options)

    assert build(flows.coupling_flow, nn_width=np.int64(4), cond_dim=np.prod((2, 3))).cond_shape == (6,)
    build(flows.planar_flow, negative_slope=np.float64(0.1))
    build(flows.triangular_spline_flow, knots=np.int32(3), tanh_max_val=np.float32(3))
    with pytest.raises(ValueError, match=r"nn_width must be an integer of at least 1, got 4\.0"):
        build(flows.coupling_flow, nn_width=4.0, cond_dim=6)
