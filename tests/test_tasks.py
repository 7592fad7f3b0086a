"""The example problems, against their definitions."""

import inspect

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from flowlib.tasks import GaussianMixtureSimulator, two_moons


def test_two_moons_without_noise_are_two_half_circles(key):
    x, y = np.asarray(two_moons(key, 1000, noise_std=0.0)).T
    np.testing.assert_allclose(np.hypot(x - np.where(y > 0, -1, 1), y), 2, rtol=1e-5)
    # A fair coin: 4.5 standard deviations, false alarm 7e-6.
    assert abs((y > 0).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(1000)
    noisy = two_moons(key, 1000)
    assert noisy.shape == (1000, 2)
    assert np.std(noisy - two_moons(key, 1000, noise_std=0.0)) == pytest.approx(0.2, rel=0.1)


def mixture_cdf(x):
    return 0.5 * stats.norm.cdf(x) + 0.5 * stats.norm.cdf(x, scale=0.1)


def test_the_simulator_adds_the_noise_of_the_mixture(key):
    task = GaussianMixtureSimulator(dim=3)
    theta = task.prior.sample(key, 2000)
    assert theta.shape == (2000, 3)
    noise = np.asarray(task.simulator(key, theta) - theta)
    for column in noise.T:
        # With a fixed key; the false alarm rate over keys is 1e-4.
        assert stats.kstest(column, mixture_cdf).pvalue > 1e-4
    # The component belongs to the row, not to the coordinate.
    assert np.corrcoef(np.abs(noise), rowvar=False)[0, 1] > 0.2


@pytest.mark.parametrize("shape", [(1,), (1, 1), (4, 1), (2, 3, 1)])
def test_simulations_keep_the_shape_of_theta(key, shape):
    assert GaussianMixtureSimulator(dim=1).simulator(key, jnp.zeros(shape)).shape == shape


@pytest.mark.parametrize("observation", [(0.0, 0.5), (0.95, -1.02), (5.0, -8.0)])
def test_the_reference_posterior_equals_quadrature(key, observation):
    task = GaussianMixtureSimulator(prior_bound=1)
    draws = np.asarray(task.sample_reference_posterior(key, jnp.array(observation), 4000))
    assert (abs(draws) <= 1).all()
    grid = np.linspace(-1, 1, 4001)
    # The first coordinate's density: each component by itself factorises.
    parts = [[stats.norm.pdf(grid, loc, scale) for loc in observation] for scale in (1.0, 0.1)]
    density = np.sum([first * np.trapezoid(second, grid) for first, second in parts], axis=0)
    cdf = np.cumsum(density) / density.sum()
    assert stats.kstest(draws[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 1e-4


def test_tasks_can_be_traced(key):
    task = GaussianMixtureSimulator()

    def run(key, x):
        return two_moons(key, 5), task.simulator(key, x), task.sample_reference_posterior(key, x[0], 7)

    assert [out.shape for out in jax.eval_shape(run, key, jnp.ones((3, 2)))] == [(5, 2), (3, 2), (7, 2)]
    assert jax.eval_shape(run, jr.PRNGKey(0), jnp.ones((3, 2)))[0].shape == (5, 2)


def test_bad_arguments_are_named(key):
    task = GaussianMixtureSimulator()
    with pytest.raises(ValueError, match=r"theta of shape \(\.\.\., 2\), got \(3,\)"):
        task.simulator(key, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"an observation of shape \(2,\), got \(1, 2\)"):
        task.sample_reference_posterior(key, jnp.zeros((1, 2)), 3)
    with pytest.raises(ValueError, match=r"observation must be within .* got 21\.0"):
        task.sample_reference_posterior(key, jnp.array([0.0, 21.0]), 3)
    with pytest.raises(ValueError, match=r"prior_bound must be positive and finite, got -1\.0"):
        GaussianMixtureSimulator(prior_bound=-1.0)
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 0, got -1"):
        two_moons(key, -1)
    with pytest.raises(TypeError, match="key must be a JAX PRNG key"):
        inspect.unwrap(two_moons)(3, 3)
