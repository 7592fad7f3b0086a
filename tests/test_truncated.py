"""Truncated and quantized distributions, in bulk and tails, beside quadrature of SciPy's densities."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.stats as stats

import flowlib.distributions as dst
from cases_distributions import shifted
from contract_tools import EPS, FLOAT, X64
from density_tools import close, kolmogorov_smirnov
from flowlib.support import Integers, Interval
from flowlib.train import fit_to_data
from registry import only_in_full

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def log_integral(reference: Any, lower: float, upper: float) -> float:
    """log of the integral of a density, relative to its largest term; `upper` may be infinite."""
    if np.isinf(upper):
        return float(reference.logsf(lower))
    if np.isinf(lower):
        return float(reference.logcdf(upper))
    ends = np.linspace(lower, upper, 41)
    x = ((ends[1:] + ends[:-1]) / 2)[:, None] + np.diff(ends)[:, None] / 2 * NODES
    with np.errstate(divide="ignore"):
        terms = np.log(WEIGHTS) + reference.logpdf(x) + np.log(np.diff(ends)[:, None] / 2)
    return float(terms.max() + np.log(np.exp(terms - terms.max()).sum()))


# A family, SciPy's, and intervals in both tails and across the middle.
FAMILIES: list[tuple[Callable, Any, list[tuple[float, float]]]] = [
    (partial(dst.Normal, 1.0, 0.5), stats.norm(1.0, 0.5), [(0.5, 2.0), (5.0, 6.0), (-8.0, -7.5), (9.0, np.inf)]),
    (partial(dst.Cauchy, 0.0, 2.0), stats.cauchy(0.0, 2.0), [(-3.0, 1.0), (1e3, 3e3), (-5e3, -1e3), (-np.inf, -10.0)]),
    (
        partial(dst.Laplace, 0.0, 0.5),
        stats.laplace(0.0, 0.5),
        [(0.1, 0.7), (40.0, 42.0), (-42.0, -41.0), (5.0, np.inf)],
    ),
    (partial(dst.Logistic, 0.0, 0.5), stats.logistic(0.0, 0.5), [(-1.0, 1.0), (30.0, 32.0), (-50.0, -48.0)]),
    (
        partial(dst.Gumbel, 0.0, 1.0),
        stats.gumbel_r(0.0, 1.0),
        [(-1.0, 3.0), (45.0, 48.0), (-3.5, -3.0), (10.0, np.inf)],
    ),
    (partial(dst.LogNormal, 0.0, 0.5), stats.lognorm(0.5), [(0.5, 2.0), (30.0, 40.0), (0.01, 0.02), (-1.0, 1.0)]),
    (partial(dst.Exponential, 2.0), stats.expon(scale=0.5), [(0.2, 1.0), (40.0, 41.0), (-1.0, 1e-3), (20.0, np.inf)]),
    (partial(dst.Uniform, -1.0, 3.0), stats.uniform(-1.0, 4.0), [(0.0, 1.0), (2.5, 9.0), (-3.0, -0.9)]),
]
# Those whose quantiles are searched take long to compile.
SEARCHED: list[tuple[Callable, Any, list[tuple[float, float]]]] = [
    (
        partial(dst.Gamma, 2.5, 0.5),
        stats.gamma(2.5, scale=0.5),
        [(0.5, 2.0), (20.0, 21.0), (-1.0, 0.01), (15.0, np.inf)],
    ),
    (partial(dst.Beta, 2.0, 3.0), stats.beta(2.0, 3.0), [(0.2, 0.5), (-1.0, 0.01), (0.9, 0.99)]),
    (partial(dst.StudentT, 2.5, 1.0, 0.5), stats.t(2.5, 1.0, 0.5), [(0.0, 2.0), (50.0, 90.0), (-np.inf, -10.0)]),
]
ALL = [*FAMILIES, *[pytest.param(*family, marks=only_in_full) for family in SEARCHED]]
ANYTHING: Any = 3.0
LEVELS = np.array([0.0, 1e-3, 0.3, 0.5, 0.9, 1.0, np.nan, -0.1])


@eqx.filter_jit
def _evaluate(make, ends, x):
    def one(ends, x):
        dist = dst.Truncated(make(), *ends)
        quantile = dist.quantile(jnp.asarray(LEVELS, x.dtype))
        return dist.log_prob(x), dist.cdf(x), quantile, jax.vmap(jax.grad(dist.log_prob))(x)

    return jax.vmap(one)(ends, x)


def places(reference: Any, lower: float, upper: float) -> np.ndarray:
    """Two points between the ends, one beyond each, and NaN."""
    start, end = max(lower, reference.support()[0]), min(upper, reference.support()[1])
    steps = np.array([0.1, 0.5])
    inside = start + steps * min(end - start, 1.0) if np.isfinite(start) else end - steps
    return np.array([*inside, lower - 1, upper + 1, np.nan])


@pytest.mark.parametrize(("make", "reference", "intervals"), ALL, ids=lambda arg: getattr(arg, "func", arg))
def test_truncated_density_cdf_and_quantiles_are_quadratures_of_scipys_density(make, reference, intervals):
    x = np.stack([places(reference, *ends) for ends in intervals]).astype(FLOAT)
    found = _evaluate(make, jnp.asarray(intervals, FLOAT), jnp.asarray(x))
    for (lower, upper), row, log_prob, cdf, quantile, slope in zip(intervals, x, *map(np.asarray, found), strict=True):
        start, end = max(lower, reference.support()[0]), min(upper, reference.support()[1])
        mass, inside = log_integral(reference, start, end), row[:2].astype(float)
        size = 1 + abs(mass)
        wanted = reference.logpdf(inside) - mass
        close(log_prob, [*wanted, -np.inf, -np.inf, np.nan], 200 * EPS * size + 1e-13)
        expected = [np.exp(log_integral(reference, start, v) - mass) for v in inside]
        close(cdf, [*expected, 0.0, 1.0, np.nan], 400 * EPS * size + 1e-12)
        close(quantile[[0, 5]], [start, end])
        assert np.isnan(quantile[6:]).all()
        assert np.isfinite(slope[:4]).all()
        for level, value in zip(LEVELS[1:5], quantile[1:5].astype(float), strict=True):
            # How far the probability moves when x is rounded.
            rounding = EPS * abs(value) * np.exp(reference.logpdf(value) - mass)
            reached = np.exp(log_integral(reference, start, value) - mass)
            assert abs(reached - level) < 400 * EPS * size + 4 * rounding + 1e-11, (lower, upper, level)


def test_families_whose_quantiles_are_searched_are_truncated_too(key):
    reference: Any = stats.beta(2.0, 3.0)
    x, log_prob = dst.Truncated(dst.Beta(2.0, 3.0), 0.2, 0.5).sample_and_log_prob(key, 2000)
    low, mass = reference.cdf(0.2), reference.cdf(0.5) - reference.cdf(0.2)
    kolmogorov_smirnov((reference.cdf(np.asarray(x, np.float64)) - low) / mass)
    close(log_prob, reference.logpdf(np.asarray(x, np.float64)) - np.log(mass), 200 * EPS)


def test_derivatives_of_searched_quantiles_are_differences_of_scipys():
    in_a, in_q = jax.grad(lambda a, q: dst.Gamma(a, 1.0).quantile(q), (0, 1))(2.5, 0.3)
    tolerance = 1e-4 if not X64 else 1e-7
    close(in_a, (stats.gamma.ppf(0.3, 2.5 + 1e-4) - stats.gamma.ppf(0.3, 2.5 - 1e-4)) / 2e-4, tolerance)
    close(in_q, 1 / stats.gamma.pdf(stats.gamma.ppf(0.3, 2.5), 2.5), tolerance)


def test_draws_follow_the_truncated_density(key):
    for dist, reference in [
        (dst.Truncated(dst.Normal(0.0, 1.0), 6.0, jnp.inf), stats.truncnorm(6.0, np.inf)),
        (dst.Truncated(dst.Normal(0.0, 1.0), -2.0, 0.5), stats.truncnorm(-2.0, 0.5)),
    ]:
        x, log_prob = dist.sample_and_log_prob(key, 3000)
        kolmogorov_smirnov(reference.cdf(np.asarray(x, np.float64)))
        close(log_prob, dist.log_prob(x), 1e3 * EPS)


def test_draws_beyond_the_range_of_the_cdf_are_still_spread(key):
    """At 50 standard deviations the cdf is 0 in any precision; the excess is exponential of rate 50 nearly."""
    x = dst.Truncated(dst.Normal(0.0, 1.0), 50.0).sample(key, 2000)
    excess = np.asarray(x, np.float64) - 50
    assert abs(excess.mean() * 50 - 1) < 0.15
    assert len(np.unique(excess)) > (1900 if X64 else 500)


def test_ends_differ_in_each_dimension_and_do_not_train(key):
    lower, upper = np.array([-np.inf, 0.0, 2.0]), np.array([0.0, np.inf, 3.0])
    dist = dst.Truncated(dst.Joint([dst.Normal(), dst.Laplace(), dst.Exponential(1.0)]), lower, upper)
    parts: list[Any] = [stats.truncnorm(-np.inf, 0.0), stats.expon(), stats.truncexpon(1.0, loc=2.0)]
    x = np.array([-0.5, 1.0, 2.5])
    close(dist.log_prob(x), sum(p.logpdf(v) for p, v in zip(parts, x, strict=True)))
    draws = np.asarray(dist.sample(key, 2000), np.float64)
    kolmogorov_smirnov(np.stack([p.cdf(column) for p, column in zip(parts, draws.T, strict=True)], 1))
    grads = eqx.filter_grad(lambda dist: dist.log_prob(x))(dist)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves((grads._lower, grads._upper)))


def test_gradient_in_the_parameters_is_that_of_the_normalised_density():
    """By differences of SciPy's."""

    def log_prob(loc, scale):
        return dst.Truncated(dst.Normal(loc, scale), 1.0, 2.0).log_prob(1.2)

    loc, scale, step = 0.3, 0.5, 1e-5
    in_loc, in_scale = jax.grad(log_prob, (0, 1))(loc, scale)

    def exact(loc, scale):
        return stats.truncnorm.logpdf(1.2, (1 - loc) / scale, (2 - loc) / scale, loc, scale)

    close(in_loc, (exact(loc + step, scale) - exact(loc - step, scale)) / (2 * step), 1e-6 if X64 else 1e-4)
    close(in_scale, (exact(loc, scale + step) - exact(loc, scale - step)) / (2 * step), 1e-6 if X64 else 1e-4)


