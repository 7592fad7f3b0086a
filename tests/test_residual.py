"""Residual layers and their networks, against singular values, determinants and SciPy's root finder."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import root

import flowlib.bijections as bij
from contract_tools import FLOAT, X64, generator, perturb
from flowlib import nn
from flowlib.distributions import StandardNormal
from flowlib.flows import residual_flow
from flowlib.nn._lipschitz_mlp import spectral_bound

TOLERANCE = 1e-9 if X64 else 3e-5


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def numbers(*shape):
    return generator("numbers", shape).standard_normal(shape).astype(FLOAT)


def residual(dim, noise=1.0, **options):
    """With weights so large that their bound is at work."""
    return perturb(bij.Residual(jr.key(0), dim=dim, **options), generator("residual", dim), noise)


@eqx.filter_jit
def forward(bijection, x):
    return jax.vmap(bijection.transform_and_log_det)(x)


@eqx.filter_jit
def backward(bijection, y):
    return jax.vmap(bijection.inverse_and_log_det)(y)


def test_spectral_bound_is_above_the_norm_and_close_to_it():
    bound = jax.jit(spectral_bound)
    for scale in (1e-6, 1.0, 1e6):
        for shape in ((1, 1), (5, 5), (3, 7), (40, 6)):
            matrix = scale * numbers(*shape)
            norm = np.linalg.norm(matrix.astype(np.float64), 2)
            assert norm * (1 - 1e-5) <= bound(matrix) <= norm * min(shape) ** (1 / 256) * (1 + 1e-5)
    # Power iteration from (1, 1) would find 1: the larger direction is orthogonal to it.
    assert abs(bound(np.array([[2, -1], [-1, 2]], FLOAT)) - 3) < 0.05
    assert bound(np.zeros((3, 2), FLOAT)) == 0
    assert np.isfinite(jax.grad(bound)(jnp.zeros((3, 2)))).all()


@pytest.mark.parametrize("noise", [0.1, 3.0, 1e4])
def test_slopes_of_the_network_stay_below_the_bound(noise):
    network = nn.LipschitzMLP(jr.key(0), 4, width=6, depth=2, lipschitz=0.8)
    network = eqx.tree_at(lambda n: n.weights, network, perturb(network.weights, generator(noise), noise))
    jacobians = jax.jit(jax.vmap(jax.jacfwd(network)))(0.3 * numbers(200, 4))
    largest = np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2)).max()
    assert 0.01 < largest < 0.8


def test_slopes_of_the_network_come_near_the_bound():
    network = nn.LipschitzMLP(jr.key(0), 4, width=4, depth=2, lipschitz=0.8)
    weights, biases = (5 * jnp.eye(4),) * 3, (jnp.zeros(4),) * 3
    network = eqx.tree_at(lambda n: (n.weights, n.biases), network, (weights, biases))
    # Each of the three norms is taken for 4^(1/256) times what it is.
    close(jax.jacfwd(network)(jnp.zeros(4)), 0.8 * 4 ** (-3 / 256) * np.eye(4), 1e-5)


@eqx.filter_jit
def with_jacobians(bijection, x):
    jacobians = jax.vmap(jax.jacfwd(bijection.network))(x)
    return jax.vmap(bijection.transform_and_log_det)(x), jax.vmap(bijection.network)(x), jacobians


@pytest.mark.parametrize(
    ("dim", "nn_width", "nn_depth"),
    [(3, 5, 1), (3, 5, 3), (6, 2, 1), (6, 2, 3)],
)
def test_log_det_is_exact_on_either_side_of_the_identity_of_determinants(dim, nn_width, nn_depth):
    x = numbers(20, dim)
    (y, log_det), moves, jacobians = with_jacobians(residual(dim, nn_width=nn_width, nn_depth=nn_depth), x)
    close(y, x + moves)
    close(log_det, np.linalg.slogdet(np.eye(dim) + np.asarray(jacobians, np.float64))[1])
    assert np.abs(log_det).max() > 100 * TOLERANCE


def test_inverse_is_the_root_that_scipy_finds():
    bijection = residual(3, nn_width=5)
    y = 2 * numbers(5, 3)
    x, _ = backward(bijection, y)
    transform = eqx.filter_jit(bijection.transform)
    for found, target in zip(np.asarray(x), y, strict=True):
        expected = root(lambda x, t=target: np.asarray(transform(x.astype(FLOAT)), np.float64) - t, target, tol=1e-6)
        close(found, expected.x, 1e-4)


@pytest.mark.parametrize("lipschitz", [0.1, 0.5, 0.99])
def test_inverse_is_found_for_every_bound_near_and_far(lipschitz):
    bijection = residual(3, noise=3.0, nn_width=4, nn_depth=1, lipschitz=lipschitz)
    x = np.concatenate([numbers(10, 3), 1e6 * numbers(10, 3)])
    y, log_det = forward(bijection, x)
    back, inverse_log_det = backward(bijection, y)
    size = np.abs(x).max(1, keepdims=True)
    close(back / size, x / size, 20 * TOLERANCE)
    close(inverse_log_det, -log_det, 100 * TOLERANCE)


def test_a_row_that_is_nan_costs_no_other():
    bijection = residual(2, nn_width=4, nn_depth=1)
    y = np.array([[0.5, np.nan], [0.5, 1.0]], FLOAT)
    x, log_det = backward(bijection, y)
    assert np.isnan(x[0]).all()
    assert np.isnan(log_det[0])
    close(bijection.transform(x[1]), y[1])


def test_a_condition_moves_freely():
    bijection = residual(2, nn_width=4, cond_dim=1)
    x = np.zeros(2, FLOAT)
    near, far = bijection.transform(x, np.zeros(1, FLOAT)), bijection.transform(x, np.full(1, 100, FLOAT))
    assert np.abs(near - far).max() > 0.1
    close(bijection.inverse(far, np.full(1, 100, FLOAT)), x)


def test_density_of_a_residual_flow_integrates_to_one():
    flow = perturb(
        residual_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=3, nn_width=8), generator("flow")
    )
    side = np.linspace(-12, 12, 241)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(FLOAT)
    total = np.exp(np.asarray(flow.log_prob(grid), np.float64)).sum() * 0.01
    assert abs(total - 1) < 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bij.Residual(jr.key(0), dim=0), "dim must be an integer of at least 1, got 0"),
        (lambda: bij.Residual(jr.key(0), dim=2, lipschitz=1.0), r"lipschitz must be in \(0, 1\), got 1.0"),
        (lambda: bij.Residual(jr.key(0), dim=2, nn_depth=0), "nn_depth must be an integer of at least 1, got 0"),
        (lambda: nn.LipschitzMLP(jr.key(0), 2, width=0, depth=1), "nn_width must be an integer of at least 1, got 0"),
        (
            lambda: residual_flow(jr.key(0), base_dist=StandardNormal((2,)), lipschitz=0.0),
            r"lipschitz must be in \(0, 1\), got 0.0",
        ),
        (
            lambda: residual_flow(jr.key(0), base_dist=StandardNormal((2,)), gradient="rebuild"),
            "cannot rebuild the inputs of Residual",
        ),
    ],
)
def test_bad_arguments_are_one_line_errors(make, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
