"""Folded, symmetrised and exchangeable densities, which are exact, and augmented flows, which have a bound."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as stats

import flowlib
from contract_tools import FLOAT, X64
from flowlib.bijections import AdditiveCondition, Affine, Ordered, SoftPlus
from flowlib.distributions import (
    Augmented,
    Exchangeable,
    Exponential,
    Folded,
    MultivariateNormal,
    Normal,
    StandardNormal,
    Symmetrised,
    Transformed,
    Uniform,
)
from flowlib.train import MaximumLikelihoodLoss, fit_to_data

CLOSE = 1e-10 if X64 else 2e-5
RNG = np.random.default_rng(0)
LOC = np.array([0.4, -0.7, 0.2])
FACTOR = np.array([[1.2, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.6, 0.4, 0.7]])
COVARIANCE = FACTOR @ FACTOR.T
X = RNG.normal(size=(6, 2))


def gaussian(loc, covariance):
    return stats.multivariate_normal(loc, covariance)


def grid(lower, upper, n=400):
    """Middles of the cells of a grid in two dimensions, and the area of a cell."""
    axis = lower + (np.arange(n) + 0.5) * (upper - lower) / n
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), ((upper - lower) / n) ** 2


def linear(key, weight, bias):
    """An affine map with these coefficients as a network."""
    net = eqx.nn.Linear(weight.shape[1], weight.shape[0], key=key)
    values = (jnp.asarray(weight, float), jnp.asarray(bias, float))
    return eqx.tree_at(lambda net: (net.weight, net.bias), net, values)


# Absolute values.


def test_folded_normal_is_that_of_scipy():
    y = np.abs(X)
    loc, scale = np.array([0.5, -1.5]), np.array([1.0, 0.7])
    expected = stats.foldnorm.logpdf(y, np.abs(loc) / scale, scale=scale).sum(1)
    np.testing.assert_allclose(Folded(Normal(loc, scale)).log_prob(y), expected, rtol=CLOSE, atol=CLOSE)
    # At 0 the two branches meet.
    at_zero = Folded(Normal(0.5)).log_prob(0.0)
    np.testing.assert_allclose(at_zero, stats.norm.logpdf(0.5) + math.log(2), rtol=CLOSE)


def test_folded_columns_sum_over_their_own_signs():
    dist = Folded(MultivariateNormal(LOC, COVARIANCE), columns=[True, False, True])
    y = RNG.normal(size=(5, 3))
    y[:, [0, 2]] = np.abs(y[:, [0, 2]])
    joint = gaussian(LOC, COVARIANCE)
    signs = [(a, 1, b) for a in (1, -1) for b in (1, -1)]
    np.testing.assert_allclose(dist.log_prob(y), np.log(sum(joint.pdf(y * s) for s in signs)), rtol=CLOSE, atol=CLOSE)
    y[0, 2] *= -1
    assert dist.log_prob(y[0]) == -math.inf
    draws = np.asarray(dist.sample(jr.key(0), 200))
    assert (draws[:, [0, 2]] >= 0).all()
    assert (draws[:, 1] < 0).any()


# Signs.


def test_symmetrised_half_normal_is_normal():
    scale = np.array([0.5, 2.0])
    dist = Symmetrised(Folded(Normal(np.zeros(2), scale)))
    expected = stats.norm.logpdf(X, 0, scale).sum(1)
    np.testing.assert_allclose(dist.log_prob(X), expected, rtol=CLOSE, atol=CLOSE)


def test_signs_of_a_network_keep_the_density_normalised_and_are_those_of_draws():
    net = linear(jr.key(0), np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([-0.5, -1.0]))
    dist = Symmetrised(Transformed(MultivariateNormal(LOC[:2], COVARIANCE[:2, :2]), SoftPlus((2,))), signs=net)
    points, area = grid(-9.0, 9.0)
    masses = np.exp(np.asarray(dist.log_prob(points), np.float64)) * area
    assert abs(masses.sum() - 1) < 1e-3
    draws = np.asarray(dist.sample(jr.key(1), 20_000))
    for chosen in ((1, 1), (1, -1), (-1, 1)):
        expected = masses[(points * chosen > 0).all(1)].sum()
        assert abs((draws * chosen > 0).all(1).mean() - expected) < 0.02


# Orders.


def test_exchangeable_density_is_that_of_the_sorted_vector_over_the_number_of_orders():
    dist = Exchangeable(Transformed(Normal(LOC, 1.3 * np.ones(3)), Ordered(3)))
    x = RNG.normal(size=(5, 3))
    first, *steps = np.diff(np.sort(x, axis=1), prepend=0, axis=1).T
    logs = np.log(np.stack(steps, 1))
    expected = stats.norm.logpdf(first, LOC[0], 1.3) + stats.norm.logpdf(logs, LOC[1:], 1.3).sum(1) - logs.sum(1)
    found = dist.log_prob(x)
    np.testing.assert_allclose(found, expected - math.log(6), rtol=CLOSE, atol=10 * CLOSE)
    np.testing.assert_allclose(dist.log_prob(x[:, [2, 0, 1]]), found, rtol=CLOSE)
    draws = np.asarray(dist.sample(jr.key(0), 6000))
    orders = np.unique(np.argsort(draws, axis=1), axis=0, return_counts=True)[1]
    assert len(orders) == 6
    assert np.abs(orders - 1000).max() < 150


def test_exchangeable_density_integrates_to_one():
    dist = Exchangeable(Transformed(Normal(LOC[:2], np.ones(2)), Ordered(2)))
    points, area = grid(-8.0, 12.0, 1000)
    assert abs(np.exp(np.asarray(dist.log_prob(points), np.float64)).sum() * area - 1) < 3e-3


# Bounds.


def posterior():
    """The normal distribution of the third coordinate given the first two."""
    weight = COVARIANCE[2:, :2] @ np.linalg.inv(COVARIANCE[:2, :2])
    scale = np.sqrt(COVARIANCE[2:, 2:] - weight @ COVARIANCE[:2, 2:])[0]
    net = linear(jr.key(0), weight, LOC[2:] - weight @ LOC[:2])
    return Transformed(Normal(np.zeros(1), scale), AdditiveCondition(net, (1,), (2,)))


EXACT = gaussian(LOC[:2], COVARIANCE[:2, :2]).logpdf(X)


def test_bound_with_the_exact_posterior_is_the_density():
    dist = Augmented(MultivariateNormal(LOC, COVARIANCE), posterior())
    for key in (jr.key(0), jr.PRNGKey(1)):
        np.testing.assert_allclose(dist.lower_bound(key, X), EXACT, rtol=10 * CLOSE, atol=10 * CLOSE)
    assert dist.lower_bound(jr.key(0), X.astype(FLOAT)).dtype == FLOAT
    assert not hasattr(dist, "log_prob")


def test_bound_is_below_by_the_divergence_of_the_noise_and_tighter_with_more_samples():
    dist = Augmented(MultivariateNormal(LOC, COVARIANCE), StandardNormal((1,)))
    copies = np.repeat(X[:, None], 1500, axis=1)
    means = [np.asarray(dist.lower_bound(jr.key(0), copies, num_samples=n), np.float64).mean(1) for n in (1, 4, 64)]
    weight = COVARIANCE[2, :2] @ np.linalg.inv(COVARIANCE[:2, :2])
    mean, variance = LOC[2] + (X - LOC[:2]) @ weight, COVARIANCE[2, 2] - weight @ COVARIANCE[:2, 2]
    divergence = (np.log(variance) + (1 + mean**2) / variance - 1) / 2
    assert divergence.min() > 0.1
    np.testing.assert_allclose(means[0], EXACT - divergence, rtol=0.1, atol=0.15)
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2]).all()
    assert (means[2] < EXACT + 0.01).all()
    np.testing.assert_allclose(means[2], EXACT, atol=0.2)


def test_draws_of_an_augmented_distribution_are_those_of_the_pair_without_the_rest():
    dist = Augmented(MultivariateNormal(LOC, COVARIANCE), StandardNormal((1,)))
    draws = np.asarray(dist.sample(jr.key(0), (100, 200)))
    assert draws.shape == (100, 200, 2)
    draws = draws.reshape(-1, 2)
    np.testing.assert_allclose(draws.mean(0), LOC[:2], atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), COVARIANCE[:2, :2], atol=0.08)


def test_conditional_augmented_broadcasts_and_depends_on_the_condition():
    shift = linear(jr.key(1), np.array([[1.0, 0.0], [0.0, -2.0], [0.0, 0.0]]), np.zeros(3))
    pair = Transformed(MultivariateNormal(LOC, COVARIANCE), AdditiveCondition(shift, (3,), (2,)))
    dist = Augmented(pair, Normal(np.zeros(1), 2 * np.ones(1)))
    conditions = np.array([[0.0, 0.0], [1.0, 0.5]])
    draws = np.asarray(dist.sample(jr.key(0), 4000, conditions))
    assert draws.shape == (4000, 2, 2)
    np.testing.assert_allclose(draws.mean(0), LOC[:2] + conditions * [1.0, -2.0], atol=0.1)
    bounds = dist.lower_bound(jr.key(0), X[:, None], conditions, num_samples=1000)
    assert bounds.shape == (6, 2)
    shifted = X[:, None] - conditions * [1.0, -2.0]
    expected = gaussian(LOC[:2], COVARIANCE[:2, :2]).logpdf(shifted)
    np.testing.assert_allclose(bounds, expected, atol=0.4)
    with pytest.raises(ValueError, match="Augmented expected a condition"):
        dist.lower_bound(jr.key(0), X)


def test_rows_of_no_use_spoil_no_gradient_of_a_bound():
    dist = Augmented(MultivariateNormal(LOC, COVARIANCE), posterior())
    x = np.concatenate([X[:2], [[math.inf, 0.0], [math.nan, 0.0]]])

    def total(dist):
        found = dist.lower_bound(jr.key(0), x)
        return jnp.where(jnp.isfinite(found), found, 0).sum(), found

    gradient, found = eqx.filter_grad(total, has_aux=True)(dist)
    assert found[2] == -math.inf
    assert np.isnan(found[3])
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.abs(leaf).max() > 0 for leaf in leaves)


# Fits.


def test_augmented_distribution_is_trained_on_its_bound():
    """To the entropy of normal data, where the noise is as it should be."""
    covariance = np.array([[1.0, 0.6], [0.6, 0.7]])
    data = RNG.multivariate_normal([0.5, -0.3], covariance, size=600)
    pair = MultivariateNormal(np.zeros(3), 1.5 * np.eye(3) + 0.5)
    net = linear(jr.key(0), np.zeros((1, 2)), np.zeros(1))
    dist = Augmented(pair, Transformed(Normal(np.zeros(1)), AdditiveCondition(net, (1,), (2,))))
    options = {"learning_rate": 5e-2, "max_epochs": 30, "max_patience": 30, "show_progress": False}
    fitted, losses = fit_to_data(jr.key(1), dist, data, **options, loss_fn=MaximumLikelihoodLoss(num_samples=2))
    assert isinstance(fitted, Augmented)
    entropy = gaussian(np.zeros(2), covariance).entropy()
    assert abs(float(fitted.lower_bound(jr.key(2), data).mean()) + entropy) < 0.1
    assert losses["train"][0] > entropy + 0.3


def test_exact_surjections_are_fitted_as_any_density():
    data = RNG.normal(1.0, 0.5, size=(400, 1)) * RNG.choice([-1, 1], size=(400, 1))
    options = {"learning_rate": 5e-2, "max_epochs": 60, "max_patience": 60, "show_progress": False}
    dist = Symmetrised(Folded(Normal(2 * np.ones(1), np.ones(1))))
    fitted, _ = fit_to_data(jr.key(0), dist, data, **options)
    inner = fitted.dist.dist  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose([inner.loc[0], inner.scale[0]], [1.0, 0.5], atol=0.1)


# What is refused, files.


def test_bad_arguments_of_surjections_are_one_clear_line(unchecked_annotations):
    normal, positive = StandardNormal((2,)), Exponential(np.ones(2))
    pair = StandardNormal((3,))
    split = eqx.partition(Augmented(pair, normal), eqx.is_array)
    conditional = Transformed(StandardNormal((1,)), AdditiveCondition(jnp.sum, (1,), (3,)))
    cases = [
        (lambda: Folded(Affine()), TypeError, "Folded expected a distribution as dist, got Affine"),  # pyright: ignore
        (lambda: Folded(normal, columns=[True]), ValueError, r"a boolean for each column of events of \(2,\)"),
        (lambda: Folded(StandardNormal((13,))), ValueError, "at most 12 coordinates to fold.* got 13"),
        (lambda: Symmetrised(normal), ValueError, "expected a distribution over positive numbers, got one of real"),
        (lambda: Symmetrised(normal, columns=[True, False]), ValueError, "over positive numbers"),
        (lambda: Exchangeable(normal), ValueError, "over increasing vectors, got one of real support"),
        (lambda: Exchangeable(Normal()), ValueError, r"of vectors, got events of shape \(\)"),
        (lambda: Exchangeable(positive), ValueError, "over increasing vectors, got one of positive support"),
        (lambda: Augmented(pair, pair), ValueError, r"fewer entries on the first axis.* got shapes \(3,\) and \(3,\)"),
        (lambda: Augmented(pair, Affine()), TypeError, "expected a distribution as noise, got Affine"),  # pyright: ignore
        (lambda: Augmented(Normal(), Normal()), ValueError, r"got shapes \(\) and \(\)"),
        (lambda: Augmented(pair, conditional), ValueError, r"conditions of the shape \(2,\) of x, got \(3,\)"),
        (lambda: Augmented(pair, normal).lower_bound(0, np.ones((3, 1))), TypeError, "key"),  # pyright: ignore
        (lambda: Augmented(pair, normal).lower_bound(jr.key(0), np.ones((3, 2))), ValueError, r"expected x of shape"),
        (lambda: Augmented(pair, normal).sample(0), TypeError, "key"),  # pyright: ignore
        (lambda: MaximumLikelihoodLoss(0), ValueError, "num_samples must be an integer of at least 1"),
        (
            lambda: MaximumLikelihoodLoss()(*split, jnp.ones((3, 1))),
            ValueError,
            "expected a key",
        ),
    ]
    for make, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_supports_of_surjections_tell_what_is_inside():
    folded = Folded(StandardNormal((2,)), columns=[True, False])
    assert [bool(folded.support.contains(jnp.array(x))) for x in ([0.0, -1.0], [-1.0, 0.0])] == [True, False]
    assert Folded(Uniform(-np.ones(2), np.ones(2))).log_prob(np.array([0.5, 1.5])) == -math.inf
    assert Symmetrised(Folded(StandardNormal((2,)))).support.kind == "real"


def test_augmented_distributions_are_saved_and_loaded(tmp_path):
    dist = Augmented(MultivariateNormal(LOC, COVARIANCE), posterior())
    flowlib.save(tmp_path / "pair.flowlib", dist)
    loaded = flowlib.load(tmp_path / "pair.flowlib")
    np.testing.assert_array_equal(loaded.lower_bound(jr.key(0), X), dist.lower_bound(jr.key(0), X))
