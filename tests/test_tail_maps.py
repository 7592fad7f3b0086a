"""The sinh-arcsinh map and heavy tails, against SciPy's distributions and closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import special, stats

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64
from flowlib import flows
from flowlib.bijections._normal_tails import lower_tail, normal_quantile
from flowlib.distributions import StandardNormal, Transformed


def grads(bijection, point, name):
    def total(args):
        b, x = args
        return sum(jax.vmap(getattr(b, name))(x)[0]) + sum(jax.vmap(getattr(b, name))(x)[1])

    return jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(total))((bijection, jnp.asarray(point, FLOAT))))


@pytest.mark.parametrize(("skewness", "tailweight"), [(0.0, 1.0), (0.7, 0.6), (-1.2, 1.8)])
def test_sinh_arcsinh_is_its_formula(skewness, tailweight):
    x = np.concatenate([np.linspace(-6, 6, 49), [-1e4, 1e4]]).astype(FLOAT)
    bijection = bij.SinhArcsinh(skewness, tailweight)
    y, log_det = jax.vmap(bijection.transform_and_log_det)(x)
    inner = (np.arcsinh(x.astype(np.float64)) + skewness) * tailweight
    np.testing.assert_allclose(y, np.sinh(inner), rtol=200 * EPS, atol=20 * EPS)
    slope = tailweight * np.cosh(inner) / np.sqrt(1 + x.astype(np.float64) ** 2)
    np.testing.assert_allclose(log_det, np.log(slope), rtol=20 * EPS, atol=20 * EPS)
    back, log_back = jax.vmap(bijection.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, x, rtol=400 * EPS, atol=40 * EPS)
    np.testing.assert_allclose(log_back, -log_det, rtol=200 * EPS, atol=200 * EPS)


def test_sinh_arcsinh_has_finite_values_and_gradients_where_its_formula_overflows():
    bijection = bij.SinhArcsinh(2.0, 60.0)
    for name, points in [("transform_and_log_det", [-1e6, 1e6, 3.0]), ("inverse_and_log_det", [-1e30, 1e6, 0.0])]:
        assert all(np.isfinite(grad).all() for grad in grads(bijection, points, name))
    assert np.isfinite(bijection.transform(1e6))
    assert np.isfinite(bij.SinhArcsinh(0.0, 0.01).inverse(1e6))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="tailweight must be positive and finite, got 0"):
        bij.SinhArcsinh(0.0, 0.0)
    with pytest.raises(ValueError, match="skewness must be finite, got inf"):
        bij.SinhArcsinh(np.inf)
    with pytest.raises(ValueError, match="do not broadcast"):
        bij.SinhArcsinh(np.zeros(2), np.ones(3))
    with pytest.raises(ValueError, match=r"lower must be above 0.001, got -1"):
        bij.HeavyTails(-1.0)
    with pytest.raises(ValueError, match=r"upper must be above 0.001, got 0.001"):
        bij.HeavyTails(0.1, 0.001)


@pytest.mark.parametrize("weights", [(0.1, 0.1), (0.5, 2.0), (0.002, 0.05)])
def test_heavy_tails_turn_normal_tails_into_generalised_pareto_ones(weights):
    """|y| has the distribution function of that with shape t and scale sqrt(pi/2), given the side."""
    x = np.concatenate([np.linspace(-8, 8, 65), [1e-3, -1e-3]]).astype(FLOAT)
    bijection = bij.HeavyTails(*weights)
    y, log_det = jax.vmap(bijection.transform_and_log_det)(x)
    weight = np.where(x < 0, *weights)
    pareto: Any = stats.genpareto(weight, scale=np.sqrt(np.pi / 2))
    log_survival = special.log_ndtr(-np.abs(x.astype(np.float64))) + np.log(2)
    np.testing.assert_allclose(pareto.logsf(np.abs(np.asarray(y, np.float64))), log_survival, rtol=1e-5, atol=1e-6)
    assert (np.sign(y) == np.sign(x)).all()
    # The change of variables, both densities given the side.
    log_slope = stats.norm.logpdf(x) + np.log(2) - pareto.logpdf(np.abs(np.asarray(y, np.float64)))
    np.testing.assert_allclose(log_det, log_slope, rtol=1e-5, atol=1e-5)
    back, log_back = jax.vmap(bijection.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, x, rtol=1e-9 if X64 else 2e-5, atol=1e-9 if X64 else 1e-6)
    np.testing.assert_allclose(log_back, -log_det, rtol=1e-4, atol=1e-5)


def test_heavy_tails_have_slope_one_at_zero_and_finite_gradients_everywhere():
    bijection = bij.HeavyTails(0.3, 0.01)
    assert np.abs(bijection.transform_and_log_det(0.0)[1]) < 10 * EPS
    assert np.abs(bijection.inverse(0.0)) < 10 * EPS
    for name in ("transform_and_log_det", "inverse_and_log_det"):
        for b in (
            bijection,
            eqx.tree_at(lambda t: (t.lower, t.upper), bijection, (jnp.array(-500.0), jnp.array(50.0))),
        ):
            assert all(np.isfinite(grad).all() for grad in grads(b, [-1e6, -1e-30, 0.0, 1.0, 30.0, 1e6], name))
    # A t distribution's quantile of one in 1e300.
    y = 1e6
    expected = -special.ndtri_exp(-np.log1p(0.01 * y / np.sqrt(np.pi / 2)) / 0.01 - np.log(2))
    np.testing.assert_allclose(bijection.inverse(y), expected, rtol=1e-10 if X64 else 1e-5)


def test_the_normal_distribution_is_exact_in_both_tails():
    x = np.concatenate([np.linspace(-40, 8, 97), -np.logspace(2, 6, 5), [0.0]]).astype(FLOAT)
    exact = x.astype(np.float64)
    log_cdf, log_slope = jax.jit(lower_tail)(x)
    np.testing.assert_allclose(log_cdf, special.log_ndtr(exact), rtol=60 * EPS, atol=60 * EPS)
    below = exact <= 0
    expected = np.log(np.sqrt(2 / np.pi)) - np.log(special.erfcx(-exact[below] / np.sqrt(2)))
    np.testing.assert_allclose(log_slope[below], expected, rtol=60 * EPS, atol=60 * EPS)
    slope = jax.jit(jax.vmap(jax.grad(lambda x: lower_tail(x)[0])))(x[below])
    np.testing.assert_allclose(slope, np.exp(expected), rtol=100 * EPS)
    log_p = np.concatenate([np.linspace(-60, np.log(0.5), 60), -np.logspace(2, 11, 10)]).astype(FLOAT)
    quantile = np.asarray(jax.jit(normal_quantile)(log_p), np.float64)
    error = (special.log_ndtr(quantile) - log_p) / (np.abs(log_p) + 1)
    assert np.abs(error).max() < 40 * EPS


def test_a_heavy_tailed_flow_starts_as_its_last_layer():
    base = StandardNormal((2,))
    flow = flows.heavy_tailed_flow(
        jr.key(0), base_dist=base, weight=0.3, flow_layers=2, knots=3, nn_width=4, nn_depth=1
    )
    alone = Transformed(base, bij.HeavyTails(jnp.full(2, 0.3), jnp.full(2, 0.3)))
    x = np.array([[-50.0, 3.0], [0.0, 1e4], [0.5, -0.5]])
    np.testing.assert_allclose(flow.log_prob(x), alone.log_prob(x), rtol=1e3 * EPS)
