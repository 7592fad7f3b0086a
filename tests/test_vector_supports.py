"""Maps onto the simplex, increasing vectors and spheres, against SciPy, quadrature and geometry."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64, generator
from flowlib.distributions import StandardNormal, Transformed
from flowlib.support import Increasing, Simplex, Sphere

TOLERANCE = 1e-9 if X64 else 2e-5


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def numbers(*shape):
    return generator("numbers", shape).standard_normal(shape).astype(FLOAT)


@eqx.filter_jit
def forward(bijection, x):
    return jax.vmap(bijection.transform_and_log_det)(x)


@eqx.filter_jit
def backward(bijection, y):
    return jax.vmap(bijection.inverse_and_log_det)(y)


def test_equal_parts_are_broken_at_zero():
    close(bij.StickBreaking(5).transform(np.zeros(4, FLOAT)), np.full(5, 0.2))


def test_sticks_are_broken_one_after_another():
    x = numbers(10, 3)
    y, log_det = forward(bij.StickBreaking(4), x)
    left, parts, slopes = np.ones(10), [], []
    for i in range(3):
        share = 1 / (1 + np.exp(-(x[:, i].astype(np.float64) - np.log(3 - i))))
        parts.append(left * share)
        slopes.append(np.log(left * share * (1 - share)))
        left = left * (1 - share)
    close(y, np.stack([*parts, left], 1))
    close(log_det, np.sum(slopes, 0))


def test_two_parts_are_a_logistic_transform():
    y, log_det = forward(bij.StickBreaking(2), numbers(10, 1))
    close(y[:, 0], stats.logistic.cdf(numbers(10, 1)[:, 0]))
    close(log_det, stats.logistic.logpdf(numbers(10, 1)[:, 0]))


def test_measure_on_the_simplex_is_that_of_scipy():
    """Importance weights of a flow on the simplex to SciPy's Dirichlet density have the mean 1."""
    flow = Transformed(StandardNormal((3,)), bij.StickBreaking(4))
    y, log_prob = flow.sample_and_log_prob(jax.random.key(0), 40_000)
    y = np.asarray(y, np.float64)
    weights = np.exp(stats.dirichlet([2.0, 3.0, 2.0, 2.0]).logpdf((y / y.sum(1, keepdims=True)).T) - log_prob)
    assert abs(weights.mean() - 1) < 4 * weights.std() / 200
    assert weights.std() < 1.5


def test_small_parts_keep_their_digits():
    x = np.array([[30.0, -40.0, 10.0], [-30.0, -60.0, 0.0]], FLOAT)
    y, log_det = forward(bij.StickBreaking(4), x)
    back, inverse_log_det = backward(bij.StickBreaking(4), y)
    close(back, x, 1e2 * EPS)
    close(log_det, -inverse_log_det, 1e2 * EPS)


def test_points_near_the_simplex_are_on_it_and_others_have_no_density():
    flow = Transformed(StandardNormal((2,)), bij.StickBreaking(3))
    point = np.array([0.2, 0.3, 0.5], FLOAT)
    assert np.isfinite(flow.log_prob(point * (1 + 4 * EPS)))
    for wrong in ([0.2, 0.3, 0.51], [0.5, 0.5, 0.0], [0.6, 0.5, -0.1]):
        assert flow.log_prob(np.array(wrong, FLOAT)) == -np.inf
    assert np.isnan(flow.log_prob(np.array([np.nan, 0.3, 0.5], FLOAT)))


def test_ordered_vectors_are_sums_of_exponentials():
    x = numbers(10, 4)
    y, log_det = forward(bij.Ordered(4), x)
    close(y, np.cumsum(np.concatenate([x[:, :1], np.exp(x[:, 1:])], 1), 1))
    close(log_det, x[:, 1:].sum(1))
    assert (np.diff(y) > 0).all()
    flow = Transformed(StandardNormal((3,)), bij.Ordered(3))
    assert flow.log_prob(np.array([0.0, 1.0, 1.0], FLOAT)) == -np.inf
    # The first and the ratio of the two steps are independent, normal and lognormal.
    steps = np.array([0.3, 0.7, 0.2], FLOAT)
    expected = stats.norm.logpdf(0.3) + stats.lognorm.logpdf([0.7, 0.2], 1).sum()
    close(flow.log_prob(np.cumsum(steps)), expected)