# Moments and entropy.


def expectations(reference: Any, lower: float, upper: float) -> tuple[float, float, float]:
    """Mean, variance and entropy between two ends, by SciPy's adaptive quadrature on both sides of the median."""
    start, end = max(lower, reference.support()[0]), min(upper, reference.support()[1])
    middle = np.clip(reference.median(), start, end)
    peak = reference.logpdf(middle)

    def log_density(x):
        with np.errstate(over="ignore"):
            return max(reference.logpdf(x), -1e4)

    def integral(fn):
        parts = [(start, middle), (middle, end)]
        one = partial(scipy.integrate.quad, epsabs=1e-300, epsrel=1e-12, limit=400)
        return sum(one(lambda x: fn(x) * np.exp(log_density(x) - peak), *p)[0] for p in parts if p[0] < p[1])

    mass = integral(lambda x: 1.0)
    # From the point of most density on, so that far out nothing cancels.
    mean = middle + integral(lambda x: x - middle) / mass
    variance = integral(lambda x: (x - mean) ** 2) / mass
    return mean, variance, np.log(mass) + peak - integral(log_density) / mass


# A family, SciPy's, and intervals: a moderate one, one without an upper end or with both ends in a tail.
INTERVALS: list[Any] = [
    (partial(dst.Normal, 0.0, 1.0), stats.norm(), [(-1.0, 2.0), (8.0, np.inf), (-9.0, -8.5)]),
    (partial(dst.Logistic, 0.5, 0.5), stats.logistic(0.5, 0.5), [(-1.0, 1.0), (5.0, np.inf), (-np.inf, 2.0)]),
    (partial(dst.Laplace, 0.0, 0.5), stats.laplace(0.0, 0.5), [(-0.3, 0.7), (5.0, np.inf), (-np.inf, 0.2)]),
    (partial(dst.Gumbel, 0.0, 1.0), stats.gumbel_r(), [(-1.0, 3.0), (10.0, np.inf), (-np.inf, 0.0)]),
    (partial(dst.Exponential, 2.0), stats.expon(scale=0.5), [(0.2, 1.0), (20.0, np.inf), (-1.0, 3.0)]),
    (partial(dst.Uniform, -1.0, 3.0), stats.uniform(-1.0, 4.0), [(0.0, 1.0), (2.5, np.inf), (-3.0, -0.9)]),
    (partial(dst.LogNormal, 0.0, 0.5), stats.lognorm(0.5), [(0.5, 2.0), (2.0, np.inf), (-1.0, 1.0)]),
    (partial(dst.Cauchy, 0.0, 2.0), stats.cauchy(0.0, 2.0), [(-3.0, 1.0), (1e3, 3e3), (-5e3, -1e3)]),
]
INTERVALS += [
    pytest.param(*family, marks=only_in_full)
    for family in [
        (partial(dst.Gamma, 2.5, 0.5), stats.gamma(2.5, scale=0.5), [(0.5, 2.0), (15.0, np.inf), (-1.0, 0.5)]),
        (partial(dst.Beta, 2.0, 3.0), stats.beta(2.0, 3.0), [(0.2, 0.5), (0.9, 0.99), (-1.0, 0.3)]),
        (partial(dst.StudentT, 5.0, 0.0, 1.0), stats.t(5.0), [(-1.0, 3.0), (0.0, np.inf), (-np.inf, -10.0)]),
    ]
]


