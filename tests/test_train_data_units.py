"""Location, scale and support of data, which a fit puts into the flow: moments, densities, refusals, warnings."""

import math
import pickle
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special
import scipy.stats

import flowlib
from flowlib.bijections import (
    Affine,
    BernsteinPolynomial,
    Chain,
    CubicSpline,
    EmbedCondition,
    Identity,
    InDataUnits,
    Invert,
    LinearSpline,
    MonotoneIntegral,
    QuadraticSpline,
    RationalQuadraticSpline,
    Reshape,
    Scan,
    Sigmoid,
    SumOfSquares,
    ToSupport,
    Vmap,
    rebuild_drift,
)
from flowlib.distributions import Normal, StandardNormal, Transformed, Uniform, with_support
from flowlib.errors import DataWarning
from flowlib.flows import coupling_flow, heavy_tailed_flow, neural_spline_flow, triangular_spline_flow
from flowlib.parameters import count_parameters, freeze
from flowlib.support import Box, Circle, Interval, Positive, Real
from flowlib.train import fit_to_data
from flowlib.train._data_checks import check_columns
from flowlib.train._data_units import check_support, in_data_units, wrap_circular
from flowlib.train._outside_splines import outside_splines
from parts import rotation, shift

FLOAT = np.float64 if jax.config.jax_enable_x64 else np.float32  # pyright: ignore[reportAttributeAccessIssue]
LOOSE = 1e-9 if np.float64 == FLOAT else 2e-5
RNG = np.random.default_rng(0)
X = RNG.normal([1e4, -3.0], [50.0, 1e-3], size=(200, 2)).astype(FLOAT)
INF = math.inf
MIXED = [(0, 1), (0, INF), "real"]


def plain(*shape):
    return Transformed(StandardNormal(shape), Identity(shape))


def conditional(key, d=2):
    return Transformed(StandardNormal((d,)), shift(key, d))


def with_units(dist, x, weights=None, condition=None, standardise=True, support=None):
    arrays = (jnp.asarray(x),) if condition is None else (jnp.asarray(x), jnp.asarray(condition))
    if isinstance(dist, Transformed) and isinstance(dist.support, Real) and support is None:
        dist = with_support(dist)
    return in_data_units(dist, arrays, weights, standardise=standardise, support=support)


def counted(dist, x):
    """Rows outside, all rows and the interval."""
    found = outside_splines(dist, x)
    assert found is not None
    return found[:3]


def units(dist) -> InDataUnits:
    assert isinstance(dist.bijection, InDataUnits)
    return dist.bijection


def moments(dist):
    found = units(dist)
    return np.asarray(found.location.tree), np.exp(np.asarray(found.log_scale.tree, np.float64))


def mixed_data(n=300):
    return np.stack([RNG.beta(2, 5, n), RNG.lognormal(3, 2, n), RNG.normal(5, 3, n)], 1).astype(FLOAT)


