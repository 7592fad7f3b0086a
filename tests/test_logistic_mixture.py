"""The mixture of logistics, against SciPy's distribution and closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from scipy.optimize import brentq
from scipy.stats import logistic

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64, perturb

# Its declared type is that of another form of call.
logsumexp: Any = scipy.special.logsumexp


def with_parameters(logits, locations, scales, min_scale=0.01):
    """A scalar mixture with these weights (as logits), locations and scales."""
    mixture = bij.LogisticMixture(len(logits), min_scale=min_scale)
    # The inverse of softplus(raw + log(expm1(1 - min_scale))).
    raw = np.log(np.expm1(np.asarray(scales) - min_scale)) - np.log(np.expm1(1 - min_scale))
    values = tuple(jnp.asarray(np.asarray(value), FLOAT) for value in (logits, locations, raw))
    return eqx.tree_at(lambda m: (m.logits, m.locations, m.scales), mixture, values)


def reference(x, logits, locations, scales):
    """logit F and its log slope in float64."""
    x = np.asarray(x, np.float64)[..., None]
    log_weights = np.asarray(logits) - logsumexp(logits)
    log_cdf = logsumexp(log_weights + logistic.logcdf(x, locations, scales), axis=-1)
    log_sf = logsumexp(log_weights + logistic.logsf(x, locations, scales), axis=-1)
    log_pdf = logsumexp(log_weights + logistic.logpdf(x, locations, scales), axis=-1)
    return log_cdf - log_sf, log_pdf - log_cdf - log_sf


MIXTURES = [
    ([0.0], [0.3], [1.5]),
    ([0.0, 1.0], [-2.0, 1.0], [0.3, 0.7]),
    ([1.0, -1.0, 0.5], [0.0, 4.0, -3.0], [0.05, 2.0, 1.0]),
]


each_mixture = pytest.mark.parametrize("parameters", MIXTURES, ids=lambda parameters: f"{len(parameters[0])}")


@each_mixture
def test_it_is_the_logit_of_the_distribution_function(parameters):
    x = np.linspace(-20, 20, 81).astype(FLOAT)
    y, log_slope = jax.vmap(with_parameters(*parameters).transform_and_log_det)(x)
    expected, expected_slope = reference(x, *parameters)
    np.testing.assert_allclose(y, expected, rtol=50 * EPS, atol=50 * EPS)
    # The place of a point within a narrow component is rounded.
    rounding = np.abs(x).max() / min(parameters[2])
    np.testing.assert_allclose(log_slope, expected_slope, atol=10 * EPS * rounding)


@each_mixture
def test_the_inverse_is_the_root(parameters):
    y = np.concatenate([np.linspace(-30, 30, 41), [-1e6, 1e6]]).astype(FLOAT)
    mixture = with_parameters(*parameters)
    x, log_slope = jax.vmap(mixture.inverse_and_log_det)(y)

    def residual(x, y):
        return reference(x, *parameters)[0] - y

    ends = np.asarray(parameters[1]) + np.asarray(parameters[2]) * y[:, None].astype(np.float64)
    # A little more than what the components span, which may be a single point.
    low, high = ends.min(1) - 1e-6 * (1 + np.abs(y)), ends.max(1) + 1e-6 * (1 + np.abs(y))
    expected: Any = [
        brentq(residual, *bracket, args=(one,), xtol=1e-14) for *bracket, one in zip(low, high, y, strict=True)
    ]
    expected = np.array(expected)
    np.testing.assert_array_less(np.abs(x - expected), (1e-9 if X64 else 1e-5) * (1 + np.abs(expected)))
    _, forward_slope = jax.vmap(mixture.transform_and_log_det)(x)
    np.testing.assert_allclose(log_slope, -forward_slope, atol=100 * EPS)


def test_one_component_is_an_affine_map():
    """At its initial values the identity."""
    mixture = with_parameters([3.0], [0.5], [2.0])
    for x in (-1e6, -3.0, 0.5, 40.0, 1e6):
        y, log_slope = mixture.transform_and_log_det(x)
        np.testing.assert_allclose(y, (x - 0.5) / 2, rtol=10 * EPS, atol=10 * EPS)
        np.testing.assert_allclose(log_slope, -np.log(2), rtol=20 * EPS)
        np.testing.assert_allclose(mixture.inverse(y), x, rtol=20 * EPS)
        np.testing.assert_allclose(bij.LogisticMixture(1).transform(x), x, rtol=10 * EPS, atol=10 * EPS)


@pytest.mark.parametrize("end", [-1e6, 1e6])
def test_far_out_it_is_the_widest_component(end):
    logits, locations, scales = [0.0, 1.0, -1.0], [3.0, -2.0, 1.0], [0.02, 0.5, 1.7]
    mixture = with_parameters(logits, locations, scales)
    log_weight = -1.0 - logsumexp(logits)
    y, log_slope = mixture.transform_and_log_det(end)
    np.testing.assert_allclose(y, (end - 1) / 1.7 - np.sign(end) * log_weight, rtol=4 * EPS)
    np.testing.assert_allclose(log_slope, -np.log(1.7), rtol=10 * EPS)
    np.testing.assert_allclose(mixture.inverse(y), end, rtol=4 * EPS)
    for method in ("transform_and_log_det", "inverse_and_log_det"):
        grads = eqx.filter_grad(lambda args, m=method: sum(getattr(args[0], m)(args[1])))((mixture, jnp.asarray(end)))
        assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_the_slope_is_finite_in_a_gap_between_components_and_at_most_one_over_the_least_scale():
    mixture = with_parameters([0.0, 0.0], [-500.0, 500.0], [1.0, 1.0])
    _, log_slope = mixture.transform_and_log_det(0.0)
    # F' = 2 w exp(-500) there, and F = 1/2.
    np.testing.assert_allclose(log_slope, -500 + np.log(4), rtol=10 * EPS)
    narrow = eqx.tree_at(lambda m: m.scales, bij.LogisticMixture(3, min_scale=0.1), -1e4 * jnp.ones(3))
    x = np.linspace(-1, 1, 101).astype(FLOAT)
    assert (jax.vmap(narrow.transform_and_log_det)(x)[1] <= -np.log(0.1) + 10 * EPS).all()


@pytest.mark.parametrize(
    ("components", "min_scale", "value_bound", "slope_bound"),
    [(2, 0.01, 0.13, 0.09), (3, 0.01, 0.13, 0.09), (4, 0.01, 0.13, 0.09), (5, 0.01, 0.13, 0.09),
     (8, 0.01, 0.015, 0.009), (16, 0.01, 0.007, 0.005), (32, 0.01, 0.004, 0.004),
     (8, 0.1, 0.03, 0.03), (8, 0.5, 0.21, 0.15)],
)  # fmt: skip
def test_it_starts_near_the_identity(components, min_scale, value_bound, slope_bound):
    """As near as the class says, and with many components nearer."""
    x = np.concatenate([np.linspace(-30, 30, 601), [-1e6, 1e6]]).astype(FLOAT)
    y, log_slope = jax.vmap(bij.LogisticMixture(components, min_scale=min_scale).transform_and_log_det)(x)
    np.testing.assert_array_less(np.abs(y - x), value_bound + 4 * EPS * np.abs(x))
    np.testing.assert_array_less(np.abs(log_slope), slope_bound)


@pytest.mark.parametrize("components", [2, 3, 4, 8, 32])
def test_components_start_apart_and_their_gradients_too(components):
    """What moves a component, for its weight: from locations between -0.1 and 0.1 it was the same to a fifth."""
    mixture = bij.LogisticMixture(components)
    gradient = eqx.filter_grad(lambda mixture: mixture.transform(1.5))(mixture)
    moves = np.asarray(gradient.locations) / np.exp(np.asarray(mixture.logits))
    assert np.ptp(moves) > 0.4 * np.abs(moves).max()
    assert np.ptp(mixture.locations) >= (1 if components == 2 else 2.6)


def test_components_part_in_training_though_every_step_of_adam_has_one_size():
    """From equal ones they never would, and from nearly equal ones late: on two modes, as bad as an affine map."""
    x = np.concatenate([np.random.default_rng(0).normal(mode, 0.25, 200) for mode in (-1.0, 1.0)]).astype(FLOAT)

    def loss(mixture):
        y, log_slope = jax.vmap(mixture.transform_and_log_det)(x)
        return (y**2 / 2 - log_slope).mean()

    optimizer = optax.adam(0.03)

    @eqx.filter_jit
    def fitted(mixture, steps):
        arrays, rest = eqx.partition(mixture, eqx.is_inexact_array)

        def step(carry, _):
            arrays, state = carry
            gradient = jax.grad(lambda arrays: loss(eqx.combine(arrays, rest)))(arrays)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(arrays, updates), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, optimizer.init(arrays)), length=steps)
        return eqx.combine(arrays, rest)

    start = bij.LogisticMixture(8)
    alike = eqx.tree_at(
        lambda m: (m.logits, m.locations, m.scales), start, (jnp.zeros(8), jnp.linspace(-0.1, 0.1, 8), jnp.zeros(8))
    )
    equal = eqx.tree_at(lambda m: m.locations, alike, jnp.zeros(8))
    # Optax mixes dtypes.
    with jax.numpy_dtype_promotion("standard"):
        stuck: Any = fitted(equal, 200)
        late: Any = fitted(alike, 40)
        parted: Any = fitted(start, 40)
    assert np.ptp(stuck.locations) < 1e-3
    assert loss(parted) < loss(stuck) - 0.3
    assert loss(parted) < loss(late) - 0.3


def test_second_derivatives_are_right_where_a_component_has_its_centre():
    """Its logarithms are written with |z|, which has a corner at 0."""
    mixture = bij.LogisticMixture(2, min_scale=0.1)
    centre, beside = mixture.locations[0], mixture.locations[0] + 1e-3
    bends = jax.vmap(jax.grad(jax.grad(mixture.transform)))(jnp.stack([centre, beside]))
    np.testing.assert_allclose(bends[0], bends[1], atol=1e-4)
    by_parameters = jax.grad(lambda m, x: jax.grad(m.transform)(x))
    for one, other in zip(*(jax.tree.leaves(by_parameters(mixture, x)) for x in (centre, beside)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_batch_of_mixtures_in_lanes_is_each_by_itself():
    mixtures = perturb(bij.LogisticMixture(3, (4,)), np.random.default_rng(1))
    vmapped = bij.Vmap(
        eqx.tree_at(
            lambda m: (m.logits, m.locations, m.scales),
            eqx.filter_vmap(lambda: bij.LogisticMixture(3), axis_size=4)(),
            (mixtures.logits.T, mixtures.locations.T, mixtures.scales.T),
        ),
        in_axes=eqx.if_array(0),
    )
    x = np.random.default_rng(2).standard_normal((5, 4)).astype(FLOAT)
    for single, lanes in [
        (mixtures.transform_and_log_det, bij.forward_batch),
        (mixtures.inverse_and_log_det, bij.backward_batch),
    ]:
        value, log_det = jax.vmap(single)(x)
        in_lanes, log_det_in_lanes = lanes(vmapped, jnp.asarray(x))
        np.testing.assert_allclose(in_lanes, value, rtol=100 * EPS, atol=100 * EPS)
        np.testing.assert_allclose(log_det_in_lanes.value, log_det, rtol=100 * EPS, atol=100 * EPS)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="components must be an integer of at least 1, got 0"):
        bij.LogisticMixture(0)
    with pytest.raises(ValueError, match=r"min_scale in \(0, 1\), got 1"):
        bij.LogisticMixture(min_scale=1.0)