@eqx.filter_jit
def _moments(make, ends):
    def one(ends):
        dist = dst.Truncated(make(), *ends)
        return jnp.stack([dist.mean, dist.variance, dist.entropy()])

    return jax.vmap(one)(ends)


@pytest.mark.parametrize(("make", "reference", "intervals"), INTERVALS, ids=lambda arg: getattr(arg, "func", arg))
def test_moments_and_entropy_are_quadratures_of_scipys_density(make, reference, intervals):
    found = np.asarray(_moments(make, jnp.asarray(intervals, FLOAT)), np.float64)
    tolerance = 1e-10 if X64 else 1e-5
    for (mean, variance, entropy), ends in zip(found, intervals, strict=True):
        wanted = expectations(reference, *ends)
        assert abs(mean - wanted[0]) < tolerance * (abs(wanted[0]) + np.sqrt(wanted[1])), ends
        assert abs(variance / wanted[1] - 1) < tolerance, ends
        assert abs(entropy - wanted[2]) < tolerance * (1 + abs(wanted[2])), ends


def test_moments_far_out_are_those_of_the_asymptotic_series():
    """Of a normal beyond a: a + 1/a - 2/a^3 + 10/a^5 and 1/a^2 - 6/a^4 + 50/a^6, but for terms of 1e-8 of these."""
    a = np.array([50.0, -50.0])
    ends = np.array([50.0, -np.inf]), np.array([np.inf, -50.0])
    dist = dst.Truncated(dst.Normal(np.zeros(2), 1.0), *ends)
    np.testing.assert_allclose(dist.mean, a + 1 / a - 2 / a**3 + 10 / a**5, rtol=1e-7 if not X64 else 1e-10)
    np.testing.assert_allclose(dist.variance, 1 / a**2 - 6 / a**4 + 50 / a**6, rtol=1e-3 if not X64 else 1e-6)


