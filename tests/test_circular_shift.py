"""Rotations of a circle, and flows on tori made of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import flowlib.bijections as bij
import flowlib.distributions as dst
from contract_tools import EPS, FLOAT, perturb
from flowlib import nn
from flowlib.support import Circle


def turned_by(shift, interval, shape=()):
    turn = bij.CircularShift(interval, shape)
    return eqx.tree_at(lambda t: t.shift, turn, jnp.full(shape, shift, FLOAT))


@pytest.mark.parametrize("shift", [-1e4, -2.5, -0.5, 0.0, 1.0, 3.0, 7.25])
def test_it_is_addition_modulo_the_circumference(shift):
    x = np.linspace(-1, 2, 25, endpoint=False).astype(FLOAT)
    turn = turned_by(shift, (-1.0, 2.0), (25,))
    y, log_det = turn.transform_and_log_det(x)
    # The distance on the circle, for an end may come out as the other one.
    apart = np.mod(np.asarray(y, np.float64) - (x.astype(np.float64) + shift), 3)
    assert np.minimum(apart, 3 - apart).max() < 10 * EPS * (1 + abs(shift))
    assert ((y >= -1) & (y <= 2)).all()
    assert log_det == 0
    back = np.mod(np.asarray(turn.inverse(y), np.float64) - x, 3)
    assert np.minimum(back, 3 - back).max() < 20 * EPS


def test_it_starts_as_the_identity_to_the_bit_at_the_ends_too():
    for x in (-np.pi, -1.0, 0.0, np.pi):
        x = FLOAT(x)
        assert bij.CircularShift(np.pi).transform(x) == x
        assert bij.CircularShift(np.pi).inverse(x) == x


def test_its_gradients_are_one_everywhere():
    for shift in (0.0, 1.0, 6.0, -20.0):
        for x in (-1.0, 0.5, 2.0):
            grads = jax.grad(lambda x, s: turned_by(s, (-1.0, 2.0)).transform(x), (0, 1))(FLOAT(x), FLOAT(shift))
            assert grads == (1, 1)
            _, back = jax.grad(lambda x, s: turned_by(s, (-1.0, 2.0)).inverse(x), (0, 1))(FLOAT(x), FLOAT(shift))
            assert back == -1


class Periodic(eqx.Module):
    """A conditioner that sees an angle by its sine and cosine, so that the density has no jump at the cut."""

    net: nn.MLP

    def __call__(self, x):
        return self.net(jnp.concatenate([jnp.sin(x), jnp.cos(x)]))


def circular():
    spline = bij.RationalQuadraticSpline(knots=4, interval=np.pi, edges="circular")
    return bij.Chain([bij.CircularShift(np.pi), spline])


def test_a_flow_on_a_torus_is_normalised_and_has_no_jump_at_the_cut():
    size = bij.Coupling(jr.key(0), transformer=circular(), dim=1, untransformed_dim=0).n_parameters
    layers = [
        bij.Coupling(
            jr.key(i),
            transformer=circular(),
            dim=2,
            mask=np.arange(2) == i,
            conditioner=Periodic(nn.MLP(jr.key(i), 2, size, width=8, depth=1)),
        )
        for i in range(2)
    ]
    layers = perturb(bij.Chain(layers), np.random.default_rng(0), 0.2)
    flow = dst.Transformed(dst.Uniform(-np.pi * np.ones(2), np.pi * np.ones(2)), layers)
    edges = np.linspace(-np.pi, np.pi, 257)
    centres = ((edges[1:] + edges[:-1]) / 2).astype(FLOAT)
    grid = np.stack(np.meshgrid(centres, centres), axis=-1)
    density = np.exp(np.asarray(flow.log_prob(grid), np.float64))
    np.testing.assert_allclose(density.mean() * (2 * np.pi) ** 2, 1, atol=1e-3)
    # The seams: points on both sides of the cut of either angle are neighbours.
    end = FLOAT(np.pi) - 1e-6
    for left, right in [(np.array([-end, 0.7]), np.array([end, 0.7])), (np.array([0.7, -end]), np.array([0.7, end]))]:
        np.testing.assert_allclose(flow.log_prob(left.astype(FLOAT)), flow.log_prob(right.astype(FLOAT)), atol=1e-3)
    assert np.ptp(np.log(density)) > 0.5
    assert np.isneginf(flow.log_prob(np.array([4.0, 0.0])))
    x = flow.sample(jr.key(1), 500)
    assert jax.vmap(Circle().contains)(x).all()


def test_a_circle_and_a_real_column_in_one_flow():
    kinds = [[circular()], [bij.Affine()]]
    layers = [
        bij.Coupling(jr.key(i), transformer=kinds[i], dim=2, mask=np.arange(2) != i, nn_width=8) for i in range(2)
    ]
    # Uniform on the circle, logistic on the line.
    line = bij.Indexed(bij.Invert(bij.Sigmoid()), 1, (2,))
    base = dst.Uniform(np.array([-np.pi, 0.0]), np.array([np.pi, 1.0]))
    flow = dst.Transformed(base, perturb(bij.Chain([line, *layers]), np.random.default_rng(0), 0.3))
    angles = (np.arange(200) + 0.5) / 200 * 2 * np.pi - np.pi
    values = np.linspace(-60, 60, 1201)
    grid = np.stack(np.meshgrid(angles, values), axis=-1).astype(FLOAT)
    density = np.exp(np.asarray(flow.log_prob(grid), np.float64))
    np.testing.assert_allclose(density.sum() * (2 * np.pi / 200) * 0.1, 1, atol=2e-3)


def test_bad_intervals_are_named():
    for bad in [(1.0, 1.0), (2.0, -1.0), np.inf]:
        with pytest.raises(ValueError, match="CircularShift expected an interval with lower < upper"):
            bij.CircularShift(bad)