def test_stereographic_projection_is_the_line_from_the_pole():
    x = numbers(10, 2)
    y, _ = forward(bij.Stereographic(2), x)
    y = np.asarray(y, np.float64)
    close(np.linalg.norm(y, axis=1), 1)
    # The pole, y and (x, 0) are on one line.
    pole = np.array([0, 0, 1.0])
    close(np.cross(y - pole, np.pad(x, ((0, 0), (0, 1))) - pole), 0)


@pytest.mark.parametrize("dim", [1, 2])
def test_density_on_the_sphere_integrates_to_one_by_area(dim):
    flow = Transformed(StandardNormal((dim,)), bij.Stereographic(dim))
    n = 400
    middle = (np.arange(n) + 0.5) / n
    if dim == 1:
        angles = 2 * np.pi * middle
        points, area = np.stack([np.cos(angles), np.sin(angles)], 1), 2 * np.pi / n
    else:
        # Equal steps along the axis and around it are equal areas, as Archimedes knew.
        height, around = (grid.ravel() for grid in np.meshgrid(2 * middle - 1, 2 * np.pi * middle[::10]))
        radius = np.sqrt(1 - height**2)
        points = np.stack([radius * np.cos(around), radius * np.sin(around), height], 1)
        area = 4 * np.pi / len(points)
    total = np.exp(np.asarray(flow.log_prob(points.astype(FLOAT)), np.float64)).sum() * area
    assert abs(total - 1) < 1e-3


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_stereographic_inverse_keeps_its_digits_near_the_pole(far):
    x = np.array([[far, -2 * far], [far, 0.5]], FLOAT)
    y, log_det = forward(bij.Stereographic(2), x)
    back, inverse_log_det = backward(bij.Stereographic(2), y)
    np.testing.assert_allclose(back, x, rtol=20 * EPS)
    close(log_det, -inverse_log_det)


def test_the_pole_is_the_only_point_left_out():
    flow = Transformed(StandardNormal((2,)), bij.Stereographic(2))
    assert flow.log_prob(np.array([0, 0, 1], FLOAT)) == -np.inf
    close(flow.log_prob(np.array([0, 0, -1], FLOAT)), np.log(1 / (2 * np.pi) / 4))
    assert flow.log_prob(np.array([0.5, 0, 0.5], FLOAT)) == -np.inf
    assert Sphere(closed=True).contains(jnp.array([0, 0, 1], FLOAT))
    assert not Sphere().contains(jnp.array([0, 0, 1], FLOAT))


def test_what_lies_on_a_surface_is_not_taken_for_a_volume():
    """An affine map after it would have another log-det."""
    for bijection in (bij.StickBreaking(3), bij.Stereographic(2)):
        with pytest.raises(ValueError, match=r"needs real input, but the part before it gives (simplex|sphere)"):
            bij.Chain([bijection, bij.Loc(np.zeros(3))])
    assert bij.Chain([bij.Ordered(3), bij.Loc(np.ones(3))]).transform(np.zeros(3, FLOAT)).shape == (3,)


def test_members_are_told_from_others():
    for support, member, other in [
        (Simplex(), [0.25, 0.75], [0.25, 0.7]),
        (Increasing(), [-1.0, 0.0, 5.0], [-1.0, 5.0, 0.0]),
        (Sphere(), [0.6, -0.8], [0.6, -0.7]),
    ]:
        assert support.contains(jnp.array(member, FLOAT))
        assert not support.contains(jnp.array(other, FLOAT))
        assert support.contains(support.anchor(jnp.array(other, FLOAT)))
        assert not support.contains(jnp.array([np.nan, *member[1:]], FLOAT))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bij.StickBreaking(1), "parts must be an integer of at least 2, got 1"),
        (lambda: bij.Ordered(0), "dim must be an integer of at least 1, got 0"),
        (lambda: bij.Stereographic(0), "dim must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_one_line_errors(make, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