def test_moments_that_do_not_exist_are_infinite_or_nan():
    parts = [dst.Normal(), dst.Cauchy(), dst.Cauchy(), dst.Cauchy(), dst.StudentT(1.5), dst.Cauchy()]
    lower, upper = [-1.0, -np.inf, 0.0, -np.inf, 0.0, -3.0], [np.inf, np.inf, np.inf, 1.0, np.inf, 3.0]
    dist = dst.Truncated(dst.Joint(parts), np.array(lower), np.array(upper))
    folded = 2 * stats.t.pdf(0.0, 1.5) * 1.5 / 0.5
    normal = stats.truncnorm(-1.0, np.inf)
    close(dist.mean, [normal.mean(), np.nan, np.inf, -np.inf, folded, 0.0])
    close(dist.variance, [normal.var(), np.nan, np.inf, np.inf, np.inf, 3 / np.arctan(3.0) - 1])
    # Truncated again, the inner one's moments tell.
    again = dst.Truncated(dst.Truncated(dst.Cauchy(), 0.0), jnp.asarray(1.0), 5.0)
    close(again.mean, np.log(26 / 2) / 2 / (np.arctan(5.0) - np.pi / 4))
    assert dst.Truncated(dst.Truncated(dst.Cauchy(), 0.0), 1.0).mean == np.inf
    # An infinite moment does not spoil the gradient of one that is not.
    ends = np.array([1.0, np.inf])
    assert np.isfinite(jax.grad(lambda scale: dst.Truncated(dst.Cauchy(np.zeros(2), scale), 0.0, ends).mean[0])(1.0))


