"""Mixtures of unlike distributions, and normal mixtures that start from clusters of data."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special as sps
import scipy.stats as stats

import flowlib.distributions as dst
from cases_distributions import shifted
from flowlib.support import Positive, Real, Subset

X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
EPS = float(np.finfo(np.float64 if X64 else np.float32).eps)

WEIGHTS = np.array([0.2, 0.5, 0.3])
PARTS = [stats.norm(-2.0, 0.5), stats.t(3.0, 1.0, 2.0), stats.expon(scale=0.5)]


def unlike():
    return dst.Mixture([dst.Normal(-2.0, 0.5), dst.StudentT(3.0, 1.0, 2.0), dst.Exponential(2.0)], 10 * WEIGHTS)


# Components of any kinds.


def test_mixture_of_unlike_parts_is_the_weighted_sum_of_scipys():
    mixture = unlike()
    x = np.array([-3.0, -1.0, 0.0, 0.4, 2.0, 30.0])
    parts: Any = PARTS
    density = sum(w * part.pdf(x) for w, part in zip(WEIGHTS, parts, strict=True))
    np.testing.assert_allclose(mixture.log_prob(x), np.log(density), rtol=100 * EPS, atol=100 * EPS)
    cdf = sum(w * part.cdf(x) for w, part in zip(WEIGHTS, PARTS, strict=True))
    np.testing.assert_allclose(mixture.cdf(x), cdf, rtol=200 * EPS)
    means, variances = np.array([part.stats("mv") for part in PARTS]).T
    np.testing.assert_allclose(mixture.weights, WEIGHTS, rtol=20 * EPS)
    np.testing.assert_allclose(mixture.mean, WEIGHTS @ means, rtol=100 * EPS)
    second = WEIGHTS @ (variances + means**2) - (WEIGHTS @ means) ** 2
    np.testing.assert_allclose(mixture.variance, second, rtol=100 * EPS)


def test_draws_of_unlike_parts_follow_the_cdf_of_scipy(key):
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-6."""
    x = np.asarray(unlike().sample(key, 4000), np.float64)
    uniform = sum(w * part.cdf(x) for w, part in zip(WEIGHTS, PARTS, strict=True))
    assert stats.kstest(uniform, "uniform").pvalue > 1e-6


def test_weights_of_unlike_parts_train():
    """The gradient in the logits is the posterior of the component less its weight."""
    mixture = dst.Mixture([dst.Normal(0.0, 1.0), dst.Laplace(3.0, 1.0)], [0.25, 0.75])
    grads = eqx.filter_grad(lambda dist: dist.log_prob(1.0))(mixture)
    terms = np.log([0.25, 0.75]) + [stats.norm.logpdf(1.0), stats.laplace.logpdf(1.0, 3.0)]
    leaf = jax.tree.leaves(grads._log_weights)[0]
    np.testing.assert_allclose(leaf, sps.softmax(terms) - [0.25, 0.75], atol=10 * EPS)


def test_support_of_a_mixture_is_what_is_known_of_the_union():
    positive = dst.Mixture([dst.Exponential(1.0), dst.Gamma(2.0, 1.0)])
    assert positive.support == Positive(closed=True)
    assert isinstance(unlike().support, Real)
    either = dst.Mixture([dst.LogNormal(), dst.Uniform(-2.0, -1.0)])
    assert isinstance(either.support, Subset)
    expected = [np.log(0.5), np.log(0.5) + stats.lognorm.logpdf(1.0, 1.0), -np.inf]
    np.testing.assert_allclose(either.log_prob(np.array([-1.5, 1.0, -0.5])), expected, rtol=100 * EPS)


def test_conditional_parts_stand_beside_unconditional_ones(key):
    own = shifted(key, 2)
    mixture = dst.Mixture([own, dst.StandardNormal((2,))])
    x, condition = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    expected = np.logaddexp(own.log_prob(x, condition), dst.StandardNormal((2,)).log_prob(x)) - np.log(2)
    np.testing.assert_allclose(mixture.log_prob(x, condition), expected, rtol=100 * EPS)
    assert mixture.sample(key, 4, condition).shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("dists", "weights", "kind", "message"),
    [
        ([], None, ValueError, "at least one component"),
        ([dst.Normal(), 3.0], None, TypeError, "distributions.*float"),
        ([dst.Normal(), dst.StandardNormal((2,))], None, ValueError, r"one shape.*\(\), \(2,\)"),
        ([dst.Normal(), dst.Dequantized(dst.Normal())], None, ValueError, "whole numbers"),
        ([dst.Normal(), dst.Laplace()], [1.0, 2.0, 3.0], ValueError, r"2 weights.*\(3,\)"),
        ([dst.Normal(), dst.Laplace()], [1.0, 0.0], ValueError, "weights must be positive.*0"),
    ],
)
def test_bad_mixtures_are_a_one_line_error(dists, weights, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        dst.Mixture(dists, weights)
    assert "\n" not in str(caught.value)


# Normal mixtures from data.


CENTRES = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])
COUNTS = [100, 60, 40]
LABELS = np.repeat(np.arange(3), COUNTS)


