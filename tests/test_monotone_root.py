"""Roots of monotone functions, against SciPy's and closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq

import flowlib.bijections as bij
from contract_tools import FLOAT, X64, perturb
from flowlib.bijections._monotone_root import monotone_root
from flowlib.bijections._solve import default_tolerance

TOLERANCE = default_tolerance(np.dtype(FLOAT))


def steep_and_flat(x):
    """An S with nearly flat tails, on which Newton's method alone runs back and forth for ever."""
    return jnp.tanh(3 * x) + 0.001 * x


def kinked(x):
    return jnp.where(x > 0.5, 100 * (x - 0.5), 0.01 * (x - 0.5))


def falling(x):
    return -(x**3) - 0.1 * x


def exponential(x):
    return jnp.exp(x) - 1


FUNCTIONS = [steep_and_flat, kinked, falling, exponential, jnp.arcsinh]


def search(fn, target, start):
    slope = jax.vmap(jax.grad(fn))
    return jax.jit(lambda t, s: monotone_root(lambda x: (fn(x), slope(x)), t, s, TOLERANCE))(target, start)


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_roots_agree_with_scipy_from_near_and_far(fn):
    rng = np.random.default_rng(0)
    roots = np.concatenate([rng.standard_normal(40), 8 * rng.standard_normal(20), [0.0, 0.5, 1.0]])
    target = jnp.asarray(fn(jnp.asarray(roots, FLOAT)))
    for start in (jnp.zeros_like(target), target, jnp.full_like(target, 30.0), jnp.full_like(target, -1e4)):
        x, found = search(fn, target, start)
        assert found.all()
        for value, got in zip(np.asarray(target, np.float64), np.asarray(x, np.float64), strict=True):
            with jax.enable_x64(True):
                expected: Any = brentq(lambda t, v=value: float(fn(jnp.float64(t))) - v, -100, 100, xtol=1e-14)
                slope = float(jax.grad(fn)(jnp.float64(expected)))
            # What rounding of the value is worth in x.
            rounding = 8 * np.finfo(FLOAT).eps * (1 + abs(value)) / abs(slope)
            assert abs(got - expected) <= TOLERANCE * (1 + abs(expected)) + rounding


def test_a_slope_of_zero_at_the_start_is_left():
    x, found = search(lambda x: x**3, jnp.asarray([8.0, -8.0, 0.0]), jnp.zeros(3))
    assert found.all()
    np.testing.assert_allclose(x, [2.0, -2.0, 0.0], atol=10 * TOLERANCE)


def test_values_out_of_reach_and_nan_are_not_found_and_leave_the_other_lanes_alone():
    x, found = search(jnp.tanh, jnp.asarray([0.5, 2.0, jnp.nan, jnp.inf]), jnp.zeros(4))
    np.testing.assert_array_equal(found, [True, False, False, False])
    np.testing.assert_allclose(x[0], np.arctanh(0.5), rtol=10 * TOLERANCE)


def test_a_point_without_a_value_or_with_an_infinite_slope_is_no_root():
    def values(x):
        # Like the tenth root: vertical at 0.
        return jnp.sign(x) * jnp.abs(x) ** 0.1, jnp.where(x == 0, jnp.inf, 0.1 * jnp.abs(x) ** -0.9)

    x, found = jax.jit(lambda t, s: monotone_root(values, t, s, TOLERANCE))(jnp.ones(2), jnp.asarray([0.0, jnp.nan]))
    np.testing.assert_array_equal(found, [True, False])
    np.testing.assert_allclose(x[0], 1.0, rtol=20 * TOLERANCE)


@pytest.mark.parametrize("scale", [0.2, 0.7])
@pytest.mark.parametrize("dim", [8, 64])
def test_block_autoregressive_inverse_is_accurate(dim, scale):
    """In every coordinate of every row, for networks that magnify rounding little."""
    network = bij.BlockAutoregressiveNetwork(jr.key(0), dim=dim, depth=1, block_dim=8)
    network = perturb(network, np.random.default_rng(dim), scale / np.sqrt(dim))
    x = jr.normal(jr.key(1), (200, dim))
    forward = jax.jit(jax.vmap(network.transform_and_log_det))
    y, log_det = forward(x)
    back, log_det_back = jax.jit(jax.vmap(network.inverse_and_log_det))(y)
    assert (np.abs(back - x) <= TOLERANCE * (1 + np.abs(x))).all()
    assert (np.abs(forward(back)[0] - y) <= TOLERANCE * (1 + np.abs(y))).all()
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-7 if X64 else 1e-3)


@pytest.mark.parametrize(
    "bijection",
    [
        bij.BlockAutoregressiveNetwork(jr.key(0), dim=2, depth=1, block_dim=3),
        bij.NumericalInverse(bij.Affine(jnp.zeros(2), jnp.ones(2)), triangular=True),
        bij.NumericalInverse(bij.Affine(jnp.zeros(2), jnp.ones(2))),
        bij.Planar(jr.key(0), dim=2),
    ],
    ids=lambda bijection: type(bijection).__name__,
)
def test_a_row_without_a_root_leaves_the_gradient_of_the_others_alone(bijection):
    y = jnp.asarray([[0.3, -0.2], [jnp.nan, 0.0]])

    def loss(bijection, y, counted):
        x, log_det = jax.vmap(bijection.inverse_and_log_det)(y)
        rows = jnp.where(jnp.isnan(log_det), 0, x.sum(1) + log_det)
        return rows[:counted].sum(), x

    grads, x = eqx.filter_grad(loss, has_aux=True)(bijection, y, 2)
    alone, _ = eqx.filter_grad(loss, has_aux=True)(bijection, y, 1)
    assert np.isnan(x[1]).any()
    assert np.isfinite(x[0]).all()
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