def test_moments_close_to_those_that_do_not_exist_count_the_whole_tail():
    """Half a Student t, whose moments have closed forms, and their derivatives in the degrees of freedom."""

    def mean(df):
        return 2 * stats.t.pdf(0.0, df) * df / (df - 1)

    def variance(df):
        return df / (df - 2) - mean(df) ** 2

    def half(df):
        return dst.Truncated(dst.StudentT(df, 0.0, 1.0), 0.0)

    df, step = 2.1, 1e-5
    tolerance = 1e-10 if X64 else 1e-5
    np.testing.assert_allclose(half(df).mean, mean(df), rtol=tolerance)
    np.testing.assert_allclose(half(df).variance, variance(df), rtol=tolerance)
    # Squares far out would overflow in float32.
    wide = dst.Truncated(dst.StudentT(df, 0.0, 1e6), 0.0)
    np.testing.assert_allclose(wide.variance, 1e12 * variance(df), rtol=tolerance)
    for name, exact in [("mean", mean), ("variance", variance)]:
        found = jax.grad(lambda df, name=name: getattr(half(df), name))(df)
        np.testing.assert_allclose(found, (exact(df + step) - exact(df - step)) / (2 * step), rtol=1e-5)


def test_gradients_of_mean_and_entropy_are_those_of_the_closed_forms():
    """Of a normal above a, with survival S and hazard h at z = (a - loc) / scale.

    The mean is loc + scale h, and the entropy that of the normal + log S + z h / 2.
    """
    loc, scale, end = 0.3, 0.7, 1.0

    def mean(loc, scale):
        return dst.Truncated(dst.Normal(loc, scale), end).mean

    def entropy(loc, scale):
        return dst.Truncated(dst.Normal(loc, scale), end).entropy()

    z = (end - loc) / scale
    hazard = np.exp(stats.norm.logpdf(z) - stats.norm.logsf(z))
    slope = hazard * (hazard - z)
    tolerance = 1e-10 if X64 else 1e-5
    close(mean(loc, scale), loc + scale * hazard, tolerance)
    close(jax.grad(mean, (0, 1))(loc, scale), [1 - slope, hazard - z * slope], tolerance)
    wanted = stats.norm.entropy() + np.log(scale) + stats.norm.logsf(z) + z * hazard / 2
    close(entropy(loc, scale), wanted, tolerance)
    in_z = -hazard + (hazard + z * slope) / 2
    close(jax.grad(entropy, (0, 1))(loc, scale), [-in_z / scale, (1 - z * in_z) / scale], tolerance)
    close(jax.grad(jax.grad(mean))(loc, scale), (slope * (2 * hazard - z) - hazard) / scale, 100 * tolerance)


def test_a_truncation_of_a_truncation_is_that_to_the_common_interval():
    once, twice = dst.Truncated(dst.Normal(), 6.0, 9.0), dst.Truncated(dst.Truncated(dst.Normal(), 4.0), 6.0, 9.0)
    q = np.array([0.0, 1e-6, 0.3, 0.999, 1.0], FLOAT)
    np.testing.assert_allclose(twice.quantile(q), once.quantile(q), rtol=1e-5 if not X64 else 1e-10)
    for name in ("mean", "variance"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-4 if not X64 else 1e-9)
    np.testing.assert_allclose(twice.entropy(), once.entropy(), rtol=1e-4 if not X64 else 1e-9)


# Quantized.


CELLS: list[tuple[Callable, Any, list[int]]] = [
    *[(make, reference, [-3, 0, 1, 4]) for make, reference, _ in FAMILIES[:7]],
    (partial(dst.Normal, 0.0, 1.0), stats.norm(), [-11, 10, 30]),
    (partial(dst.Gumbel, 0.0, 1.0), stats.gumbel_r(), [-5, 60]),
    (partial(dst.Exponential, 1.0), stats.expon(), [0, 60]),
    (partial(dst.StudentT, 2.5, 0.0, 1.0), stats.t(2.5), [-60, 0, 50]),
    (partial(dst.Gamma, 2.0, 1.0), stats.gamma(2.0), [0, 3, 40]),
    (partial(dst.Gamma, 500.0, 0.1), stats.gamma(500.0, scale=0.1), [35, 50, 70]),
]