def test_location_and_scale_are_mean_and_population_standard_deviation():
    location, scale = moments(with_units(plain(2), X))
    np.testing.assert_allclose(location, X.mean(0, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(scale, X.std(0, dtype=np.float64), rtol=1e-6)
    assert location.dtype == FLOAT


def test_scalar_and_matrix_events_have_moments_of_their_shape():
    location, scale = moments(with_units(plain(), X[:, 0]))
    np.testing.assert_allclose((location, scale), (X[:, 0].mean(), X[:, 0].std()), rtol=1e-5)
    x = RNG.normal(3, 2, (50, 2, 3)).astype(FLOAT)
    location, scale = moments(with_units(plain(2, 3), x))
    np.testing.assert_allclose(location, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale, x.std(0), rtol=1e-5)


def test_integer_weights_are_repeated_rows(key):
    weights = RNG.integers(0, 4, len(X))
    c = RNG.normal(7, 2, (len(X), 2)).astype(FLOAT)
    weighted = with_units(conditional(key), X, weights, c)
    repeated = with_units(conditional(key), np.repeat(X, weights, 0), None, np.repeat(c, weights, 0))
    for one, other in zip(*(jax.tree.leaves(eqx.filter(d, eqx.is_array)) for d in (weighted, repeated)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_rows_of_weight_zero_do_not_count():
    far = np.concatenate([X, [[1e30, -1e30]]]).astype(FLOAT)
    weights = np.append(np.ones(len(X)), 0.0)
    np.testing.assert_allclose(moments(with_units(plain(2), far, weights)), moments(with_units(plain(2), X)), rtol=1e-6)
    with pytest.raises(ValueError, match="at least one positive weight"):
        with_units(plain(2), X, np.zeros(len(X)))


def test_portions_do_not_change_the_moments(monkeypatch):
    whole = with_units(plain(2), X)
    monkeypatch.setattr("flowlib.train._data_checks._PORTION", 14)
    parts = with_units(plain(2), X)
    np.testing.assert_allclose(moments(whole), moments(parts), rtol=1e-6)


def test_constant_columns_have_scale_one_and_huge_ones_do_not_overflow():
    big = 0.4 * float(np.finfo(FLOAT).max)
    x = np.stack([np.full(4, 7.7), big * np.array([-1, 1, 0.5, -0.5]), 1e-30 * np.arange(4)], 1).astype(FLOAT)
    location, scale = moments(with_units(plain(3), x))
    assert location[0] == FLOAT(7.7)
    assert scale[0] == 1
    np.testing.assert_allclose(scale[1] / big, np.sqrt(10) / 4, rtol=1e-4)
    np.testing.assert_allclose(scale[2], 1e-30 * np.sqrt(1.25), rtol=1e-4)


def test_far_data_of_small_spread_round_trip_and_are_standardised():
    dist = with_units(plain(2), X)
    z = dist.to_base(X)
    assert abs(np.asarray(z).std(0) - 1).max() < 1e-2
    np.testing.assert_allclose(dist.from_base(z), X, rtol=4 * float(np.finfo(FLOAT).eps))


def test_float_conditions_are_standardised_and_labels_are_not(key):
    c = RNG.normal(1e3, 5, (len(X), 2)).astype(FLOAT)
    dist = with_units(conditional(key), X, condition=c)
    np.testing.assert_allclose(units(dist).cond_location.tree, c.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.exp(units(dist).cond_log_scale.tree), c.std(0), rtol=1e-4)
    # By hand: the flow of standardised conditions on standardised rows.
    location, scale = moments(dist)
    by_hand = conditional(key).log_prob((X - location) / scale, (c - c.mean(0)) / c.std(0)) - np.log(scale).sum()
    np.testing.assert_allclose(dist.log_prob(X, c), by_hand, rtol=1e-3, atol=1e-2)
    labels = RNG.integers(3, size=len(X))
    embedded = EmbedCondition(shift(key, 2), eqx.nn.Embedding(3, 2, key=key), ())
    dist = with_units(Transformed(StandardNormal((2,)), embedded), X, condition=labels)
    assert not units(dist).cond_location.tree.any()
    by_hand = Transformed(StandardNormal((2,)), embedded).log_prob((X - location) / scale, labels)
    np.testing.assert_allclose(dist.log_prob(X, labels), by_hand - np.log(scale).sum(), rtol=1e-4, atol=1e-3)


def test_units_of_an_unconditional_bijection_leave_the_condition_alone():
    assert units(with_units(plain(2), X, condition=X)).cond_location is None
    assert InDataUnits(Identity((2,)), 1.0).transform(np.zeros(2), condition=np.ones(5)).shape == (2,)
    with pytest.raises(ValueError, match="unconditional"):
        InDataUnits(Identity((2,)), cond_scale=2.0)


def test_positive_data_have_the_lognormal_density():
    x = scipy.stats.lognorm(s=2.0, scale=30.0).rvs(500, random_state=1).astype(FLOAT)
    dist = with_units(plain(), x, support="positive")
    logs = np.log(x.astype(np.float64))
    expected = scipy.stats.lognorm.logpdf(x.astype(np.float64), s=logs.std(), scale=np.exp(logs.mean()))
    np.testing.assert_allclose(dist.log_prob(x), expected, rtol=LOOSE, atol=LOOSE)
    np.testing.assert_array_equal(dist.log_prob(np.array([-1.0, 0.0, INF])), -INF)
    assert isinstance(dist.support, Positive)


def test_data_in_an_interval_have_the_logit_normal_density():
    low, high = -2.0, 6.0
    x = (low + (high - low) * RNG.beta(3, 2, 300)).astype(FLOAT)
    dist = with_units(plain(), x, support=(low, high))
    u = (x.astype(np.float64) - low) / (high - low)
    logits = np.log(u / (1 - u))
    normal = scipy.stats.norm.logpdf(logits, logits.mean(), logits.std())
    np.testing.assert_allclose(dist.log_prob(x), normal - np.log((high - low) * u * (1 - u)), rtol=LOOSE, atol=LOOSE)
    np.testing.assert_array_equal(dist.log_prob(np.array([low, high, 7.0])), -INF)


def test_support_without_standardising_is_the_map_alone():
    x = mixed_data()
    dist = with_units(plain(3), x, standardise=False, support=MIXED)
    location, scale = moments(dist)
    np.testing.assert_array_equal(location, 0)
    np.testing.assert_array_equal(scale, 1)
    np.testing.assert_allclose(dist.to_base(x)[:, 1], np.log(x[:, 1]), rtol=LOOSE, atol=LOOSE)
    assert with_units(plain(3), x, standardise=False) is not None


def test_without_anything_to_do_the_distribution_is_the_same_object():
    for support in (None, "real", ["real", Real()], (-INF, INF)):
        dist = with_support(plain(2))
        assert with_units(dist, X, standardise=False, support=support) is dist
    dist = plain(2)
    assert in_data_units(dist, (jnp.asarray(X),), None, standardise=False, support=None) is dist


def test_every_sample_is_in_the_support(key):
    dist = with_units(plain(3), mixed_data(), support=MIXED)
    # A base of heavy draws, whose images round to the ends.
    wide = eqx.tree_at(lambda d: d.base_dist, dist, Normal(jnp.zeros(3), 30 * jnp.ones(3)))
    for flow in (dist, wide):
        x = np.asarray(flow.sample(key, 5000))
        assert ((x[:, 0] > 0) & (x[:, 0] < 1) & (x[:, 1] > 0)).all()
        assert np.isfinite(x).all()
        assert np.isfinite(flow.log_prob(x)).all()
    assert isinstance(dist.support, Box)
    assert dist.support == ToSupport(MIXED, (3,)).codomain


def test_kinds_of_support_are_spelt_in_several_ways():
    ways = [
        (["real", "positive"], [Real(), Positive()], [(-INF, INF), (0, np.inf)], [[-INF, INF], Interval(0.0, INF)]),
        ([(0, 1), (0, 1)], (0.0, 1.0), Interval(0, 1), Interval(jnp.asarray(0.0), jnp.asarray(1.0))),
        ("circular", Circle(), ["circular", Circle(-math.pi, math.pi)]),
        ((-INF, 3), [(-INF, 3.0)] * 2),
    ]
    for same in ways:
        assert len({(box.lower, box.upper, box.circular) for box in (ToSupport(s, (2,)).box for s in same)}) == 1


BAD_SUPPORTS = [
    (["real"], ValueError, "expected 2 entries, one a column, got a sequence of 1"),
    ((1, 0), ValueError, r"low < high, got \(1, 0\)"),
    ((0.0, math.nan), ValueError, "low < high"),
    ([0, 1], TypeError, r"support\[0\] expected .* got 0"),
    ("angles", TypeError, "support expected .* got 'angles'"),
    (3.0, TypeError, "support expected .* got 3.0"),
    ([], TypeError, "support expected"),
    (Interval(np.zeros(2), np.ones(2)), TypeError, "support expected"),
    (Circle(0.0, INF), ValueError, "circle with finite ends"),
]


@pytest.mark.parametrize(("support", "error", "message"), BAD_SUPPORTS)
def test_bad_supports_are_refused_in_one_line(support, error, message):
    with pytest.raises(error, match=message) as caught:
        with_units(plain(2), X, support=support)
    assert "\n" not in str(caught.value)


def test_one_support_for_each_column_needs_vectors():
    with pytest.raises(ValueError, match=r"one entry for events of shape \(2, 3\)"):
        with_units(plain(2, 3), np.ones((5, 2, 3)), support=["real", "positive"])


def test_rows_outside_the_support_are_named():
    x = mixed_data(40)
    x[[3, 5, 8, 13, 21, 34], 1] = [-0.5, 0, -1, -2, -3, -4]
    with pytest.raises(ValueError, match=r"x expected numbers above 0 in column 1, got -0\.5 at row 3, ") as caught:
        with_units(plain(3), x, support=MIXED)
    message = str(caught.value)
    assert message.endswith("(counted from zero); 6 of 40 rows are outside, rows 3, 5, 8, 13, 21, and 1 more.")
    assert "\n" not in message
    x[3, 1] = 0
    with pytest.raises(ValueError, match=r"got 0 at row 3, .* The ends have no density: add a little noise"):
        with_units(plain(3), x, support=MIXED)
    x[7, 0] = 1
    with pytest.raises(ValueError, match=r"between 0 and 1 in column 0, got 1 at row 7, .* row 7\. The ends"):
        with_units(plain(3), x, support=MIXED)
    with pytest.raises(ValueError, match="numbers below 3, got 4 at row 1 "):
        with_units(plain(), np.array([1.0, 4.0]), support=(-INF, 3))
    with pytest.raises(ValueError, match=r"above 0 in column \(1, 2\), got -1 at row 0, column \(1, 2\)"):
        with_units(plain(2, 3), np.where(np.arange(6).reshape(1, 2, 3) == 5, -1.0, 1.0), support="positive")


def test_what_rounds_to_an_end_in_the_precision_of_the_flow_is_outside():
    x = np.array([0.25, 1 - 1e-12])
    narrow = Transformed(StandardNormal(()), Affine(np.float32(0), np.float32(1)))
    with pytest.raises(ValueError, match=r"got 1 at row 1 .* 1 of 2 rows are outside, row 1\. The ends have no"):
        in_data_units(narrow, (x,), standardise=True, support=(0, 1))


def test_a_second_fit_keeps_the_units(key):
    x = mixed_data()
    first = with_units(plain(3), x, support=MIXED)
    for support in (None, MIXED):
        assert with_units(first, x + FLOAT(0.01) * (x < 0.5), support=support) is first
    with pytest.raises(ValueError, match="support differs from that of the distribution"):
        with_units(first, x, support="real")
    with pytest.raises(ValueError, match="between 0 and 1 in column 0"):
        with_units(first, x + 1)
    # In a wrapper, and at the end of a chain too.
    frozen = eqx.tree_at(lambda d: d.bijection, first, replace_fn=freeze)
    assert with_units(frozen, x) is frozen
    chained = Transformed(first.base_dist, Chain([rotation(key, 3), units(first)]))
    assert with_units(chained, x) is chained
    no_support = with_units(plain(2), X)
    with pytest.raises(ValueError, match="support differs"):
        with_units(no_support, X, support=(0, 1e6))


def test_other_distributions_are_left_alone():
    others = [Normal(jnp.zeros(2)), Uniform(jnp.zeros(2), jnp.ones(2)), Transformed(StandardNormal(()), Sigmoid()), {}]
    for dist in others:
        assert with_units(dist, (X - X.mean(0)) / X.std(0) if not isinstance(dist, Uniform) else X % 1) is dist
        with pytest.raises(TypeError, match="support expected a Transformed over the real line"):
            with_units(dist, X, support="positive")


def test_arrays_that_are_no_events_are_left_alone():
    flow = with_support(plain(2))
    assert with_units(flow, np.ones((5, 3))) is flow
    with pytest.raises(ValueError, match=r"rows of x of shape \(2,\), got \(3,\)"):
        with_units(flow, np.ones((5, 3)), support="positive")


def test_units_add_no_trainable_parameters_and_compile_nothing(key, compiles):
    flow = coupling_flow(key, base_dist=StandardNormal((3,)), flow_layers=2, nn_width=4)
    x, again = jnp.asarray(mixed_data()), jnp.asarray(mixed_data())
    before = count_parameters(flow)
    with compiles.expect_none():
        wrapped = in_data_units(flow, (x,), None, standardise=True, support=[(0, 1), "positive", Circle(-99.0, 99.0)])
        outside_splines(wrapped, x)
        wrap_circular(wrapped, x)
        check_support(wrapped, x)
        check_columns(x)
    assert count_parameters(wrapped) == before
    wrapped.log_prob(x)
    second = with_units(flow, again, support=[(0, 1), "positive", Circle(-99.0, 99.0)])
    assert moments(second)[0][2] != moments(wrapped)[0][2]
    with compiles.expect_none():
        second.log_prob(again)


@pytest.mark.parametrize("standardise", [True, False])
def test_circles_are_cut_in_the_widest_gap(standardise, key):
    # Around pi, where the angles jump, and a gap around 0.
    angles = RNG.normal(math.pi, 0.4, (500, 2)).astype(FLOAT) + FLOAT(2 * math.pi) * RNG.integers(-3, 4, (500, 2))
    angles = angles.astype(FLOAT)
    dist = with_units(plain(2), angles, standardise=standardise, support="circular")
    to_data = units(dist).to_data
    assert isinstance(to_data, ToSupport)
    assert abs(np.asarray(to_data.cut.tree)).max() < 2
    wrapped = wrap_circular(dist, angles)
    assert (abs(wrapped) <= FLOAT(math.pi)).all()
    np.testing.assert_allclose(np.cos(wrapped), np.cos(angles), atol=1e-4)
    assert wrap_circular(dist, wrapped) is wrapped
    assert np.isfinite(dist.log_prob(wrapped)).all()
    # The density of the angle is that of the logit of the way from the cut.
    location, scale = moments(dist)
    cut = np.asarray(to_data.cut.tree, np.float64)
    u = np.mod(wrapped.astype(np.float64) - cut, 2 * math.pi) / (2 * math.pi)
    z = (np.log(u / (1 - u)) - location) / scale
    expected = (scipy.stats.norm.logpdf(z) - np.log(2 * math.pi * scale * u * (1 - u))).sum(1)
    np.testing.assert_allclose(dist.log_prob(wrapped), expected, rtol=1e-3, atol=1e-3)
    samples = np.asarray(dist.sample(key, 1000))
    assert (abs(samples) <= FLOAT(math.pi)).all()
    assert isinstance(dist.support, Circle)


def test_only_circular_columns_are_wrapped():
    x = np.array([[370.0, 1e3], [20.0, -1.0], [-10.0, 3.0]], FLOAT)
    dist = with_units(plain(2), x, support=[Circle(0, 360), "real"])
    np.testing.assert_allclose(wrap_circular(dist, jnp.asarray(x))[:, 0], [10, 20, 350], rtol=1e-6)
    np.testing.assert_array_equal(wrap_circular(dist, x)[:, 1], x[:, 1])
    assert wrap_circular(plain(2), x) is x
    # A density on the circle integrates to 1.
    grid = np.stack([np.linspace(0, 360, 20001)[1:], np.zeros(20000)], 1).astype(FLOAT)
    alone = with_units(plain(), x[:, 0], support=Circle(0, 360))
    np.testing.assert_allclose(np.exp(alone.log_prob(grid[:, 0])).sum() * 360 / 20000, 1, rtol=1e-3)


def test_validation_rows_can_be_checked_by_themselves():
    dist = with_units(plain(3), mixed_data(), support=MIXED)
    check_support(dist, mixed_data())
    check_support(plain(3), -mixed_data())
    with pytest.raises(ValueError, match="val_data expected numbers between 0 and 1 in column 0"):
        check_support(dist, -mixed_data(), "val_data")


def test_a_wrapped_flow_is_saved_pickled_and_shown(key, tmp_path):
    flow = coupling_flow(key, base_dist=StandardNormal((3,)), cond_dim=2, flow_layers=2, nn_width=4)
    x, c = mixed_data(), RNG.normal(4, 2, (300, 2)).astype(FLOAT)
    dist = with_units(flow, x, condition=c, support=[(0, 1), "positive", Circle(-99.0, 99.0)])
    flowlib.save(tmp_path / "flow", dist)
    for copy in (flowlib.load(tmp_path / "flow"), pickle.loads(pickle.dumps(dist))):
        assert bool(eqx.tree_equal(copy, dist))
        np.testing.assert_array_equal(copy.log_prob(x, c), dist.log_prob(x, c))
    assert "InDataUnits(Identity)" in repr(dist)
    # The layers still make up the flow.
    np.testing.assert_allclose(
        Transformed(dist.base_dist, Chain(dist.layers)).log_prob(x, c), dist.log_prob(x, c), rtol=1e-3, atol=1e-3
    )


def test_dtypes_follow_the_flow():
    for dtype in {np.float32, FLOAT}:
        dist = with_units(Transformed(StandardNormal((2,)), Affine(np.zeros(2, dtype), np.ones(2, dtype))), X)
        assert moments(dist)[0].dtype == dtype
        assert dist.log_prob(X.astype(dtype)).dtype == dtype


def test_drift_of_rebuilt_layers_is_seen_through_the_units(key):
    flow = coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=3, nn_width=4, gradient="rebuild")
    dist = with_units(flow, X)
    assert rebuild_drift(Invert(dist.bijection), X[:20]).shape == (3,)
    assert rebuild_drift(dist.bijection, np.ones((4, 2))).shape == (3,)


def test_rows_outside_the_splines_are_counted(key):
    spline = RationalQuadraticSpline(knots=4, interval=2.0)
    flow = coupling_flow(key, base_dist=StandardNormal((2,)), transformer=spline, flow_layers=2, nn_width=4)
    z = (X - X.mean(0, dtype=np.float64)) / X.std(0, dtype=np.float64)
    outside = int((abs(z) > 2).any(1).sum())
    assert 0 < outside < len(X)
    assert counted(with_units(flow, X), X) == (outside, len(X), (-2.0, 2.0))
    assert counted(flow, X) == (len(X), len(X), (-2.0, 2.0))
    positive = np.exp(z).astype(FLOAT)
    assert counted(with_units(flow, positive, support="positive"), positive) == (
        outside,
        len(X),
        (-2.0, 2.0),
    )
    affine = coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=2, nn_width=4)
    assert outside_splines(affine, X) is None
    # Its splines see coordinates that were squashed before.
    assert outside_splines(triangular_spline_flow(key, base_dist=StandardNormal((2,)), flow_layers=2), X) is None
    assert outside_splines({"a": 1}, X) is None


STRAIGHT_OUTSIDE = [
    LinearSpline(knots=4, interval=2.0),
    QuadraticSpline(knots=4, interval=2.0),
    CubicSpline(knots=4, interval=2.0),
    RationalQuadraticSpline(knots=4, interval=2.0, edges="free"),
    BernsteinPolynomial(degree=5, interval=2.0),
    SumOfSquares(bound=2.0),
    MonotoneIntegral(bound=2.0),
]


def test_rows_outside_the_interval_of_every_kind_of_spline_are_counted():
    z = np.array([[0.0, 1.9], [2.1, 0.0], [-1.0, -2.1], [2.0, -2.0]], FLOAT)
    for transformer in STRAIGHT_OUTSIDE:
        each = Transformed(StandardNormal((2,)), Vmap(transformer, axis_size=2))
        assert counted(each, z) == (2, 4, (-2.0, 2.0)), transformer
    circle = RationalQuadraticSpline(knots=4, interval=2.0, edges="circular")
    assert outside_splines(Transformed(Uniform(-2 * np.ones(2), 2 * np.ones(2)), Vmap(circle, axis_size=2)), z) is None


def test_the_interval_is_wider_after_heavy_tails(key):
    flow = heavy_tailed_flow(key, base_dist=StandardNormal((2,)), weight=0.5, flow_layers=2, nn_width=4, interval=3.0)
    # The largest value for which the splines see 3: the quantile of (erfc(3 / sqrt 2)^-t - 1) sqrt(pi/2) / t.
    edge = (scipy.special.erfc(3 / 2**0.5) ** -0.5 - 1) * (np.pi / 2) ** 0.5 / 0.5
    assert edge > 40
    rows = np.array([[0.0, 0.99 * edge], [1.01 * edge, 0.0], [0.0, -0.99 * edge], [-1.01 * edge, 1.0]], FLOAT)
    assert counted(flow, rows) == (2, 4, (-3.0, 3.0))
    assert counted(with_units(flow, X), X) == (0, len(X), (-3.0, 3.0))


def test_unremarkable_data_give_no_warning():
    check_columns(X)
    check_columns(X[:, 0], X)
    check_columns(RNG.normal(size=(3, 2, 2)))


DATA_WARNINGS = [
    (np.ones((1, 3)), "x has a single row"),
    (np.where(np.arange(3) == 1, 5.0, RNG.normal(size=(9, 3))), "x is constant in column 1 "),
    (np.ones((4, 9)), "x is constant in columns 0, 1, 2, 3, 4, and 4 more "),
    (np.where(np.arange(4).reshape(2, 2) == 2, 5.0, RNG.normal(size=(9, 2, 2))), r"constant in column \(1, 0\) "),
    (X[:, [0, 1, 0]], r"equal or perfectly correlated columns, pair 0 and 2 \("),
    (np.stack([X[:, 0], 3 - 2 * X[:, 0], X[:, 1], -X[:, 1]], 1), r"columns, pairs 0 and 1; 2 and 3 \("),
    (RNG.normal(size=(20, 1001)), "x has 20 rows and 1001 columns, .* is it transposed"),
]


@pytest.mark.parametrize(("x", "message"), DATA_WARNINGS, ids=range(len(DATA_WARNINGS)))
def test_suspicious_data_give_one_warning(x, message):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_columns(x.astype(FLOAT))
    assert len(caught) == 1
    assert caught[0].category is DataWarning
    with pytest.raises(DataWarning, match=message):
        check_columns(x.astype(FLOAT))


def test_a_constant_condition_gives_a_warning():
    with pytest.warns(DataWarning, match="condition is constant in column 0 .*: nothing is learned of other values"):
        check_columns(X, np.ones(len(X), FLOAT))


def test_columns_that_agree_on_some_rows_only_are_not_taken_for_equal():
    x = RNG.normal(size=(5000, 2)).astype(FLOAT)
    x[:, 1] = np.where(np.arange(5000) % 2, x[:, 1], x[:, 0])
    check_columns(x)


def test_to_support_matches_its_formulas():
    x = np.array([-3.0, 0.5, 4.0], FLOAT)
    for support, y in [
        ((0, INF), np.exp(x)),
        ((2.5, INF), 2.5 + np.exp(x)),
        ((-INF, -1.0), -1 - np.exp(-x)),
        ((-1.0, 3.0), -1 + 4 * scipy.special.expit(x)),
        ("real", x),
    ]:
        np.testing.assert_allclose(ToSupport(support, (3,)).transform(x), y, rtol=1e-5)
    cut = ToSupport(Circle(0.0, 4.0), (3,), cut=3.0)
    np.testing.assert_allclose(cut.transform(x), (3 + 4 * scipy.special.expit(x)) % 4, rtol=1e-4)


def test_bad_units_are_refused(unchecked_annotations):
    with pytest.raises(ValueError, match=r"location of a shape that broadcasts to \(2,\), got \(3,\)"):
        InDataUnits(Identity((2,)), np.zeros(3))
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        InDataUnits(Identity((2,)), 0.0, -1.0)
    with pytest.raises(ValueError, match=r"to_data of shape \(2,\), got shape \(3,\)"):
        InDataUnits(Identity((2,)), to_data=Identity((3,)))
    with pytest.raises(ValueError, match="to_data that takes real numbers, got interval input"):
        InDataUnits(Identity((2,)), to_data=Invert(Sigmoid((2,))))
    no_bijection: Any = jnp.exp
    with pytest.raises(TypeError, match="expected a bijection"):
        InDataUnits(no_bijection)


def test_units_can_be_stacked_and_change_shapes(key):
    inner = Reshape(Affine(jnp.zeros(6)), (6,), out_shape=(2, 3))
    outer = InDataUnits(inner, jnp.ones((2, 3)), 2.0)
    np.testing.assert_allclose(outer.transform(np.ones(6)), np.full((2, 3), 3.0))
    make = eqx.filter_vmap(lambda k: InDataUnits(Affine(jr.normal(k, (2,))), jr.normal(k, (2,)), jnp.exp(jr.normal(k))))
    assert Scan(make(jr.split(key, 3))).transform(np.ones(2)).shape == (2,)


@pytest.mark.parametrize("rows", [60, 234, 2000])
def test_the_default_spline_flow_says_nothing_of_normal_and_uniform_rows(key, rows):
    flow = neural_spline_flow(key, base_dist=StandardNormal((6,)), flow_layers=1, nn_width=4)
    rng = np.random.default_rng(rows)
    for _ in range(5):
        fit_to_data(key, flow, rng.normal(size=(rows, 6)), max_epochs=0, show_progress=False)
        fit_to_data(key, flow, rng.uniform(size=(rows, 6)), support=(0, 1), max_epochs=0, show_progress=False)


def test_values_outside_of_splines_are_told_by_column_with_what_has_not_been_done(key):
    flow = neural_spline_flow(key, base_dist=StandardNormal((2,)), flow_layers=1, nn_width=4)
    x = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 30.0]
    with pytest.warns(DataWarning, match=r"column 1 \(counted.*\(-4, 4\).*Standardise the data"):
        fit_to_data(key, flow, x, standardise=False, max_epochs=0, show_progress=False)
    # A twentieth of the rows far out, after the fit has standardised them.
    x = np.random.default_rng(0).normal(size=(2000, 2))
    x[::20, 0] += 100
    with pytest.warns(DataWarning, match=r"column 0 \(counted.*Clip outliers"):
        fit_to_data(key, flow, x, max_epochs=0, show_progress=False)


def test_columns_with_units_may_be_an_array():
    units = InDataUnits(Identity((2,)), 3.0, columns=np.array([True, False]))
    assert units.columns == (True, False)
    np.testing.assert_array_equal(units.transform(np.zeros(2)), [3, 0])
