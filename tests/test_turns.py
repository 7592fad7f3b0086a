"""Angles in another turn: on a circle they are the same point."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from flowlib.bijections import Affine, CircularShift, Indexed, ToSupport
from flowlib.distributions import (
    Folded,
    Joint,
    Mixture,
    Normal,
    StandardNormal,
    StudentT,
    Transformed,
    UniformCircle,
    VmapMixture,
    VonMises,
)
from flowlib.flows import circular_spline_flow
from flowlib.support import Circle

_TURN = 2 * math.pi


def longitudes():
    """A real column, and longitudes from -180 to 180, cut open at 40."""
    on_map = ToSupport(["real", Circle(-180, 180)], (2,), cut=jnp.array([0.0, 40.0]))
    return Transformed(StandardNormal((2,)), on_map)


def spline(key):
    """One whose layers are no identity."""
    flow = circular_spline_flow(key, dim=3, circular=[True, False, True], flow_layers=1, nn_width=4, knots=3)
    params, rest = eqx.partition(flow, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(params)
    moved = [a + 0.3 * jr.normal(k, a.shape) for a, k in zip(leaves, jr.split(key, len(leaves)), strict=True)]
    return eqx.combine(jax.tree.unflatten(treedef, moved), rest)


def turned(loc):
    """Of a support that holds arrays."""
    shift = Indexed(CircularShift(math.pi, (1,)), [0], (2,))
    return Transformed(Joint([VonMises(loc, 2.0), Normal()]), shift)


def cases(key):
    """A distribution, and the length of a turn in each column or 0."""
    von_mises = VonMises(jnp.array([1.0, -3.0]), jnp.array([2.0, 0.5]))
    yield von_mises, [_TURN, _TURN]
    yield UniformCircle((2,)), [_TURN, _TURN]
    yield longitudes(), [0, 360]
    yield Joint([VonMises(0.5, 2.0), Normal(), UniformCircle()]), [_TURN, 0, _TURN]
    yield Mixture([von_mises, UniformCircle((2,))], [0.4, 0.6]), [_TURN, _TURN]
    joints = Joint([VonMises(0.5, 2.0), Normal()]), Joint([UniformCircle(), StudentT(3.0)])
    yield Mixture(joints), [_TURN, 0]
    yield VmapMixture(eqx.filter_vmap(turned)(jnp.array([-0.5, 2.0])), jnp.array([0.3, 0.7])), [_TURN, 0]


def test_a_position_counts_in_any_turn(key):
    for dist, turn in cases(key):
        x = dist.sample(key, 20)
        turns = np.random.default_rng(0).integers(-3, 4, x.shape) * np.asarray(turn)
        both = jnp.concatenate([x, x + turns.astype(x.dtype)])
        (values, other_values), grads = [
            jnp.split(part, 2) for part in jax.vmap(jax.value_and_grad(dist.log_prob))(both)
        ]
        name = type(dist).__name__
        assert np.isfinite(values).all(), name
        np.testing.assert_allclose(other_values, values, atol=2e-4, err_msg=name)
        np.testing.assert_allclose(grads[1], grads[0], atol=5e-3, rtol=1e-3, err_msg=name)


def test_many_turns_away_the_density_is_that_of_scipy():
    dist, dtype = VonMises(1.0, 4.0), jnp.result_type(float)
    near = np.linspace(-3, 3, 25)
    for turns, tolerance in ((1, 1e-5), (-1000, 1e-5), (30_000, 2e-3)):
        x = np.asarray(near + turns * _TURN, dtype)
        expected = scipy.stats.vonmises.logpdf(np.mod(x.astype(np.float64) + math.pi, _TURN) - math.pi, 4.0, 1.0)
        np.testing.assert_allclose(dist.log_prob(x), expected, atol=tolerance)
    assert dist.log_prob(jnp.inf) == -jnp.inf
    assert np.isfinite(dist.log_prob(1e30))


def test_base_points_and_layer_values_are_those_of_the_position(key):
    for dist, turn in ((longitudes(), [0, 360]), (spline(key), [_TURN, 0, _TURN])):
        x = dist.sample(key, 10)
        away = x + np.asarray(turn, x.dtype)
        np.testing.assert_allclose(dist.to_base(away), dist.to_base(x), atol=2e-4)
        near, far = dist.layer_values(x), dist.layer_values(away)
        np.testing.assert_allclose(far.log_probs, near.log_probs, atol=2e-4)
        np.testing.assert_allclose(far.values[0], near.values[0], atol=2e-4)
        np.testing.assert_allclose(dist.log_prob(away), near.log_probs[-1], atol=2e-4)
    inverse = longitudes().bijection.inverse
    np.testing.assert_allclose(inverse(np.array([0.0, 190.0])), inverse(np.array([0.0, -170.0])), rtol=1e-6)


def test_beyond_the_ends_of_what_is_no_circle_there_is_no_density():
    # Twice an angle, an absolute value: no turn of these is a turn of the angle.
    assert Transformed(VonMises(0.0, 1.0), Affine(0.0, 2.0)).log_prob(6.5) == -jnp.inf
    assert Folded(VonMises(0.0, 1.0)).log_prob(3.3) == -jnp.inf


@pytest.mark.parametrize("ends", [(-math.pi, math.pi), (0.0, 360.0), (-180.0, 180.0), (1e3, 1e3 + 1)])
def test_both_ends_and_all_between_stay_and_nothing_leaves_the_range(ends):
    circle, dtype = Circle(*ends), jnp.result_type(float)
    inside = np.linspace(ends[0], ends[1], 101).astype(dtype)
    np.testing.assert_array_equal(circle.in_range(jnp.asarray(inside)), inside)
    x = jnp.asarray(np.concatenate([inside + k * (ends[1] - ends[0]) for k in (-1, 1, 12345)]), dtype)
    assert circle.contains(circle.in_range(x))
    grads = jax.vmap(jax.grad(lambda x: circle.in_range(x)))(x)
    np.testing.assert_array_equal(grads, 1)