@pytest.mark.parametrize(("make", "reference", "numbers"), CELLS)
def test_probability_of_a_whole_number_is_the_integral_over_its_cell(make, reference, numbers):
    inside = [n for n in numbers if n >= reference.support()[0]]
    expected = [log_integral(reference, n, n + 1) for n in inside]
    found = dst.Quantized(make()).log_prob(np.array(inside, FLOAT))
    # A probability that is a difference loses what the two have in common.
    close(found, expected, 1e-4 if not X64 else 1e-9)


def test_quantized_probabilities_sum_to_one_and_the_ends_take_the_tails(key):
    dist = dst.Quantized(dst.Normal(2.0, 3.0), values=Integers(0, 7))
    n = np.arange(8.0)
    expected = np.diff(stats.norm.cdf(np.array([-np.inf, *n[1:], np.inf]), 2.0, 3.0))
    close(np.exp(dist.log_prob(n)), expected)
    close(dist.cdf(np.array([-1.0, *n, 7.5, 9.0])), [0, *np.cumsum(expected)[:-1], 1, 1, 1])
    np.testing.assert_array_equal(dist.log_prob(np.array([-1.0, 8.0, 0.5])), -np.inf)
    draws = np.asarray(dist.sample(key, 4000))
    share = (draws[:, None] == n).mean(0)
    # Beyond 6 standard errors once in 5e8.
    assert (np.abs(share - expected) < 6 * np.sqrt(expected / 4000)).all()


def test_quantized_takes_truncations_joins_and_mixtures_of_numbers():
    joined = dst.Joint([dst.Truncated(dst.Normal(), -1.0, 2.0), dst.Mixture([dst.Normal(), dst.Logistic(3.0, 1.0)])])
    found = dst.Quantized(joined).log_prob(np.array([[0.0, 1.0], [2.0, 40.0]]))
    first = np.diff(stats.norm.cdf([0, 1])) / np.diff(stats.norm.cdf([-1, 2]))
    second = (np.diff(stats.norm.cdf([1, 2])) + np.diff(stats.logistic.cdf([-2, -1]))) / 2
    close(found, [np.log(first * second)[0], -np.inf])
    far = dst.Quantized(joined.dists[1]).log_prob(20.0)
    np.testing.assert_allclose(far, np.log(0.5) + log_integral(stats.logistic(3.0), 20, 21), rtol=1e-5)


def test_a_quantized_distribution_is_fitted_to_whole_numbers():
    x = np.floor(np.random.default_rng(0).normal(5.3, 0.6, size=(400, 1)))
    start: Any = dst.Quantized(dst.Normal(np.array([4.0]), np.array([2.0])))
    fitted, _ = fit_to_data(jr.key(0), start, x, max_epochs=150, learning_rate=0.05, show_progress=False)
    close(fitted.dist.loc, [5.3], 0.1)
    close(fitted.dist.scale, [0.6], 0.1)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (partial(dst.Truncated, ANYTHING), TypeError, "expected a distribution, got float"),
        (partial(dst.Truncated, dst.StandardNormal((2,)), 1.0, 0.0), ValueError, "upper - lower .*positive"),
        (partial(dst.Truncated, dst.Normal(), np.nan), ValueError, "lower .*nan"),
        (partial(dst.Truncated, dst.Normal(), np.zeros(2)), ValueError, r"\(\).*\(2,\)"),
        (partial(dst.Truncated, dst.MultivariateNormal(0.0, np.eye(2))), TypeError, "quantiles.*MultivariateNormal"),
        (partial(dst.Truncated, shifted(jr.key(0), 2)), ValueError, r"unconditional.*\(2,\)"),
        (partial(dst.Quantized, dst.Mixture([dst.StandardNormal((2,))])), TypeError, r"independent.*Mixture.*\(2,\)"),
        (partial(dst.Quantized, dst.Joint([dst.Normal(), dst.Dirichlet(np.ones(2))])), TypeError, "a cdf.*Joint"),
        (partial(dst.Quantized, dst.Quantized(dst.Normal())), TypeError, "a cdf.*Quantized"),
    ],
)
def test_what_cannot_be_truncated_or_quantized_is_a_one_line_error(make, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_support_of_a_truncation_lies_between_the_ends():
    support = dst.Truncated(dst.LogNormal(), -1.0, 2.0).support
    found = [bool(support.contains(jnp.asarray(x, FLOAT))) for x in (-0.5, 0.0, 1.0, 2.0, 2.1, np.inf)]
    assert found == [False, False, True, True, False, False]
    assert isinstance(dst.Uniform(0.0, 1.0).support, Interval)
