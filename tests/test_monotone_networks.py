"""Increasing networks and integrals of positive ones, against their definitions in NumPy and SciPy's quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64, perturb

X = np.concatenate([np.linspace(-6, 6, 41), [-1e6, 1e6]]).astype(FLOAT)
NEAR = slice(0, 41)


def network(scale=0.7, width=4, depth=2):
    return perturb(bij.MonotoneNetwork(width, depth), np.random.default_rng(0), scale)


def integral(scale=0.7, **options):
    return perturb(bij.MonotoneIntegral(5, **{"bound": 4.0, **options}), np.random.default_rng(1), scale)


def both(bijection, points, *, inverse=False):
    return jax.vmap(bijection.inverse_and_log_det if inverse else bijection.transform_and_log_det)(points)


def gradients(bijection, points, name):
    def total(args):
        value, log_det = jax.vmap(getattr(args[0], name))(args[1])
        return value.sum() + log_det.sum()

    return jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(total))((bijection, jnp.asarray(points))))


def test_a_network_is_its_definition():
    bijection = network()

    def reference(x):
        h = np.asarray(x, np.float64)[None]
        for layer in bijection.layers:
            mixing, locations, raw, weights = (
                np.asarray(a, np.float64) for a in (layer.mixing, layer.locations, layer.scales, layer.weights)
            )
            scales = 0.01 + np.log1p(np.exp(raw) * np.expm1(0.99))
            z = (special.softmax(mixing, axis=1) @ h - locations[:, None]) / scales[:, None]
            h = special.logit(special.softmax(weights, axis=1) @ special.expit(z))
        return h[0]

    y, log_slope = both(bijection, X)
    np.testing.assert_allclose(y[NEAR], reference(X[NEAR]), rtol=1e-8 if X64 else 1e-4, atol=100 * EPS)
    x, step = X[NEAR].astype(np.float64), 1e-5
    slope = (reference(x + step) - reference(x - step)) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slope[NEAR]), slope, rtol=1e-4)


def test_a_network_of_one_layer_is_a_mixture_of_logistics():
    bijection = network(width=3, depth=1)
    (layer,) = bijection.layers
    mixture = eqx.tree_at(
        lambda m: (m.logits, m.locations, m.scales),
        bij.LogisticMixture(3),
        (layer.weights[0], layer.locations, layer.scales),
    )
    for actual, expected in zip(both(bijection, X), both(mixture, X), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=20 * EPS, atol=20 * EPS)


@pytest.mark.parametrize("make", [network, integral])
def test_the_inverse_is_the_inverse_and_gradients_are_finite(make):
    bijection = make()
    y, log_slope = both(bijection, X)
    back, log_back = both(bijection, y, inverse=True)
    np.testing.assert_allclose(back, X, rtol=1e-8 if X64 else 2e-5, atol=1e-8 if X64 else 1e-4)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-6 if X64 else 1e-3)
    for b, name in [(bijection, "transform_and_log_det"), (bijection, "inverse_and_log_det"), (make(30.0), None)]:
        grads = gradients(b, X, name or "transform_and_log_det")
        assert all(np.isfinite(grad).all() for grad in grads)


def test_far_out_a_network_is_a_straight_line():
    bijection = network()
    x = np.array([-1e6, -5e5, 5e5, 1e6], FLOAT)
    y, log_slope = both(bijection, x)
    np.testing.assert_allclose((y[1] - y[0]) / 5e5, np.exp(log_slope[0]), rtol=1e-5)
    np.testing.assert_allclose((y[3] - y[2]) / 5e5, np.exp(log_slope[3]), rtol=1e-5)


def test_an_integral_is_that_of_its_slope():
    bijection = integral()
    weights = np.asarray(bijection.in_weights, np.float64)
    # No more than what 32 nodes integrate to eight digits.
    steepest = np.pi / ((10 ** (1 / 8) - 10 ** (-1 / 8)) / 2)
    weights = steepest * np.tanh(weights / steepest)
    places, heights = np.asarray(bijection.in_biases, np.float64), np.asarray(bijection.out_weights, np.float64)

    def slope(u):
        raw = heights @ np.tanh(weights * u / 4 + places) + float(bijection.out_bias)
        return 1e-3 + np.log1p(np.exp(raw) * np.expm1(1 - 1e-3))

    y, log_slope = both(bijection, X)
    inner = np.clip(X.astype(np.float64), -4, 4)
    slopes = np.array([slope(u) for u in inner])
    area = np.array([integrate.quad(slope, 0, u, epsabs=1e-12)[0] for u in inner])
    expected = float(bijection.shift) + area + slopes * (X - inner)
    np.testing.assert_allclose(y, expected, rtol=1e-7 if X64 else 1e-5, atol=1e-7 if X64 else 1e-5)
    np.testing.assert_allclose(np.exp(log_slope), slopes, rtol=1e-10 if X64 else 1e-5)


@pytest.mark.parametrize("nodes", [8, 32])
def test_the_bound_on_the_steepness_holds_the_error_of_the_quadrature(nodes):
    steep = bij.MonotoneIntegral(5, nodes, bound=1.0)
    steep = eqx.tree_at(lambda b: (b.in_weights, b.out_weights), steep, (jnp.full(5, 1e3), jnp.ones(5)))
    fine = eqx.tree_at(lambda b: b.out_weights, bij.MonotoneIntegral(5, 400, bound=1.0), jnp.ones(5))
    # With the steepness of the former, which is less than the most that so many nodes admit.
    limit = float(steep._inside()[2][0][0][0])
    steepest = eqx.tree_at(lambda b: b.in_weights, fine, jnp.full(5, 1e6))
    wide = float(steepest._inside()[2][0][0][0])
    fine = eqx.tree_at(lambda b: b.in_weights, fine, jnp.full(5, wide * np.arctanh(limit / wide), FLOAT))
    x = np.linspace(-1, 1, 21).astype(FLOAT)
    np.testing.assert_allclose(both(steep, x)[0], both(fine, x)[0], atol=1e-6 if X64 else 1e-5)


def test_they_start_as_the_identity_or_near_it_and_units_part():
    y, log_slope = both(bij.MonotoneIntegral(), X)
    np.testing.assert_allclose(y, X, rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_allclose(log_slope, 0, atol=20 * EPS)
    near = np.concatenate([np.linspace(-20, 20, 201), X[-2:]]).astype(FLOAT)
    for width, depth in [(8, 1), (8, 2), (16, 2), (2, 2), (3, 2), (4, 2), (5, 1)]:
        y, log_slope = both(bij.MonotoneNetwork(width, depth), near)
        value_bound, slope_bound = (0.05, 0.025) if width >= 8 else (0.3, 0.2)
        # Logarithms of the tails, as large as x, are added up in each layer.
        np.testing.assert_array_less(np.abs(y - near), value_bound + 10 * depth * EPS * np.abs(near))
        np.testing.assert_array_less(np.abs(log_slope), slope_bound)
    # Equal units would have equal gradients, and stay equal.
    y_of = eqx.filter_jit(eqx.filter_grad(lambda b, x: b.transform(x)))
    gradient = y_of(bij.MonotoneIntegral(), FLOAT(1.5))
    assert len(np.unique(np.round(gradient.out_weights, 4))) > 10
    first, second = y_of(bij.MonotoneNetwork(), FLOAT(1.5)).layers
    assert (np.ptp(first.weights, axis=0) > 0.3 * np.abs(first.weights).max(axis=0)).all()
    assert (np.ptp(second.mixing, axis=0) > 0.9 * np.abs(second.mixing).max(axis=0)).all()
    for layer in (first, second):
        for grads in (layer.locations, layer.scales):
            assert np.ptp(grads) > 0.9 * np.abs(grads).max()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        bij.MonotoneNetwork(0)
    with pytest.raises(ValueError, match="depth must be an integer of at least 1, got 0"):
        bij.MonotoneNetwork(depth=0)
    with pytest.raises(ValueError, match=r"MonotoneNetwork expected min_scale in \(0, 1\), got 1"):
        bij.MonotoneNetwork(min_scale=1.0)
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        bij.MonotoneIntegral(0)
    with pytest.raises(ValueError, match="nodes must be an integer of at least 4, got 3"):
        bij.MonotoneIntegral(nodes=3)
    with pytest.raises(ValueError, match="MonotoneIntegral expected an interval with lower < upper"):
        bij.MonotoneIntegral(bound=0.0)
    with pytest.raises(ValueError, match=r"MonotoneIntegral expected min_derivative in \(0, 1\), got 0"):
        bij.MonotoneIntegral(min_derivative=0.0)
