"""The von Mises distribution beside SciPy's, and what holds on circles."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sps
import scipy.stats as stats

import flowlib.bijections as bij
import flowlib.distributions as dst
from contract_tools import EPS, FLOAT, X64
from density_tools import close, gradients, kolmogorov_smirnov

LOC = np.array([0.0, 1.5, -3.0, 2.9, 0.4, -1.0], FLOAT)
CONCENTRATION = np.array([1e-3, 0.7, 3.0, 40.0, 150.0, 1e6], FLOAT)
DIST = dst.VonMises(LOC, CONCENTRATION)
REFERENCE: Any = stats.vonmises(CONCENTRATION.astype(float), LOC.astype(float))


def wrapped(x):
    return np.mod(x + np.pi, 2 * np.pi) - np.pi


def points() -> np.ndarray:
    """Angles about as far from the centre as the density is wide, and everywhere."""
    steps = np.linspace(-3, 3, 7)[:, None] / np.sqrt(CONCENTRATION + 1)
    return np.clip(wrapped(np.concatenate([LOC + steps, 0 * LOC + np.linspace(-3, 3, 5)[:, None]])), -np.pi, np.pi)


def test_density_and_gradients_are_those_of_scipy():
    x = points().astype(FLOAT)
    expected = REFERENCE.logpdf(x.astype(float))
    root = 1 + CONCENTRATION.astype(float).max() ** 0.5
    close(DIST.log_prob(x), expected.sum(1), 10 * EPS * root)
    (in_loc, in_concentration), in_x = gradients(dst.VonMises, (LOC, CONCENTRATION), x)
    k, away = CONCENTRATION.astype(float), x.astype(float) - LOC
    slope = k * np.sin(away)
    close(in_x, -slope, 1e2 * EPS)
    close(in_loc, slope, 1e2 * EPS)
    # cos(away) - I1/I0, each less 1.
    mean = sps.ive(1, k) / sps.ive(0, k)
    exact = -2 * np.sin(away / 2) ** 2 + (1 - mean)
    exact[:, 4:] = -2 * np.sin(away[:, 4:] / 2) ** 2 + 1 / (2 * k[4:]) + 1 / (8 * k[4:] ** 2) + 1 / (8 * k[4:] ** 3)
    np.testing.assert_allclose(in_concentration * k, exact * k, rtol=1e-3 if not X64 else 1e-7, atol=1e-5)


def test_cdf_starts_at_the_cut_and_is_the_integral_of_the_density():
    x = points().astype(FLOAT)
    for i in range(len(LOC)):
        one = dst.VonMises(LOC[i], CONCENTRATION[i])
        cdf, slope = jax.vmap(jax.value_and_grad(one.cdf))(jnp.asarray(x[:, i]))
        reference = stats.vonmises(float(CONCENTRATION[i]), float(LOC[i]))
        # SciPy's goes on beyond the cut, and its normal approximation has an error of its own.
        exact = reference.cdf(x[:, i].astype(float)) - reference.cdf(-np.pi)
        close(cdf, exact, max(1e-6 if CONCENTRATION[i] > 50 else 1e-12, 40 * EPS * (1 + CONCENTRATION[i] ** 0.5)))
        np.testing.assert_allclose(slope, np.exp(one.log_prob(x[:, i])), rtol=1e-3, atol=1e-5)
    close(DIST.cdf(np.full(6, -4.0)), np.zeros(6))
    close(DIST.cdf(np.full(6, np.pi)), np.ones(6))
    assert np.isnan(DIST.cdf(np.full(6, np.nan))).all()


def test_entropy_and_circular_moments_are_those_of_scipy():
    k = CONCENTRATION.astype(float)
    for i in range(len(LOC)):
        entropy = stats.vonmises(k[i], 0.0).entropy() if k[i] < 1e5 else stats.norm.entropy(scale=k[i] ** -0.5)
        close(dst.VonMises(LOC[i], CONCENTRATION[i]).entropy(), entropy, 1e-6 if k[i] > 1e5 else 1e-10 + 20 * EPS)
    close(DIST.circular_mean, LOC)
    close(dst.VonMises(5.0, 1.0).circular_mean, 5 - 2 * np.pi)
    np.testing.assert_allclose(DIST.circular_variance, 1 - sps.ive(1, k) / sps.ive(0, k), rtol=1e-5, atol=1e-13)


def test_draws_follow_the_cdf(key):
    x, log_prob = DIST.sample_and_log_prob(key, 4000)
    assert DIST.support.contains(x)
    # Around the centre, where SciPy's cdf is the one of the normal for large concentrations.
    away = wrapped(np.asarray(x, np.float64) - LOC)
    kolmogorov_smirnov(np.stack([stats.vonmises.cdf(a, k) for a, k in zip(away.T, CONCENTRATION, strict=True)], 1))
    close(log_prob, DIST.log_prob(x), 1e3 * EPS)
    one_by_one = jax.vmap(dst.VonMises(0.3, 2.0).sample)(jax.random.split(key, 2000))
    kolmogorov_smirnov(stats.vonmises.cdf(np.asarray(one_by_one, np.float64) - 0.3, 2.0))


def test_draws_move_with_the_parameters_so_that_means_do(key):
    """The gradient of the mean of cos x over draws is that of I1/I0 cos(loc), within 6 standard errors."""

    def mean_cosine(loc, concentration):
        return jnp.cos(dst.VonMises(loc, concentration).sample(key, 4000)).mean()

    loc, k = 0.5, 2.0
    in_loc, in_concentration = jax.grad(mean_cosine, (0, 1))(loc, k)
    ratio = sps.iv(1, k) / sps.iv(0, k)
    assert abs(in_loc + ratio * np.sin(loc)) < 6 * 0.5 / np.sqrt(4000)
    assert abs(in_concentration - (1 - ratio / k - ratio**2) * np.cos(loc)) < 6 * 0.2 / np.sqrt(4000)


def test_uniform_angles_and_von_mises_angles_are_bases_on_the_circle(key):
    shift = eqx.tree_at(lambda b: b.shift, bij.CircularShift(np.pi), jnp.asarray(2.0))
    for base in (dst.Uniform(-np.pi, np.pi), dst.VonMises(0.3, 2.0)):
        flow = dst.Transformed(base, shift)
        x, log_prob = flow.sample_and_log_prob(key, 100)
        assert (np.abs(x) <= FLOAT(np.pi)).all()
        expected = base.log_prob(np.clip(wrapped(np.asarray(x, np.float64) - 2), -3.1415, 3.1415).astype(FLOAT))
        np.testing.assert_allclose(log_prob, expected, atol=1e-3)
    close(dst.VonMises(0.0, 1e-12).log_prob(3.0), -np.log(2 * np.pi), 1e-11 + EPS)


@pytest.mark.parametrize(
    ("args", "message"), [((0.0, 0.0), "concentration .*positive"), ((np.inf, 1.0), "loc .*finite")]
)
def test_bad_parameters_are_a_one_line_error(args, message):
    with pytest.raises(ValueError, match=message) as caught:
        dst.VonMises(*args)
    assert "\n" not in str(caught.value)
