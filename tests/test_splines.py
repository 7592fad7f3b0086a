"""Linear, quadratic and cubic splines, against their definitions in NumPy and SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline, PPoly

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64, perturb

LOWER, UPPER = -1.0, 3.0
KINDS = [bij.LinearSpline, bij.QuadraticSpline, bij.CubicSpline]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_count = pytest.mark.parametrize("knots", [4, 20])


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def sizes(logits, least=1e-3):
    return least + (UPPER - LOWER - least * len(logits)) * softmax(logits)


def edges(sizes):
    return LOWER + np.concatenate([[0], np.cumsum(sizes)])


def linear(spline):
    """Knots and values, joined by straight lines."""
    x = np.linspace(LOWER, UPPER, len(spline.heights) + 1)
    steps = np.diff(edges(sizes(spline.heights))) / np.diff(x)
    return PPoly(np.stack([steps, edges(sizes(spline.heights))[:-1]]), x)


def quadratic(spline):
    """The antiderivative of a piecewise linear function through 1 at both ends, whose mean is 1."""
    x = edges(sizes(spline.widths))
    free = np.exp(np.asarray(spline.slopes, np.float64))
    # With 1 at the ends, the factor of the others follows from the trapezoidal rule.
    ends = np.interp(x, [x[0], x[1], x[-2], x[-1]], [1.0, 0.0, 0.0, 1.0])
    factor = (UPPER - LOWER - np.trapezoid(ends, x)) / np.trapezoid(np.concatenate([[0], free, [0]]), x)
    slopes = np.concatenate([[1], 1e-3 + (1 - 1e-3) * factor * free, [1]])
    derivative = PPoly(np.stack([np.diff(slopes) / np.diff(x), slopes[:-1]]), x)
    whole = derivative.antiderivative()
    whole.c[-1] += LOWER
    return whole


def cubic(spline):
    """Hermite's cubics with Steffen's slopes."""
    widths = sizes(spline.widths)
    n = len(widths)
    least = np.full(n, 1e-3)
    least[[0, -1]] = 0.4 * widths[[0, -1]]
    share = np.full(n, (UPPER - LOWER) / n - 1e-3)
    share[[0, -1]] = 0.6 * (UPPER - LOWER) / n
    share = share * softmax(spline.heights)
    heights = least + (UPPER - LOWER - least.sum()) * share / share.sum()
    s = heights / widths
    p = (widths[1:] * s[:-1] + widths[:-1] * s[1:]) / (widths[1:] + widths[:-1])
    steffen = (np.sign(s[:-1]) + np.sign(s[1:])) * np.minimum.reduce([s[:-1], s[1:], p / 2])
    return CubicHermiteSpline(edges(widths), edges(heights), np.concatenate([[1], steffen, [1]]))


DEFINITIONS = {bij.LinearSpline: linear, bij.QuadraticSpline: quadratic, bij.CubicSpline: cubic}


def random(kind, knots, seed=0, scale=1.0):
    spline = kind(knots=knots, interval=(LOWER, UPPER))
    return perturb(spline, np.random.default_rng(seed), scale)


@each_count
@each_kind
def test_it_is_the_definition(kind, knots):
    spline = random(kind, knots)
    # Between the knots, where a slope may jump.
    x = np.linspace(LOWER, UPPER, 311).astype(FLOAT)[1:-1]
    y, log_slope = jax.vmap(spline.transform_and_log_det)(x)
    definition = DEFINITIONS[kind](spline)
    np.testing.assert_allclose(y, definition(x), rtol=0, atol=50 * EPS)
    near = np.abs(x[:, None] - definition.x).min(1) < 1e-4
    np.testing.assert_allclose(
        np.exp(log_slope)[~near], definition(x, 1)[~near], rtol=2e-4 if not X64 else 1e-10, atol=1e-5 if not X64 else 0
    )


@each_count
@each_kind
def test_the_inverse_is_the_inverse(kind, knots):
    spline = random(kind, knots, seed=1)
    x = np.concatenate([np.linspace(LOWER, UPPER, 101), [-1e6, -5, 5, 1e6]]).astype(FLOAT)
    y, log_slope = jax.vmap(spline.transform_and_log_det)(x)
    back, log_det = jax.vmap(spline.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, x, atol=(1e-9 if X64 else 1e-5) * np.exp(np.abs(log_slope)).max())
    # The linear one jumps at its knots, which are among the points.
    keep = np.abs(log_det + log_slope) < 1e-3
    assert keep.mean() > 0.9


@each_kind
def test_it_starts_as_the_identity(kind):
    spline = kind(knots=4, interval=(LOWER, UPPER))
    x = np.concatenate([np.linspace(LOWER - 1, UPPER + 1, 61), [-1e6, 1e6]]).astype(FLOAT)
    for method in (spline.transform_and_log_det, spline.inverse_and_log_det):
        y, log_det = jax.vmap(method)(x)
        np.testing.assert_allclose(y, x, rtol=20 * EPS, atol=20 * EPS)
        np.testing.assert_allclose(log_det, 0, atol=20 * EPS)


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.__name__)
def test_the_slope_has_no_jump_at_knots_and_ends(kind):
    spline = random(kind, 4)
    knots = DEFINITIONS[kind](spline).x
    step = 1e-7 if X64 else 1e-4
    for method in (spline.transform_and_log_det, spline.inverse_and_log_det):
        before, after = (jax.vmap(method)((knots + side).astype(FLOAT))[1] for side in (-step, step))
        if method == spline.transform_and_log_det:
            np.testing.assert_allclose(np.exp(before), np.exp(after), atol=1e-4 if X64 else 2e-2)
        ends = np.array([LOWER, UPPER], FLOAT)
        np.testing.assert_allclose(jax.vmap(method)(ends)[1], 0, atol=100 * EPS)


@each_kind
def test_it_increases_at_far_parameters(kind):
    """Also where almost all of the interval is in one bin."""
    for seed in range(2):
        spline = random(kind, 4, seed=seed, scale=30.0)
        x = np.linspace(LOWER, UPPER, 2001).astype(FLOAT)
        y, log_slope = jax.vmap(spline.transform_and_log_det)(x)
        assert (np.diff(y) >= -4 * EPS).all()
        assert np.isfinite(log_slope).all()
        np.testing.assert_allclose(y[np.array([0, -1])], [LOWER, UPPER], atol=10 * EPS)
        for method in (spline.transform_and_log_det, spline.inverse_and_log_det):
            total = eqx.filter_jit(eqx.filter_grad(lambda args, m=method: _total(args, m.__name__)))
            assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(total((spline, jnp.asarray(x[::100])))))


def _total(args, name):
    spline, x = args
    value, log_det = jax.vmap(getattr(spline, name))(x)
    return value.sum() + log_det.sum()


@each_kind
def test_bad_arguments_are_named(kind):
    name = kind.__name__
    with pytest.raises(ValueError, match="knots must be an integer of at least"):
        kind(knots=0, interval=1.0)
    with pytest.raises(ValueError, match=f"{name} expected an interval with lower < upper, got \\(1.0, 0.0\\)"):
        kind(knots=2, interval=(1.0, 0.0))
    with pytest.raises(ValueError, match=f"{name} expected min_width in \\(0, 0.6667\\) so that 3 bins fit, got 0.7"):
        kind(knots=2, interval=1.0, min_width=0.7)


def test_a_bad_least_slope_is_named():
    with pytest.raises(ValueError, match=r"QuadraticSpline expected min_derivative in \(0, 1\), got 1"):
        bij.QuadraticSpline(knots=2, interval=1.0, min_derivative=1.0)


def test_layers_before_a_linear_spline_get_a_part_of_their_gradient_only():
    def mean_log_slope(shift, spline, x):
        return jax.vmap(lambda x: spline.transform_and_log_det(x)[1])(x + shift).mean()

    x = jnp.asarray(0.5 * np.random.default_rng(0).standard_normal(100_000), float)
    heights = jnp.array([0.0, 2.0, -1.0, 1.0])
    linear = eqx.tree_at(lambda spline: spline.heights, bij.LinearSpline(knots=3, interval=2.0), heights)
    quadratic = perturb(bij.QuadraticSpline(knots=3, interval=2.0), np.random.default_rng(1), 1.0)
    for spline, whole in [(linear, False), (quadratic, True)]:
        difference = (mean_log_slope(0.15, spline, x) - mean_log_slope(0.05, spline, x)) / 0.1
        gradient = jax.grad(mean_log_slope)(0.1, spline, x)
        assert abs(difference) > 0.2
        assert abs(gradient - difference) < 0.1 * abs(difference) if whole else gradient == 0
