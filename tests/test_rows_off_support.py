"""Rows to which a distribution gives no density are named before a fit of it begins."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from flowlib.distributions import (
    Beta,
    Dirichlet,
    Exponential,
    Gamma,
    Joint,
    LogNormal,
    Normal,
    Quantized,
    StandardNormal,
    Truncated,
    VonMises,
)
from flowlib.flows import sphere_flow
from flowlib.train import fit_to_data

RNG = np.random.default_rng(0)
INSIDE = RNG.uniform(0.1, 0.9, (40, 2))
TWO = jnp.zeros(2)
FAMILIES = [
    (Gamma(2.0, 1.0 + TWO), -0.5, "positive"),
    (LogNormal(TWO, 1.0), 0.0, "positive"),
    (Exponential(1.0 + TWO), -1.0, "positive"),
    (Beta(2.0 + TWO, 2.0), 1.5, "interval"),
    (Truncated(Normal(TWO, 1.0), 0.0, 1.0), -1.0, ""),
    (Joint([Normal(jnp.zeros(1), 1.0), Gamma(2.0, jnp.ones(1))]), -0.5, "joined"),
]


def with_value(value):
    x = INSIDE.copy()
    x[[7, 9], 1] = value
    return x


@pytest.mark.parametrize(("dist", "value", "kind"), FAMILIES, ids=[type(case[0]).__name__ for case in FAMILIES])
def test_a_row_off_the_support_is_named_by_row_and_column(key, dist, value, kind):
    x = with_value(value)
    assert np.isneginf(dist.log_prob(x)).nonzero()[0].tolist() == [7, 9]
    message = rf"x expected rows in the support.*{kind}.*, got {value:.7g} at row 7, column 1 .*2 of 40 rows.*rows 7, 9"
    with pytest.raises(ValueError, match=message):
        fit_to_data(key, dist, x, show_progress=False)
    fit_to_data(key, dist, INSIDE, max_epochs=0, show_progress=False)


def test_tables_batches_and_validation_rows_are_looked_at_too(key):
    dist, x = Gamma(2.0, 1.0 + TWO), with_value(-0.5)
    with pytest.raises(ValueError, match=r'row 7, column 1 \("price"\)'):
        fit_to_data(key, dist, pd.DataFrame({"age": x[:, 0], "price": x[:, 1]}), show_progress=False)
    with pytest.raises(ValueError, match=r"got -0.5 at row 7, column 1"):
        fit_to_data(key, dist, [(x,)], show_progress=False)
    with pytest.raises(ValueError, match=r"val_data x expected rows .* got -0.5 at row 7, column 1"):
        fit_to_data(key, dist, INSIDE, val_data=x, show_progress=False)


@pytest.mark.parametrize("dist", [Gamma(2.0, 1.0 + TWO), Gamma(0.5, 1.0 + TWO), Beta(2.0 + TWO, 2)])
def test_an_end_without_a_finite_density_is_named(key, dist):
    assert np.isinf(dist.log_prob(with_value(0.0))).sum() == 2
    with pytest.raises(ValueError, match=r"got 0 at row 7, column 1 .*rows 7, 9. An end has no finite density"):
        fit_to_data(key, dist, with_value(0.0), show_progress=False)
    fit_to_data(key, Exponential(1.0 + TWO), with_value(0.0), max_epochs=0, show_progress=False)


@pytest.mark.parametrize("make", [lambda key: sphere_flow(key, dim=3, flow_layers=1, nn_width=4), Dirichlet])
def test_a_vector_off_a_set_is_named_by_row(key, make):
    dist = make(jnp.ones(3)) if make is Dirichlet else make(key)
    good = RNG.dirichlet(np.ones(3), 20) if make is Dirichlet else scipy.stats.uniform_direction(3).rvs(20, RNG)
    bad = good.copy()
    bad[4] *= 1.5
    with pytest.raises(ValueError, match=r"x expected rows in the support .*got \[.*\] at row 4 \(counted from zero\)"):
        fit_to_data(key, dist, bad, show_progress=False)
    fit_to_data(key, dist, good, max_epochs=0, show_progress=False)


def test_whole_numbers_are_asked_for(key):
    dist = Quantized(Normal(TWO, 1.0))
    with pytest.raises(ValueError, match=r"got 0.5 at row 7, column 1"):
        fit_to_data(key, dist, np.where(with_value(0.5) == 0.5, 0.5, 1.0), show_progress=False)


def test_flows_on_the_real_line_compile_nothing_for_it(key, compiles):
    from flowlib.train._in_support import check_in_support

    x = INSIDE.astype(jnp.result_type(float))
    real, positive = StandardNormal((2,)), Gamma(2.0, 1.0 + TWO)
    with compiles.expect_none():
        check_in_support(real, x)
        check_in_support(positive, x)


def test_an_angle_in_another_turn_is_inside(key):
    x = np.random.default_rng(5).vonmises(3.0, 4.0, 60) % (2 * np.pi)
    fitted, _ = fit_to_data(key, VonMises(jnp.zeros(()), jnp.ones(())), x, max_epochs=1, show_progress=False)
    np.testing.assert_allclose(fitted.log_prob(x), fitted.log_prob(x - 2 * np.pi), rtol=1e-4)
