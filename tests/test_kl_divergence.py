"""Divergences: closed forms beside quadrature, estimates beside closed forms, and what is refused."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special as sps
import scipy.stats as stats

import flowlib.bijections as bij
import flowlib.distributions as dst
from cases_distributions import shifted
from contract_tools import EPS
from density_tools import close

NUMBER: Any = 3.0
REALS = (np.sinh(np.linspace(-8, 8, 40_001)), np.cosh(np.linspace(-8, 8, 40_001)) * 16 / 40_000)
_T = np.linspace(-40, 8, 40_001)
POSITIVE = (np.exp(_T), np.exp(_T) * 48 / 40_000)
_T = np.linspace(-40, 40, 40_001)
UNIT = (sps.expit(_T), sps.expit(_T) * sps.expit(-_T) * 80 / 40_000)
TURN = (np.linspace(-np.pi, np.pi, 4001)[:-1], np.full(4000, 2 * np.pi / 4000))


def vonmises(loc, concentration):
    return stats.vonmises(concentration, loc)


def gamma(a, scale):
    return stats.gamma(a, scale=scale)


def expon(rate):
    return stats.expon(scale=1 / rate)


def lognorm(loc, scale):
    return stats.lognorm(scale, scale=np.exp(loc))


# The family, SciPy's, the parameters of p and of q in two coordinates, and points with weights.
FAMILIES: list[tuple[Any, Any, Any, Any, Any]] = [
    (dst.Normal, stats.norm, [(0.5, 1.5), (-1.0, 0.3)], [(0.0, 2.0), (-1.5, 0.4)], REALS),
    (dst.Laplace, stats.laplace, [(0.5, 1.5), (-1.0, 0.3)], [(0.0, 2.0), (-1.5, 0.4)], REALS),
    (dst.Cauchy, stats.cauchy, [(0.5, 1.5), (-1.0, 0.3)], [(0.0, 2.0), (-1.5, 0.4)], REALS),
    (dst.Gumbel, stats.gumbel_r, [(0.5, 1.5), (-1.0, 0.3)], [(0.0, 2.0), (-1.5, 0.4)], REALS),
    (dst.LogNormal, lognorm, [(0.5, 1.0), (-1.0, 0.3)], [(0.0, 1.2), (-1.5, 0.4)], POSITIVE),
    (dst.Exponential, expon, [(0.5,), (3.0,)], [(2.0,), (2.5,)], POSITIVE),
    (dst.Gamma, gamma, [(0.7, 2.0), (50.0, 0.1)], [(1.5, 1.0), (40.0, 0.11)], POSITIVE),
    (dst.Beta, stats.beta, [(0.7, 2.0), (50.0, 30.0)], [(1.5, 1.0), (40.0, 33.0)], UNIT),
    (dst.VonMises, vonmises, [(0.5, 2.0), (3.0, 200.0)], [(-1.0, 0.3), (-3.1, 30.0)], TURN),
]


@pytest.mark.parametrize(
    ("make", "reference", "of_p", "of_q", "grid"), FAMILIES, ids=lambda arg: getattr(arg, "__name__", "")
)
def test_closed_form_is_the_integral_over_scipys_densities(make, reference, of_p, of_q, grid):
    p, q = (make(*np.array(params).T) for params in (of_p, of_q))
    expected = 0.0
    for params_p, params_q in zip(of_p, of_q, strict=True):
        with np.errstate(all="ignore"):
            log_p, log_q = reference(*params_p).logpdf(grid[0]), reference(*params_q).logpdf(grid[0])
            density = np.exp(log_p)
            expected += np.where(density > 0, density * (log_p - log_q), 0) @ grid[1]
    found = dst.kl_divergence(p, q)
    # The tails of a Cauchy reach beyond the grid, and the kinks of a Laplace lie between points.
    close(found.value, expected, 3e-3 if make is dst.Cauchy else 1e-6 + 500 * EPS)
    assert found.standard_error == 0
    close(dst.kl_divergence(p, p).value, 0, 100 * EPS)


def test_cauchy_closed_form_is_symmetric_and_that_of_the_literature():
    p, q = dst.Cauchy(0.5, 1.5), dst.Cauchy(-1.0, 0.2)
    expected = np.log((1.7**2 + 1.5**2) / (4 * 1.5 * 0.2))
    close(dst.kl_divergence(p, q).value, expected)
    close(dst.kl_divergence(q, p).value, expected)


def test_normals_of_all_kinds_agree_with_traces_and_determinants():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 3))
    matrices = [a @ a.T + np.eye(3), b @ b.T + np.eye(3), np.diag([0.5, 1.0, 2.0]) ** 2, np.eye(3)]
    locs = [rng.normal(size=3), rng.normal(size=3), np.ones(3), np.zeros(3)]
    dists = [dst.MultivariateNormal(loc, matrix) for loc, matrix in zip(locs[:2], matrices[:2], strict=True)]
    dists += [dst.Normal(locs[2], np.array([0.5, 1.0, 2.0])), dst.StandardNormal((3,))]
    for i, j in [(0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0), (2, 3), (3, 2), (3, 3)]:
        inverse, away = np.linalg.inv(matrices[j]), locs[j] - locs[i]
        log_dets = np.linalg.slogdet(matrices[j])[1] - np.linalg.slogdet(matrices[i])[1]
        expected = 0.5 * (np.trace(inverse @ matrices[i]) + away @ inverse @ away - 3 + log_dets)
        close(dst.kl_divergence(dists[i], dists[j]).value, expected, 1e3 * EPS)


def test_dirichlet_of_two_parts_is_the_beta_and_of_three_the_sum_along_the_stick():
    a, b = np.array([0.7, 2.0, 40.0]), np.array([1.5, 1.0, 30.0])
    found = dst.kl_divergence(dst.Dirichlet(a), dst.Dirichlet(b)).value

    def beta(a0, a1, b0, b1):
        return dst.kl_divergence(dst.Beta(a0, a1), dst.Beta(b0, b1)).value

    first, second = beta(a[0], a[1:].sum(), b[0], b[1:].sum()), beta(a[1], a[2], b[1], b[2])
    close(found, float(first) + float(second), 1e3 * EPS)


def test_large_concentrations_keep_their_digits():
    """Gamma functions of 1e6 are 1e7: their difference would be left with no digit in float32."""
    a, b, c = 1e6, 1.001e6, 2e6
    expected = (a - b) * sps.digamma(a) - sps.gammaln(a) + sps.gammaln(b)
    close(dst.kl_divergence(dst.Gamma(a, 1.0), dst.Gamma(b, 1.0)).value, expected, 1e-3)
    expected = sps.betaln(b, c) - sps.betaln(a, c) + (a - b) * (sps.digamma(a) - sps.digamma(a + c))
    close(dst.kl_divergence(dst.Beta(a, c), dst.Beta(b, c)).value, expected, 1e-3)


def test_one_interval_must_hold_the_other():
    wide, narrow = dst.Uniform(np.zeros(2), 4.0), dst.Uniform(np.ones(2), 2.0)
    close(dst.kl_divergence(narrow, wide).value, 2 * np.log(4))
    assert dst.kl_divergence(wide, narrow).value == np.inf


def test_joints_add_up_part_by_part_exact_or_not(key):
    p = dst.Joint([dst.Normal(0.0, 1.0), dst.Exponential(np.array([1.0, 2.0]))])
    q = dst.Joint([dst.Normal(1.0, 2.0), dst.Gamma(np.array([2.0, 0.5]), 1.0)])
    parts = [dst.kl_divergence(a, b).value for a, b in zip(p.dists, q.dists, strict=True)]
    found = dst.kl_divergence(p, q)
    close(found.value, float(parts[0]) + float(parts[1]))
    assert found.standard_error == 0
    logistics = [dst.Joint([dst.Normal(m, 1.0), dst.Logistic(m, 1.0)]) for m in (0.0, 0.5)]
    mixed = dst.kl_divergence(*logistics, key=key, num_samples=2000)
    alone = dst.kl_divergence(dst.Logistic(0.0, 1.0), dst.Logistic(0.5, 1.0), key=jr.split(key)[1], num_samples=2000)
    close(mixed.value, 0.125 + float(alone.value))
    close(mixed.standard_error, alone.standard_error)


def test_an_estimate_lies_within_its_standard_error_of_the_truth(key):
    """A normal through an affine map has the closed form of the normal that it is; beyond 5 errors once in 2e6."""
    p = dst.Transformed(dst.StandardNormal((2,)), bij.Affine(np.ones(2), np.full(2, 0.5)))
    q = dst.Normal(np.zeros(2), 1.0)
    exact = dst.kl_divergence(dst.Normal(np.ones(2), 0.5), q).value
    few, many = (dst.kl_divergence(p, q, key=key, num_samples=n) for n in (200, 20_000))
    for found in (few, many):
        assert abs(found.value - exact) < 5 * found.standard_error
    # The variance of log p - log q under p, for each coordinate: of (x^2 - 4 (x - 1)^2) / 2.
    spread = np.sqrt(2 * (2 * (0.25 - 1) ** 2 / 4 + 0.25))
    np.testing.assert_allclose(many.standard_error, spread / np.sqrt(20_000), rtol=0.05)


def test_conditions_broadcast_into_the_result(key):
    p, condition = shifted(key, 2), np.arange(12.0).reshape(3, 2, 2) / 10
    q = dst.StandardNormal((2,))
    forward = dst.kl_divergence(p, q, key=key, num_samples=4000, condition=condition)
    backward = dst.kl_divergence(q, p, key=key, num_samples=4000, condition=condition)
    assert forward.value.shape == forward.standard_error.shape == backward.value.shape == (3, 2)
    # p is a standard normal that the condition moves.
    moved = np.asarray(p.from_base(np.zeros(2), condition), np.float64)
    exact = (moved**2).sum(-1) / 2
    for found in (forward, backward):
        assert (np.abs(found.value - exact) < 6 * found.standard_error + 1e-6).all()


def test_gradients_of_closed_forms_are_finite_and_zero_where_the_two_agree():
    for p in (dst.Normal(0.3, 2.0), dst.Laplace(0.3, 2.0), dst.Gamma(3.0, 2.0), dst.VonMises(0.3, 2.0)):
        grads = eqx.filter_grad(lambda q, p=p: dst.kl_divergence(p, q).value)(p)
        assert all(np.abs(leaf).max() < 1e3 * EPS for leaf in jax.tree.leaves(grads))


def test_precisions_promote_and_it_traces():
    p, q = dst.Normal(jnp.float16(0), jnp.float16(1)), dst.Normal(jnp.float32(1), jnp.float32(2))
    assert dst.kl_divergence(p, q).value.dtype == jnp.float32
    locs = jnp.arange(3.0)
    close(jax.vmap(lambda loc: dst.kl_divergence(dst.Normal(loc, 1.0), dst.Normal(0.0, 1.0)).value)(locs), [0, 0.5, 2])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (partial(dst.kl_divergence, dst.Normal(), dst.Logistic()), ValueError, "Normal from Logistic: give a key"),
        (partial(dst.kl_divergence, dst.Normal(), dst.StandardNormal((2,))), ValueError, r"one shape.*\(\).*\(2,\)"),
        (partial(dst.kl_divergence, dst.Normal(), dst.Normal(), condition=np.ones(2)), ValueError, "no condition"),
        (partial(dst.kl_divergence, shifted(jr.key(0), 1), shifted(jr.key(0), 1)), ValueError, r"\(\.\.\., 2\).*none"),
        (partial(dst.kl_divergence, dst.Normal(), dst.Normal(), num_samples=1), ValueError, "num_samples.*2.*1"),
        (partial(dst.kl_divergence, dst.Normal(), NUMBER), TypeError, "distribution as q, got float"),
        (partial(dst.kl_divergence, dst.Normal(), dst.Logistic(), key=NUMBER), TypeError, "key"),
    ],
)
def test_bad_divergences_are_a_one_line_error(make, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
