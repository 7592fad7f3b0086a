"""Roots of monotone functions, against SciPy's and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq

import flowlib.bijections as bij
from contract_tools import FLOAT, X64, perturb
from flowlib.bijections._monotone_root import monotone_root

TOLERANCE = 1e-10 if X64 else 1e-5


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


@pytest.mark.parametrize("scale", [0.2, 0.7])
@pytest.mark.parametrize("dim", [8, 64])
def test_block_autoregressive_inverse_is_accurate(dim, scale):
    """|dx| <= tolerance (1 + |x|) where the Jacobian does not magnify rounding; everywhere y is reached again."""
    network = bij.BlockAutoregressiveNetwork(jr.key(0), dim=dim, depth=1, block_dim=8)
    network = perturb(network, np.random.default_rng(dim), scale / np.sqrt(dim))
    x = jr.normal(jr.key(1), (200, dim))
    y, log_det = jax.jit(jax.vmap(network.transform_and_log_det))(x)
    back, log_det_back = jax.jit(jax.vmap(network.inverse_and_log_det))(y)
    assert np.abs(back - x).max() <= TOLERANCE * (1 + np.abs(x).max())
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-7 if X64 else 1e-3)
