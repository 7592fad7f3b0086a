"""The mixture of normal distributions on a normal scale, against SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from scipy.optimize import brentq

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64


def with_parameters(logits, locations, scales, min_scale=0.01):
    mixture = bij.NormalMixture(len(logits), min_scale=min_scale)
    # The inverse of softplus(raw + log(expm1(1 - min_scale))).
    raw = np.log(np.expm1(np.asarray(scales) - min_scale)) - np.log(np.expm1(1 - min_scale))
    values = tuple(jnp.asarray(np.asarray(value), FLOAT) for value in (logits, locations, raw))
    return eqx.tree_at(lambda m: (m.logits, m.locations, m.scales), mixture, values)


def logs(x, logits, locations, scales):
    """log F, log(1 - F) and log F' in float64."""
    x = np.asarray(x, np.float64)[..., None]
    log_weights = np.asarray(logits) - np.logaddexp.reduce(logits)
    z = (x - np.asarray(locations)) / np.asarray(scales)
    parts = special.log_ndtr(z), special.log_ndtr(-z), stats.norm.logpdf(z) - np.log(scales)
    return [np.logaddexp.reduce(log_weights + part, axis=-1) for part in parts]


def reference(x, *parameters):
    """y and its log slope."""
    log_cdf, log_sf, log_pdf = logs(x, *parameters)
    y = np.where(log_cdf < log_sf, special.ndtri_exp(log_cdf), -special.ndtri_exp(log_sf))
    return y, log_pdf - stats.norm.logpdf(y)


MIXTURES = [
    ([0.0], [0.3], [1.5]),
    ([0.0, 1.0], [-2.0, 1.0], [0.3, 0.7]),
    ([1.0, -1.0, 0.5], [0.0, 4.0, -3.0], [0.05, 2.0, 1.0]),
]
each_mixture = pytest.mark.parametrize("parameters", MIXTURES, ids=lambda parameters: f"{len(parameters[0])}")


@each_mixture
def test_it_is_the_normal_quantile_of_the_distribution_function(parameters):
    x = np.linspace(-20, 20, 81).astype(FLOAT)
    y, log_slope = jax.vmap(with_parameters(*parameters).transform_and_log_det)(x)
    expected, expected_slope = reference(x, *parameters)
    # Where the slope is small, the place of a point in a narrow component is rounded.
    rounding = np.abs(x).max() / min(parameters[2])
    np.testing.assert_allclose(y, expected, rtol=50 * EPS, atol=10 * EPS * rounding)
    tolerance = 1e-7 if X64 else 1e-3
    np.testing.assert_allclose(log_slope, expected_slope, atol=max(tolerance, 20 * EPS * rounding))


@each_mixture
def test_the_inverse_is_the_root(parameters):
    y = np.linspace(-8, 8, 33).astype(FLOAT)
    mixture = with_parameters(*parameters)
    x, log_slope = jax.vmap(mixture.inverse_and_log_det)(y)
    ends = np.asarray(parameters[1]) + np.asarray(parameters[2]) * y[:, None].astype(np.float64)
    found = [
        brentq(lambda x, y=one: float(reference(x, *parameters)[0] - y), low - 1e-6, high + 1e-6, xtol=1e-13)
        for low, high, one in zip(ends.min(1), ends.max(1), y, strict=True)
    ]
    expected = np.asarray(found, np.float64)
    np.testing.assert_array_less(np.abs(x - expected), (1e-8 if X64 else 2e-5) * (1 + np.abs(expected)))
    _, forward_slope = jax.vmap(mixture.transform_and_log_det)(x)
    np.testing.assert_allclose(log_slope, -forward_slope, atol=1e3 * EPS)


def test_data_of_the_mixture_become_normal():
    parameters = MIXTURES[2]
    rng = np.random.default_rng(0)
    weights = np.exp(parameters[0]) / np.exp(parameters[0]).sum()
    which = rng.choice(3, 4000, p=weights)
    x = np.asarray(parameters[1])[which] + np.asarray(parameters[2])[which] * rng.standard_normal(4000)
    y = jax.vmap(with_parameters(*parameters).transform)(x.astype(FLOAT))
    assert stats.kstest(np.asarray(y), "norm").pvalue > 0.05


def test_one_component_is_an_affine_map():
    """At its initial values the identity."""
    mixture = with_parameters([3.0], [0.5], [2.0])
    x = np.array([-1e6, -3.0, 0.5, 40.0, 1e6], FLOAT)
    y, log_slope = jax.vmap(mixture.transform_and_log_det)(x)
    np.testing.assert_allclose(y, (x - 0.5) / 2, rtol=10 * EPS, atol=10 * EPS)
    np.testing.assert_allclose(log_slope, -np.log(2), rtol=20 * EPS)
    np.testing.assert_allclose(jax.vmap(mixture.inverse)(y), x, rtol=20 * EPS)
    np.testing.assert_allclose(jax.vmap(bij.NormalMixture(1).transform)(x), x, rtol=10 * EPS, atol=10 * EPS)


def test_far_out_it_is_the_widest_component():
    mixture = with_parameters([0.0, 1.0, -1.0], [3.0, -2.0, 1.0], [0.02, 0.5, 1.7])
    x = np.array([-1e6, -1e3, 1e3, 1e6], FLOAT)
    y, log_slope = jax.vmap(mixture.transform_and_log_det)(x)
    np.testing.assert_allclose(y, (x - 1) / 1.7, rtol=1e-5, atol=3e-3)
    np.testing.assert_allclose(log_slope, -np.log(1.7), rtol=2e-5)
    np.testing.assert_allclose(jax.vmap(mixture.inverse)(y), x, rtol=1e-5)
    for name in ("transform_and_log_det", "inverse_and_log_det"):

        def total(args, name=name):
            value, log_det = jax.vmap(getattr(args[0], name))(args[1])
            return value.sum() + log_det.sum()

        grads = eqx.filter_jit(eqx.filter_grad(total))((mixture, jnp.asarray(x)))
        assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


@pytest.mark.parametrize("components", [2, 4, 5, 8, 16, 32])
def test_it_starts_near_the_identity_and_not_at_it(components):
    """As near as the class says; components that were equal would stay so."""
    x = np.concatenate([np.linspace(-30, 30, 601), [-1e6, 1e6]]).astype(FLOAT)
    mixture = bij.NormalMixture(components)
    y, log_slope = jax.vmap(mixture.transform_and_log_det)(x)
    few = components < 5
    np.testing.assert_array_less(np.abs(y - x), (0.1 if few else 0.25) + 4 * EPS * np.abs(x))
    np.testing.assert_array_less(np.abs(y - x)[np.abs(x) < 3], 0.015 if few else 0.08)
    np.testing.assert_array_less(np.abs(log_slope), 0.006 if few else 0.15)
    assert np.ptp(mixture.locations) > (0.1 if few else 2)
    if components >= 8:
        # Of a standard normal variable, on average.
        normal = np.random.default_rng(0).standard_normal(2000).astype(FLOAT)
        value, slope = jax.vmap(mixture.transform_and_log_det)(normal)
        assert np.abs(slope - (value**2 - normal**2) / 2).mean() < 0.01


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="components must be an integer of at least 1, got 0"):
        bij.NormalMixture(0)
    with pytest.raises(ValueError, match=r"NormalMixture expected min_scale in \(0, 1\), got 1"):
        bij.NormalMixture(min_scale=1.0)
