"""The leaky rectifier with a trained slope, against its definition."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT


@pytest.mark.parametrize("slope", [0.01, 1.0, 3.0])
def test_it_is_the_definition(slope):
    x = np.array([-1e6, -2.0, -1e-3, 0.5, 1e6], FLOAT)
    relu = bij.LeakyRelu(slope, (5,))
    y, log_det = relu.transform_and_log_det(x)
    np.testing.assert_allclose(y, np.where(x >= 0, x, slope * x), rtol=10 * EPS)
    np.testing.assert_allclose(log_det, 3 * np.log(slope), rtol=10 * EPS, atol=10 * EPS)
    np.testing.assert_allclose(relu.inverse(y), x, rtol=10 * EPS)


def test_at_zero_it_is_the_identity_to_the_bit_and_the_slope_counts_as_one():
    relu = bij.LeakyRelu(0.1)
    for zero in (0.0, -0.0):
        for method in (relu.transform_and_log_det, relu.inverse_and_log_det):
            value, log_det = method(zero)
            assert value == 0
            assert np.signbit(value) == np.signbit(zero)
            assert log_det == 0

            def total(relu, x, name=method.__name__):
                return sum(getattr(relu, name)(x))

            in_slope, in_x = jax.tree.leaves(eqx.filter_grad(lambda args: total(*args))((relu, jnp.asarray(zero))))
            assert in_slope == 0
            assert in_x == 1


def test_the_slope_is_trained_and_stays_positive():
    relu = bij.LeakyRelu(0.25, (2, 3))
    (raw,) = jax.tree.leaves(eqx.filter(relu, eqx.is_inexact_array))
    assert raw.shape == ()
    x = -jnp.ones((2, 3))
    gradient = eqx.filter_grad(lambda r: r.transform(x).sum())(relu)
    assert (jax.tree.leaves(gradient)[0] != 0).all()
    sunk = eqx.tree_at(lambda r: r.negative_slope.args[0], relu, jnp.asarray(-1e4, FLOAT))
    y, log_det = sunk.transform_and_log_det(x)
    assert (y < 0).all()
    assert np.isfinite(log_det)
    # Also where the inverse of a number that is not selected would overflow.
    gradient = eqx.filter_grad(lambda r: r.inverse(1e12 * jnp.ones((2, 3))).sum())(sunk)
    assert (jax.tree.leaves(gradient)[0] == 0).all()


def test_a_slope_for_each_element_or_for_each_column():
    x = -jnp.ones((2, 3))
    for slope in (np.array([0.1, 0.5, 2.0]), np.array([[0.1], [0.5]])):
        y, log_det = bij.LeakyRelu(slope, (2, 3)).transform_and_log_det(x)
        np.testing.assert_allclose(y, np.broadcast_to(-slope, (2, 3)), rtol=10 * EPS)
        np.testing.assert_allclose(log_det, np.log(np.broadcast_to(slope, (2, 3))).sum(), rtol=100 * EPS)


def test_bad_slopes_are_named():
    with pytest.raises(ValueError, match="negative_slope must be positive and finite, got 0"):
        bij.LeakyRelu(0.0)
    with pytest.raises(ValueError, match=r"broadcasts to \(2,\), got \(3,\)"):
        bij.LeakyRelu(np.ones(3), (2,))
    with pytest.raises(ValueError, match=r"broadcasts to \(\), got \(1,\)"):
        bij.LeakyRelu(np.ones(1))
