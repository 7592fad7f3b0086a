"""Premade flows on circles, the simplex, spheres and increasing vectors, which build their own bases."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as stats

from contract_tools import EPS, perturb
from flowlib import flows
from flowlib.train import fit_to_data
from registry import only_in_full

SMALL: dict[str, Any] = {"flow_layers": 2, "nn_width": 5, "nn_depth": 1, "knots": 3}


def midpoints(lower, upper, n):
    step = (upper - lower) / n
    return lower + step * (np.arange(n) + 0.5), step


def far_from_its_start(flow):
    return perturb(flow, np.random.default_rng(7), 0.15)


@pytest.fixture(scope="module")
def cylinder():
    """A flow of an angle and a real number, far from where it starts."""
    return far_from_its_start(flows.circular_spline_flow(jr.key(0), dim=2, circular=[True, False], **SMALL))


def test_a_density_on_a_cylinder_integrates_to_one(cylinder):
    (angles, step), (heights, other) = midpoints(-np.pi, np.pi, 400), midpoints(-9, 9, 500)
    points = np.stack(np.meshgrid(angles, heights), -1)
    assert abs(np.exp(cylinder.log_prob(points)).sum() * step * other - 1) < 2e-3
    assert np.isneginf(cylinder.log_prob(jnp.array([np.inf, 0.0])))


def test_neither_density_nor_slope_jumps_at_the_cut(cylinder):
    heights = np.linspace(-2, 2, 9)
    ends = [np.stack([np.full(9, sign * np.pi), heights], -1) for sign in (-1, 1)]
    value_and_slope = jax.vmap(jax.value_and_grad(cylinder.log_prob))
    (low, low_slope), (high, high_slope) = (value_and_slope(jnp.asarray(end, float)) for end in ends)
    assert np.ptp(low) > 0.1
    np.testing.assert_allclose(low, high, atol=1e3 * EPS, rtol=0)
    np.testing.assert_allclose(low_slope, high_slope, atol=1e4 * EPS, rtol=0)


def test_a_density_of_three_parts_integrates_to_one():
    flow = far_from_its_start(flows.simplex_flow(jr.key(1), dim=3, **SMALL))
    # Uniform numbers u, v become the parts u, (1 - u) v and the rest.
    points, step = midpoints(0, 1, 400)
    u, v = np.meshgrid(points, points)
    parts = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)], -1)
    assert abs((np.exp(flow.log_prob(parts)) * (1 - u)).sum() * step**2 - 1) < 5e-3


def test_a_density_of_directions_integrates_to_one():
    flow = far_from_its_start(flows.sphere_flow(jr.key(2), dim=3, **SMALL))
    (angles, step), (heights, other) = midpoints(-np.pi, np.pi, 300), midpoints(-1, 1, 300)
    a, h = np.meshgrid(angles, heights)
    points = np.stack([np.sqrt(1 - h**2) * np.cos(a), np.sqrt(1 - h**2) * np.sin(a), h], -1)
    # Area is that of the cylinder around.
    assert abs(np.exp(flow.log_prob(points)).sum() * step * other - 1) < 5e-3


def test_flows_on_sets_start_as_their_bases():
    x = np.random.default_rng(0).standard_normal((50, 3))
    sphere = flows.sphere_flow(jr.key(0), dim=3, **SMALL)
    on_sphere = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(sphere.log_prob(on_sphere), -math.log(4 * math.pi), atol=1e3 * EPS)
    torus = flows.circular_spline_flow(jr.key(0), dim=3, **SMALL)
    np.testing.assert_allclose(torus.log_prob(np.clip(x, -3, 3)), -3 * math.log(2 * math.pi), atol=1e3 * EPS)
    ordered = flows.ordered_flow(jr.key(0), dim=3, **SMALL)
    steps = np.exp(x[:, 1:])
    expected = stats.norm.logpdf(x[:, 0]) + stats.lognorm.logpdf(steps, 1).sum(1)
    rows = np.cumsum(np.concatenate([x[:, :1], steps], 1), 1)
    np.testing.assert_allclose(ordered.log_prob(rows), expected, atol=1e4 * EPS)


def on_a_cylinder(n):
    """Angles around the cut, and heights in units of their own that depend on them."""
    rng = np.random.default_rng(3)
    angle = np.angle(np.exp(1j * rng.vonmises(np.pi, 3, n)))
    height = 100 + 20 * np.cos(angle) + 3 * rng.standard_normal(n)
    log_prob = stats.vonmises.logpdf(angle, 3, np.pi) + stats.norm.logpdf(height, 100 + 20 * np.cos(angle), 3)
    return np.stack([angle, height], 1), log_prob


def test_a_fit_gives_units_to_real_columns_and_leaves_angles_alone():
    x, _ = on_a_cylinder(200)
    condition = 50 + x[:, 1:]
    flow = flows.circular_spline_flow(jr.key(0), dim=2, circular=[True, False], cond_dim=1, **SMALL)
    fitted, _ = fit_to_data(jr.key(1), flow, (x, condition), max_epochs=1, show_progress=False)
    # Up to the little that an epoch has trained, which is more where rows are rare.
    mean, scale = x[:, 1].mean(), x[:, 1].std()
    expected = -math.log(2 * math.pi) + stats.norm.logpdf(x[:, 1], mean, scale)
    assert np.quantile(abs(fitted.log_prob(x, condition) - expected), 0.9) < 0.1


def test_a_second_fit_keeps_the_units_of_the_first():
    rows = np.random.default_rng(0).dirichlet([2.0, 9.0, 4.0], 200)
    fit: dict[str, Any] = {"max_epochs": 1, "learning_rate": 1e-9, "show_progress": False}
    flow = flows.simplex_flow(jr.key(0), dim=3, **SMALL)
    first, _ = fit_to_data(jr.key(1), flow, rows, **fit)
    second, _ = fit_to_data(jr.key(1), first, rows[:50] ** 2 / (rows[:50] ** 2).sum(1, keepdims=True), **fit)
    assert np.abs(first.log_prob(rows) - flow.log_prob(rows)).mean() > 0.2
    np.testing.assert_allclose(second.log_prob(rows), first.log_prob(rows), atol=1e-4)


def test_rows_off_the_set_are_an_error_that_names_them():
    rows = np.random.default_rng(0).dirichlet([2.0, 9.0, 4.0], 20)
    rows[3] *= 2
    flow = flows.simplex_flow(jr.key(0), dim=3, **SMALL)
    with pytest.raises(ValueError, match=r"x expected rows of simplex support, got .* at row 3 .*1 of 20 rows"):
        fit_to_data(jr.key(1), flow, rows, show_progress=False)


@pytest.mark.parametrize(
    ("constructor", "options", "message"),
    [
        (flows.circular_spline_flow, {"dim": 2, "circular": [True]}, "circular expected 2 booleans"),
        (flows.circular_spline_flow, {"dim": 2, "circular": [False] * 2}, "at least one True"),
        (flows.simplex_flow, {"dim": 1}, "dim must be an integer of at least 2"),
        (flows.sphere_flow, {"dim": 1}, "dim must be an integer of at least 2"),
        (flows.ordered_flow, {"dim": 2, "spline": "quartic"}, "spline must be one of"),
        (flows.ordered_flow, {"dim": 2, "kind": "both"}, "kind must be one of"),
    ],
)
def test_bad_arguments_are_one_line_errors(constructor, options, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message):
        constructor(jr.key(0), **options)


@only_in_full
def test_a_fit_on_a_cylinder_comes_near_the_truth():
    x, log_prob = on_a_cylinder(2000)
    flow = flows.circular_spline_flow(jr.key(0), dim=2, circular=[True, False], nn_width=32)
    fitted, _ = fit_to_data(jr.key(1), flow, x, max_epochs=60, learning_rate=3e-3, show_progress=False)
    assert abs(np.mean(fitted.log_prob(x)) - log_prob.mean()) < 0.1
