"""Whole numbers by dequantization: probabilities, bounds, fits, and what is refused."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as stats

import flowlib
from contract_tools import X64
from flowlib.bijections import AdditiveCondition, Affine, Chain, RationalQuadraticSpline, Sigmoid, ToSupport
from flowlib.distributions import Beta, Dequantized, Normal, StandardNormal, Transformed, VmapMixture, bits_per_dim
from flowlib.flows import coupling_flow
from flowlib.support import Integers
from flowlib.train import MaximumLikelihoodLoss, fit_ensemble_to_data, fit_to_data

LOC, SCALE = np.array([0.3, -1.0]), np.array([1.5, 3.0])
NUMBERS = np.stack(np.meshgrid(np.arange(-5, 6), np.arange(-8, 8)), -1).reshape(-1, 2).astype(float)
RNG = np.random.default_rng(5)


def normal_cells(x):
    """The exact probability of each row, in logarithms."""
    return np.log(stats.norm.cdf(x + 1, LOC, SCALE) - stats.norm.cdf(x, LOC, SCALE)).sum(1)


def normal(**options):
    return Dequantized(Normal(LOC, SCALE), **options)


def narrow(z):
    """A noise distribution over (0, 1) in each of two coordinates."""
    return Transformed(StandardNormal((2,)), Chain([Affine(np.zeros(2), np.full(2, z)), Sigmoid((2,))]))


# Probabilities.


@pytest.mark.parametrize(("points", "tolerance"), [(1, 0.2), (16, 0.04), (256, 0.002)])
def test_log_prob_is_the_integral_over_the_cell(points, tolerance):
    likely = NUMBERS[normal_cells(NUMBERS) > -9]
    found = np.asarray(normal(points=points).log_prob(likely))
    np.testing.assert_allclose(found, normal_cells(likely), atol=tolerance)


def test_probabilities_sum_to_one():
    grid = np.stack(np.meshgrid(np.arange(-9, 10), np.arange(-18, 17)), -1).reshape(-1, 2)
    total = np.exp(np.asarray(normal(points=64).log_prob(grid), np.float64)).sum()
    assert abs(total - 1) < 1e-3


def test_lower_bound_is_below_in_the_mean_and_tighter_with_more_samples():
    """Of a density that varies within cells. The gap of the uniform bound is a quadrature of the log density."""
    loc, scale = np.array([0.3, -0.2]), np.array([0.5, 0.7])
    dist = Dequantized(Normal(loc, scale))
    x = np.array([[0.0, -1.0], [1.0, 0.0]])
    copies = np.repeat(x[:, None], 4000, axis=1)
    exact = np.log(stats.norm.cdf(x + 1, loc, scale) - stats.norm.cdf(x, loc, scale)).sum(1)
    means = [np.asarray(dist.lower_bound(jr.key(0), copies, num_samples=n), np.float64).mean(1) for n in (1, 4, 64)]
    places = (np.arange(2000) + 0.5) / 2000
    expected = [sum(stats.norm.logpdf(row[i] + places, loc[i], scale[i]).mean() for i in range(2)) for row in x]
    np.testing.assert_allclose(means[0], expected, atol=0.1)
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2]).all()
    assert (means[0] < exact - 0.04).all()
    np.testing.assert_allclose(means[2], exact, atol=0.05)


def test_bound_with_noise_converges_to_the_probability():
    noise = Beta(np.array([0.8, 0.7]), np.array([0.7, 0.9]))
    dist = Dequantized(Transformed(StandardNormal((2,)), ToSupport((0.0, 4.0), (2,))), noise=noise, points=512)
    x = np.array([[0.0, 3.0], [1.0, 2.0]])
    with np.errstate(divide="ignore"):
        ends = stats.norm.cdf(np.log(np.arange(5) / (4 - np.arange(5))))
    exact = np.log(np.diff(ends))[x.astype(int)].sum(1)
    found = dist.lower_bound(jr.key(1), np.repeat(x[:, None], 200, 1), num_samples=300)
    np.testing.assert_allclose(np.asarray(found).mean(1), exact, atol=0.02)
    np.testing.assert_allclose(dist.log_prob(x), exact, atol=0.15)


def test_noise_that_sees_the_numbers_changes_with_them():
    net = eqx.nn.Linear(2, 2, key=jr.key(3))
    net = eqx.tree_at(lambda net: net.weight, net, 0.2 * net.weight)
    shifts = [Affine(np.zeros(2), np.full(2, 1.7)), AdditiveCondition(net, (2,), (2,)), Sigmoid((2,))]
    dist = normal(noise=Transformed(StandardNormal((2,)), Chain(shifts)))
    x = NUMBERS[normal_cells(NUMBERS) > -6]
    found = np.asarray(dist.lower_bound(jr.key(0), np.repeat(x[:, None], 100, 1), num_samples=200)).mean(1)
    np.testing.assert_allclose(found, normal_cells(x), atol=0.1)
    gradient = eqx.filter_grad(lambda dist: dist.lower_bound(jr.key(0), x).mean())(dist)
    assert np.abs(np.asarray(gradient.noise.bijection[1].module.weight)).max() > 0


def test_draws_are_whole_numbers_with_their_probabilities():
    draws = np.asarray(normal().sample(jr.key(2), 20_000))
    assert (draws == np.floor(draws)).all()
    values, counts = np.unique(draws[:, 0], return_counts=True)
    exact = stats.norm.cdf(values + 1, LOC[0], SCALE[0]) - stats.norm.cdf(values, LOC[0], SCALE[0])
    assert np.abs(counts / 20_000 - exact).max() < 0.012


def test_columns_of_real_numbers_keep_their_density():
    dist = normal(columns=[True, False], points=64)
    x = np.array([[1.0, 0.7], [-2.0, -3.3]])
    exact = np.log(stats.norm.cdf(x[:, 0] + 1, LOC[0], SCALE[0]) - stats.norm.cdf(x[:, 0], LOC[0], SCALE[0]))
    exact += stats.norm.logpdf(x[:, 1], LOC[1], SCALE[1])
    np.testing.assert_allclose(dist.log_prob(x), exact, atol=2e-3)
    draws = np.asarray(dist.sample(jr.key(0), 100))
    assert (draws[:, 0] == np.floor(draws[:, 0])).all()
    assert (draws[:, 1] != np.floor(draws[:, 1])).any()


def test_numbers_that_are_not_whole_or_out_of_range_have_no_probability():
    dist = Dequantized(Transformed(StandardNormal((2,)), ToSupport((0.0, 4.0), (2,))))
    x = np.array([[0.0, 3.0], [0.5, 3.0], [0.0, 4.0], [-1.0, 0.0], [math.nan, 0.0]])
    for found in (dist.log_prob(x), dist.lower_bound(jr.key(0), x)):
        assert np.isfinite(found[0])
        assert (np.asarray(found[1:4]) == -math.inf).all()
        assert np.isnan(found[4])


def test_no_place_of_a_cell_rounds_out_of_it():
    """The sum 255 + u is rounded to 256 for one u in about 130,000, which has no density."""
    dist = Dequantized(Transformed(StandardNormal((1000,)), ToSupport((0.0, 256.0), (1000,))))
    x = np.where(np.arange(1000) % 2, 255.0, 0.0)
    assert np.isfinite(dist.lower_bound(jr.key(0), np.broadcast_to(x, (2000, 1000)))).all()


def test_gradients_of_rows_in_range_are_not_spoilt_by_others():
    x = np.array([[0.0, 1.0], [0.5, 1.0], [math.nan, 0.0]])

    def total(dist, rows):
        found = dist.lower_bound(jr.key(0), rows)
        return jnp.where(jnp.isfinite(found), found, 0).sum()

    alone = eqx.filter_grad(total)(normal(), jnp.asarray(x[:1]))
    together = eqx.filter_grad(total)(normal(), jnp.asarray(x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together))
    assert jax.tree.structure(alone) == jax.tree.structure(together)


# Fits.


def counts(n=1500):
    first = RNG.poisson(3.0, n)
    return np.column_stack([first, RNG.binomial(6, 0.2 + 0.05 * np.minimum(first, 8)), RNG.normal(size=n) + first])


def spline_flow(dim):
    spline = RationalQuadraticSpline(knots=6, interval=4)
    return coupling_flow(jr.key(0), base_dist=StandardNormal((dim,)), transformer=spline, flow_layers=4, nn_width=24)


def test_fit_with_integer_columns_stays_in_the_units_of_the_data():
    data, test = counts(), counts(1000)
    support = [Integers(0), Integers(0, 6), "real"]
    flow, _ = fit_to_data(
        jr.key(1), spline_flow(3), data, support=support, learning_rate=3e-3, max_epochs=40, show_progress=False
    )
    assert isinstance(flow, Dequantized)
    exact = stats.poisson.logpmf(test[:, 0], 3.0) + stats.norm.logpdf(test[:, 2], test[:, 0], 1.0)
    exact += stats.binom.logpmf(test[:, 1], 6, 0.2 + 0.05 * np.minimum(test[:, 0], 8))
    reached = float(np.mean(flow.log_prob(test)))
    assert exact.mean() - 0.2 < reached < exact.mean() + 0.05
    draws = np.asarray(flow.sample(jr.key(2), 1000))
    assert (draws[:, :2] == np.floor(draws[:, :2])).all()
    assert draws[:, 0].min() >= 0
    assert draws[:, 1].min() >= 0
    assert draws[:, 1].max() <= 6
    # A second fit keeps the units and does not nest.
    again, _ = fit_to_data(jr.key(3), flow, data, support=support, max_epochs=1, show_progress=False)
    assert jax.tree.structure(again) == jax.tree.structure(flow)
    one, other = (jax.tree.leaves(fitted.dist.bijection.location) for fitted in (flow, again))  # pyright: ignore
    np.testing.assert_array_equal(one, other)


def test_bound_of_a_fit_has_other_places_at_each_step():
    loss, dist = MaximumLikelihoodLoss(), normal()
    params, static = eqx.partition(dist, eqx.is_inexact_array)
    x = jnp.asarray(NUMBERS[:8])
    first, second = (loss(params, static, x, key=jr.key(i)) for i in range(2))
    assert first != second
    np.testing.assert_allclose(loss(params, static, x), -np.mean(dist.log_prob(x)), rtol=1e-6)


def test_integer_images_are_fitted_as_they_are():
    images = RNG.integers(0, 16, (200, 2, 3)).astype(np.uint8)
    pixels = Dequantized(Transformed(Normal(jnp.zeros((2, 3))), ToSupport((0.0, 16.0), (2, 3))))
    fitted, losses = fit_to_data(
        jr.key(0), pixels, images, learning_rate=0.1, max_epochs=30, show_progress=False, max_patience=30
    )
    bits = float(bits_per_dim(fitted.lower_bound(jr.key(1), images), (2, 3)).mean())
    # Uniform numbers from 0 to 15 have four bits each.
    assert 3.9 < bits < 4.2
    assert losses["val"][-1] < losses["val"][0]


def test_streams_and_ensembles_take_integer_columns():
    data = counts(300)
    support = [Integers(0), Integers(0, 6), "real"]
    streamed, _ = fit_to_data(
        jr.key(0), spline_flow(3), lambda: iter([data[:150], data[150:]]), support=support, max_epochs=2,
        show_progress=False,
    )  # fmt: skip
    assert isinstance(streamed, Dequantized)
    mixture, _ = fit_ensemble_to_data(
        jr.key(0), flow_for, data, members=2, support=support, max_epochs=2, show_progress=False
    )
    assert isinstance(mixture, VmapMixture)
    assert np.isfinite(mixture.log_prob(data)).all()


def flow_for(key):
    return coupling_flow(key, base_dist=StandardNormal((3,)), flow_layers=2, nn_width=8)


def test_pixels_that_are_always_the_same_are_no_mistake():
    """Of such columns of real numbers a fit warns, and warnings are errors here."""
    images = np.zeros((40, 1, 2, 2))
    images[:, 0, 1, 1] = RNG.integers(0, 4, 40)
    pixels = Dequantized(Transformed(Normal(jnp.zeros((1, 2, 2))), ToSupport((0.0, 4.0), (1, 2, 2))))
    _, losses = fit_to_data(jr.key(0), pixels, images, max_epochs=1, show_progress=False)
    assert np.isfinite(losses["train"]).all()


BAD_ROWS = [
    ((0, 0, 0.5), "x expected whole numbers, got .* at row 3, column 0"),
    ((0, 0, -7.0), r"expected whole numbers from 0 in column 0, got -[1-7] at row 3"),
    ((0, 1, 9.0), r"expected whole numbers from 0 to 6 in column 1, got [0-9]+ at row 3"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS)
def test_rows_that_are_not_of_the_support_are_named(change, message):
    data = counts(50)
    data[3, change[1]] = np.floor(data[3, change[1]]) + change[2]
    support = [Integers(0), Integers(0, 6), "real"]
    with pytest.raises(ValueError, match=message) as caught:
        fit_to_data(jr.key(0), spline_flow(3), data, support=support, max_epochs=1, show_progress=False)
    assert "\n" not in str(caught.value)


def test_pixels_that_were_scaled_already_are_refused():
    pixels = Dequantized(Transformed(Normal(np.zeros(2)), ToSupport((0.0, 256.0), (2,))))
    with pytest.raises(ValueError, match=r"whole numbers, got 0\.2 at row 0, column 0.* divided already"):
        fit_to_data(jr.key(0), pixels, np.full((5, 2), 0.2), max_epochs=1, show_progress=False)


# What is refused.


def test_bad_arguments_are_one_clear_line(unchecked_annotations):
    cases = [
        (lambda: Dequantized(Affine()), TypeError, "expected a distribution as dist, got Affine"),  # pyright: ignore
        (lambda: normal(columns=[True]), ValueError, r"a boolean for each column of events of \(2,\)"),
        (lambda: normal(points=0), ValueError, "points must be an integer of at least 1, got 0"),
        (lambda: normal(noise=Normal(np.zeros(2))), ValueError, r"distribution over \(0, 1\), got one of real"),
        (lambda: normal(noise=narrow(1.0), columns=[True, False]), ValueError, "whole numbers in all columns"),
        (lambda: normal(noise=StandardNormal((3,))), ValueError, r"noise expected shape \(2,\)"),
        (lambda: Transformed(normal(), Affine(np.zeros(2))), ValueError, "integers support"),
        (lambda: ToSupport("integer", (2,)), ValueError, "put a Dequantized around"),
        (lambda: Integers(0.5, 3), ValueError, r"whole numbers with lower <= upper, got \(0.5, 3\)"),
        (lambda: Integers(3, 0), ValueError, r"lower <= upper, got \(3, 0\)"),
        (lambda: bits_per_dim(1.0, ()[:0] + (0,)), ValueError, "at least one coordinate"),
        (lambda: bits_per_dim(1.0, (2,), cell=0.0), ValueError, "cell must be positive"),
        (lambda: normal().lower_bound(0, NUMBERS), TypeError, "key"),  # pyright: ignore
    ]
    for make, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_support_of_other_columns_than_the_distribution_is_refused():
    flow = Dequantized(coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=1, nn_width=4))
    with pytest.raises(ValueError, match="other columns of whole numbers"):
        fit_to_data(jr.key(0), flow, NUMBERS, support=["integer", "real"], max_epochs=1, show_progress=False)


# Bits, files.


def test_bits_per_dim_of_uniform_numbers_is_their_logarithm():
    log_prob = np.full(3, -12 * math.log(256))
    np.testing.assert_allclose(bits_per_dim(log_prob, (3, 2, 2)), 8.0, rtol=1e-6)
    # The density of pixels over 256 is 256 times as high in each coordinate.
    np.testing.assert_allclose(bits_per_dim(np.zeros(3), (3, 2, 2), cell=1 / 256), 8.0, rtol=1e-6)


def test_dequantized_flows_are_saved_and_loaded(tmp_path):
    dist = normal(noise=narrow(0.5), points=4)
    flowlib.save(tmp_path / "numbers.flowlib", dist)
    loaded = flowlib.load(tmp_path / "numbers.flowlib")
    assert jax.tree.structure(loaded) == jax.tree.structure(dist)
    np.testing.assert_array_equal(loaded.log_prob(NUMBERS[:5]), dist.log_prob(NUMBERS[:5]))
    assert (dist.log_prob(NUMBERS[:1]).dtype == jnp.float64) == X64
