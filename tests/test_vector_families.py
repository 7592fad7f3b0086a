"""Distributions whose coordinates belong together: Student's t of vectors, Dirichlet, the uniform on a sphere."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special as sps
import scipy.stats as stats

import flowlib.bijections as bij
import flowlib.distributions as dst
from contract_tools import EPS, FLOAT, X64
from density_tools import close, gradients, kolmogorov_smirnov

RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(3, 3))
MATRIX = FACTOR @ FACTOR.T + 0.1 * np.eye(3)
# SciPy declares its parameters too narrowly.
MULTIVARIATE_T: Any = stats.multivariate_t
LOC = np.array([0.5, -2.0, 10.0])


# Student's t.


@pytest.mark.parametrize("df", [0.3, 1.0, 2.5, 30.0, 1e6])
def test_student_t_of_vectors_is_that_of_scipy(df):
    dist, reference = dst.MultivariateStudentT(df, LOC, MATRIX), MULTIVARIATE_T(LOC, MATRIX, df)
    x = np.concatenate([reference.rvs(6, random_state=1), LOC[None], np.full((1, 3), 1e6)])
    close(dist.log_prob(x), reference.logpdf(x), (3e3 if df < 1e5 else 1e4) * EPS + 1e-15 * df)
    expected = reference.entropy() if df < 1e5 else 0.5 * np.linalg.slogdet(2 * np.pi * np.e * MATRIX)[1]
    close(dist.entropy(), expected, 1e3 * EPS if df < 1e5 else 1e-5)
    close(dist.mean, LOC if df > 1 else np.full(3, np.nan))
    variance = np.diag(MATRIX) * df / (df - 2) if df > 2 else np.full(3, np.inf if df > 1 else np.nan)
    close(dist.variance, variance)
    close(dist.df, df)
    close(dist.scale_matrix, MATRIX)


def test_gradients_of_student_t_are_differences_of_scipys():
    df, step = 2.5, 1e-5
    x = np.array([[1.0, 0.0, 9.0], [30.0, -50.0, 100.0], LOC])
    make = partial(_student, MATRIX)
    (in_df, in_loc), in_x = gradients(make, (FLOAT(df), LOC.astype(FLOAT)), x.astype(FLOAT))
    high, low = (MULTIVARIATE_T(LOC, MATRIX, df + sign * step).logpdf(x) for sign in (1, -1))
    tolerance = 1e-6 if X64 else 1e-3
    close(in_df, (high - low) / (2 * step), tolerance)
    reference = MULTIVARIATE_T(LOC, MATRIX, df)
    for i in range(3):
        nudge = step * np.eye(3)[i]
        difference = (reference.logpdf(x + nudge) - reference.logpdf(x - nudge)) / (2 * step)
        close(in_x[:, i], difference, tolerance)
        close(in_loc[:, i], -difference, tolerance)


def _student(matrix, df, loc):
    return dst.MultivariateStudentT(df, loc, matrix)


def test_student_t_far_out_does_not_overflow():
    """Where the square of a coordinate is not representable, the density is."""
    dist, size = dst.MultivariateStudentT(2.0, 0.0, np.eye(2)), 1e25 if not X64 else 1e200
    value, slope = jax.value_and_grad(dist.log_prob)(jnp.asarray([size, 0.0], FLOAT))
    # p = (1 + r^2 / 2)^-2 / (2 pi).
    close(value, -np.log(2 * np.pi) - 4 * np.log(size) + 2 * np.log(2))
    np.testing.assert_allclose(slope * size, [-4.0, 0.0], rtol=1e-5)


def test_draws_of_student_t_have_f_distributed_lengths_in_all_directions(key):
    df = 3.0
    x, log_prob = dst.MultivariateStudentT(df, LOC, MATRIX).sample_and_log_prob(key, 4000)
    z = np.linalg.solve(np.linalg.cholesky(MATRIX), (np.asarray(x, np.float64) - LOC).T).T
    kolmogorov_smirnov(stats.f.cdf((z**2).sum(1) / 3, 3, df))
    assert all(stats.kstest(stats.t.cdf(column, df), "uniform").pvalue > 1e-6 for column in z.T)
    close(log_prob, dst.MultivariateStudentT(df, LOC, MATRIX).log_prob(x), 1e4 * EPS)


# Dirichlet.


@pytest.mark.parametrize("concentration", [[0.5, 1.0, 3.0], [20.0, 30.0], [1e4, 3e4, 2e4], [0.3, 0.2, 5e3]])
def test_dirichlet_is_that_of_scipy(concentration):
    a = np.array(concentration)
    dist, reference = dst.Dirichlet(a), stats.dirichlet(a)
    x = reference.rvs(6, random_state=2).astype(FLOAT)
    # SciPy wants the sum exact.
    x = np.maximum(x, np.finfo(FLOAT).tiny)
    exact = x.astype(float) / x.astype(float).sum(1, keepdims=True)
    close(dist.log_prob(x), reference.logpdf(exact.T), 100 * EPS * (1 + a.max() ** 0.5) + 1e-15 * a.max())
    entropy = reference.entropy()
    close(dist.entropy(), entropy, 100 * EPS + 1e-14 * a.max())
    close(dist.mean, reference.mean())
    np.testing.assert_allclose(dist.variance, reference.var(), rtol=200 * EPS)
    close(dist.concentration, a)


def test_gradient_of_dirichlet_is_digamma_and_logarithms():
    a, x = np.array([0.5, 2.0, 3.5]), np.array([[0.2, 0.5, 0.3], [0.01, 0.01, 0.98]])
    (in_a,), in_x = gradients(dst.Dirichlet, (a.astype(FLOAT),), x.astype(FLOAT))
    close(in_a, np.log(x) + sps.digamma(a.sum()) - sps.digamma(a), 1e3 * EPS)
    close(in_x, (a - 1) / x, 1e3 * EPS)


def test_draws_of_dirichlet_have_beta_parts(key):
    a = np.array([0.7, 2.0, 4.0])
    x = np.asarray(dst.Dirichlet(a).sample(key, 4000), np.float64)
    # The parts broken off a stick one after another are independent.
    broken = np.stack([x[:, 0], x[:, 1] / (1 - x[:, 0])], 1)
    kolmogorov_smirnov(stats.beta.cdf(broken, a[:2], [6.0, 4.0]))
    tiny = dst.Dirichlet(np.full(4, 0.01))
    draws, log_prob = tiny.sample_and_log_prob(key, 1000)
    assert np.isfinite(log_prob).all()
    assert jax.vmap(tiny.support.contains)(draws).all()


def test_dirichlet_through_a_broken_stick_has_density_one_on_the_reals():
    """Its density in all coordinates but the last is that of `StickBreaking`."""
    flow = dst.Transformed(dst.Dirichlet(np.array([1.0, 2.0])), bij.Invert(bij.StickBreaking(2)))
    t = np.linspace(-30, 30, 2001)
    assert abs(np.exp(np.asarray(flow.log_prob(t[:, None]), np.float64)).sum() * 0.03 - 1) < 1e-4


# The uniform on a sphere.


@pytest.mark.parametrize(("dim", "area"), [(2, 2 * np.pi), (3, 4 * np.pi), (4, 2 * np.pi**2)])
def test_density_on_a_sphere_is_one_over_its_area(dim, area, key):
    dist = dst.UniformSphere(dim)
    x = dist.sample(key, 3000)
    close(dist.log_prob(x), np.full(3000, -np.log(area)))
    close(dist.entropy(), np.log(area))
    close(dist.mean, np.zeros(dim))
    close(dist.variance, np.full(dim, 1 / dim))
    # (x_1 + 1) / 2 is beta distributed, and so is every coordinate.
    half = (dim - 1) / 2
    for column in np.asarray(x, np.float64).T:
        assert stats.kstest(stats.beta.cdf((column + 1) / 2, half, half), "uniform").pvalue > 1e-6
    assert dist.log_prob(np.full(dim, 2.0)) == -np.inf
    assert dist.log_prob(np.eye(dim)[-1]) == dist.log_prob(np.eye(dim)[0])


def test_projected_uniform_sphere_is_a_cauchy_in_the_plane_of_one_dimension():
    flow = dst.Transformed(dst.UniformSphere(2), bij.Invert(bij.Stereographic(1)))
    x = np.array([[-3.0], [0.0], [0.5]])
    close(flow.log_prob(x), stats.cauchy.logpdf(x)[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(dst.MultivariateStudentT, np.ones(2), 0.0, np.eye(2)), r"scalar df.*\(2,\)"),
        (partial(dst.MultivariateStudentT, 0.0, 0.0, np.eye(2)), "df .*positive"),
        (partial(dst.MultivariateStudentT, 1.0, np.zeros(3), np.eye(2)), r"loc.*\(2,\).*\(3,\)"),
        (partial(dst.MultivariateStudentT, 1.0, 0.0, -np.eye(2)), "scale_matrix.*smallest eigenvalue -1"),
        (partial(dst.Dirichlet, np.ones(1)), r"\(parts,\).*\(1,\)"),
        (partial(dst.Dirichlet, np.array([1.0, 0.0])), "concentration .*positive"),
        (partial(dst.UniformSphere, 1), "dim.*2.*1"),
    ],
)
def test_bad_parameters_are_a_one_line_error(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_families_of_vectors_are_built_under_vmap():
    keys = jr.split(jr.key(0), 2)
    built = jax.vmap(lambda k: dst.Dirichlet(jnp.exp(jr.normal(k, (3,)))).log_prob(jnp.array([0.2, 0.3, 0.5])))(keys)
    assert np.isfinite(built).all()