def clusters() -> np.ndarray:
    """Three clusters far apart, one of them correlated, in unlike units."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    x[LABELS == 1, 1] += 2 * x[LABELS == 1, 0]
    return (CENTRES[LABELS] + x) * [1.0, 1000.0] + [3.0, -500.0]


def matched(means: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The component at each cluster."""
    units = x.std(0)
    found = np.array([x[k == LABELS].mean(0) for k in range(3)])
    return np.abs((np.asarray(means) - found[:, None]) / units).sum(-1).argmin(1)


def test_gaussian_mixture_starts_at_the_clusters_with_their_covariances():
    x = clusters()
    mixture: Any = dst.gaussian_mixture(jr.key(0), x, components=3)
    means, covariances = eqx.filter_vmap(lambda dist: (dist.loc, dist.covariance))(mixture.dist)
    order = matched(means, x)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(mixture.weights[order], (np.array(COUNTS) + 1) / 203, rtol=1e-4)
    scatter = np.array([np.cov(x[k == LABELS].T, bias=True) * COUNTS[k] for k in range(3)])
    expected = (scatter + 2 * scatter.sum(0) / 200) / (np.array(COUNTS) + 2)[:, None, None]
    units = x.std(0)[:, None] * x.std(0)
    np.testing.assert_allclose(covariances[order] / units, expected / units, atol=5e-4)
    np.testing.assert_allclose(means[order], [x[k == LABELS].mean(0) for k in range(3)], rtol=1e-4)


def test_diagonal_and_tied_mixtures_are_those_of_scipy():
    x = clusters()
    scatter = [np.cov(x[k == LABELS].T, bias=True) * COUNTS[k] for k in range(3)]
    pooled = np.sum(scatter, axis=0) / 200
    weights = (np.array(COUNTS) + 1) / 203
    for kind in ("diagonal", "tied"):
        mixture = dst.gaussian_mixture(jr.key(0), x, components=3, covariance=kind)
        terms = []
        for k in range(3):
            own = np.diag(np.diag((scatter[k] + 2 * pooled) / (COUNTS[k] + 2)))
            covariance = pooled if kind == "tied" else own
            normal: Any = stats.multivariate_normal
            terms.append(np.log(weights[k]) + normal(x[k == LABELS].mean(0), covariance).logpdf(x))
        # The least variance moves a density by little.
        expected = np.asarray(sps.logsumexp(np.asarray(terms), axis=0))
        np.testing.assert_allclose(mixture.log_prob(x), expected, atol=0.05)
        draws = np.asarray(mixture.sample(jr.key(1), 2000))
        np.testing.assert_allclose((draws.mean(0) - x.mean(0)) / x.std(0), 0, atol=0.15)


def weights(mixture: Any):
    return mixture.weights


def test_start_depends_on_key_and_data_only_and_survives_too_few_distinct_rows():
    x = np.repeat([[1.0, 5.0], [2.0, 5.0]], 4, axis=0)
    first, second = (dst.gaussian_mixture(jr.key(3), x, components=4, iterations=2) for _ in range(2))
    assert eqx.tree_equal(first, second)
    assert np.isfinite(first.log_prob(x)).all()
    assert jax.eval_shape(lambda key: weights(dst.gaussian_mixture(key, x, components=4)), jr.key(0)).shape == (4,)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_gradient_steps_raise_the_likelihood_from_the_start(covariance):
    x = jnp.asarray(clusters()) / jnp.array([1.0, 1000.0])
    mixture = dst.gaussian_mixture(jr.key(0), x, components=2, covariance=covariance)

    @eqx.filter_jit
    def climb(dist):
        arrays, rest = eqx.partition(dist, eqx.is_inexact_array)
        loss = jax.value_and_grad(lambda arrays: -eqx.combine(arrays, rest).log_prob(x).mean())

        def step(arrays, _):
            value, grads = loss(arrays)
            return jax.tree.map(lambda a, g: a - 0.02 * g, arrays, grads), value

        return jax.lax.scan(step, arrays, length=30)[1]

    losses = np.asarray(climb(mixture))
    assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.ones(3), {}, r"\(rows, dim\).*\(3,\)"),
        (np.ones((1, 2)), {}, "2 components.*1 rows"),
        (np.array([[1.0], [np.nan]]), {}, "data must be finite.*nan"),
        (np.ones((3, 1)), {"covariance": "spherical"}, "'full', 'diagonal' or 'tied'.*'spherical'"),
        (np.ones((3, 1)), {"iterations": -1}, "iterations.*-1"),
    ],
)
def test_bad_data_of_a_gaussian_mixture_are_a_one_line_error(data, options, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        dst.gaussian_mixture(jr.key(0), data, components=2, **options)
    assert "\n" not in str(caught.value)
