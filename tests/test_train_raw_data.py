"""Fits of data as they come: units, supports, faults, from the first call to the saved flow."""

import math
import re
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import flowlib
from flowlib.bijections import InDataUnits, RationalQuadraticSpline
from flowlib.distributions import AbstractDistribution, StandardNormal
from flowlib.errors import DataWarning, NonFiniteDataError, NonFiniteWarning
from flowlib.flows import coupling_flow
from flowlib.support import Real
from flowlib.train import AbstractRowLoss, fit_to_data
from train_tools import gaussian

QUIET: dict[str, Any] = {"show_progress": False}


def flow_of(dim, key, **options):
    return coupling_flow(key, base_dist=StandardNormal((dim,)), flow_layers=2, nn_width=10, **options)


def test_raw_units_are_fitted_with_the_defaults(key):
    rng = np.random.default_rng(0)
    x, test = rng.normal(1e4, 50, (3000, 3)), rng.normal(1e4, 50, (20_000, 3))
    flow, losses = fit_to_data(key, flow_of(3, key), x, **QUIET)
    truth = 3 * (math.log(50) + 0.5 * math.log(2 * math.pi * math.e))
    assert truth == pytest.approx(15.99, abs=0.005)
    assert -flow.log_prob(test).mean() == pytest.approx(truth, abs=0.05)
    assert losses.report.stopped in ("patience", "max_epochs")


@pytest.mark.parametrize("where", ["rows", "stream"])
def test_supports_hold_after_a_fit_and_rows_outside_are_named(key, where, tmp_path):
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.beta(0.5, 0.5, 900), rng.lognormal(3, 2, 900), rng.normal(size=900)])
    spline = RationalQuadraticSpline(knots=5, interval=5)
    options: dict[str, Any] = {
        "support": [(0, 1), (0, math.inf), "real"],
        "max_epochs": 3,
        "learning_rate": 1e-2,
        **QUIET,
    }
    data = x if where == "rows" else [(x[:300],), (x[300:600],), (x[600:],)]
    flow, _ = fit_to_data(key, flow_of(3, key, transformer=spline), data, **options)
    draws = np.asarray(flow.sample(key, 5000))
    assert ((draws[:, 0] > 0) & (draws[:, 0] < 1) & (draws[:, 1] > 0)).all()
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isneginf(flow.log_prob(jnp.array([[1.5, 1.0, 0.0], [0.5, -1.0, 0.0]]))).all()
    flowlib.save(tmp_path / "flow", flow)
    np.testing.assert_array_equal(flowlib.load(tmp_path / "flow").log_prob(x), flow.log_prob(x))

    x[7, 1] = -2.0
    data = x if where == "rows" else [(x[:300],), (x[300:],)]
    with pytest.raises(ValueError, match=r"column 1.*row.* 7\b"):
        fit_to_data(key, flow_of(3, key), data, **options)


def test_a_second_fit_keeps_the_units_and_does_not_nest(key):
    x = np.random.default_rng(2).normal(5, 3, (200, 2))
    once, _ = fit_to_data(key, flow_of(2, key), x, max_epochs=1, **QUIET)
    with pytest.warns(DataWarning, match='columns 0, 1 .*Pass standardise="again"'):
        twice, _ = fit_to_data(key, once, 10 * x, max_epochs=1, **QUIET)
    assert jax.tree.structure(once) == jax.tree.structure(twice)
    units = [flow.bijection for flow in (once, twice)]
    assert all(isinstance(unit, InDataUnits) for unit in units)
    np.testing.assert_array_equal(*[unit.location.tree for unit in units if isinstance(unit, InDataUnits)])


def test_a_nan_is_named_and_units_of_single_rows_are_warned_of(key):
    x = np.random.default_rng(3).normal(size=(50, 2))
    x[31, 1] = np.nan
    with pytest.raises(NonFiniteDataError, match="nan at row 31, column 1"):
        fit_to_data(key, flow_of(2, key), x, **QUIET)
    with pytest.warns(DataWarning, match="single row"):
        fit_to_data(key, flow_of(2, key), x[:1], max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match=r"expected x of shape \(rows, 2\), got \(3, 100000\)"):
        fit_to_data(key, flow_of(2, key), np.zeros((3, 100_000)), **QUIET)


class Fragile(AbstractDistribution):
    """A normal density whose gradient, or value, breaks down at numbers above 100."""

    loc: jax.Array
    how: str = eqx.field(static=True)
    shape: ClassVar[tuple[int, ...]] = ()
    cond_shape: ClassVar[None] = None

    @property
    def support(self):
        return Real()

    def _log_prob(self, x, condition=None):
        log_prob = jax.scipy.stats.norm.logpdf(x - self.loc)
        if self.how == "value":
            return jnp.where(x > 100, jnp.nan, log_prob)
        # Zero, with an infinite slope, where the row is large.
        return log_prob + jnp.where(x > 100, jnp.sqrt(jnp.abs(self.loc - jax.lax.stop_gradient(self.loc))), 0.0)

    def _sample(self, key, condition=None):
        return jr.normal(key) + self.loc


@pytest.mark.parametrize(
    ("how", "message"),
    [("value", r"loss of row 13 \(counted from zero\) is nan"), ("gradient", r"gradient of \.loc is not finite")],
)
def test_the_row_or_the_parameter_at_fault_is_named(key, how, message):
    x = np.random.default_rng(4).normal(size=40)
    x[13] = 101.0
    with pytest.warns(NonFiniteWarning, match=message):
        fit_to_data(key, Fragile(jnp.zeros(()), how), x, val_prop=0, max_epochs=1, **QUIET)


class Untellable(AbstractRowLoss):
    """A loss that fails in the batch, and in no row by itself."""

    @property
    def min_rows(self):
        return 1

    def per_row(self, params, static, *arrays, key=None):
        return -eqx.combine(params, static).log_prob(*arrays)

    def __call__(self, params, static, *arrays, key=None):
        return self.per_row(params, static, *arrays).mean() * jnp.nan

    def check(self, tree, *arrays):
        pass


def test_nobody_is_blamed_without_evidence(key):
    x = np.random.default_rng(5).normal(size=(64, 2))
    with pytest.warns(NonFiniteWarning) as caught:
        fit_to_data(key, gaussian(), x, loss_fn=Untellable(), batch_size=32, val_prop=0, **QUIET)
    (warning,) = caught
    assert re.search(r"are returned as they were given\.$", str(warning.message))
