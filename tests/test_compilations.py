"""What compiles nothing: repeated calls and fits, also of equal distributions built anew."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows
from flowlib.bijections import RationalQuadraticSpline
from flowlib.distributions import StandardNormal
from flowlib.train import fit_to_data


def build(key):
    spline = RationalQuadraticSpline(knots=3, interval=4.0)
    return flows.coupling_flow(key, base_dist=StandardNormal((2,)), transformer=spline, flow_layers=2, nn_width=5)


def fit(flow, data, **settings):
    return fit_to_data(jr.key(0), flow, data, batch_size=20, show_progress=False, **settings)


@pytest.mark.parametrize(
    "second",
    [
        {"max_epochs": 2},
        {"max_epochs": 2, "learning_rate": 0.02},
        {"max_epochs": 50, "max_patience": 50},
    ],
    ids=["default optimiser", "another learning rate", "50 epochs after 2"],
)
def test_a_second_fit_of_an_equal_flow_compiles_nothing(second, compiles):
    data = jr.normal(jr.key(1), (100, 2))
    jax.clear_caches()
    before = compiles.compiled
    fit(build(jr.key(2)), data, max_epochs=2)
    assert compiles.compiled > before, "the first fit compiled nothing, so that the second shows nothing"
    flow = build(jr.key(3))
    with compiles.expect_none():
        _, losses = fit(flow, data, **second)
    assert len(losses["train"]) == second["max_epochs"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("log_prob", (jnp.ones((7, 2)),)),
        ("sample", (jr.key(0), (7,))),
        ("sample_and_log_prob", (jr.key(0), (7,))),
        ("to_base", (jnp.ones((7, 2)),)),
        ("from_base", (jnp.ones((7, 2)),)),
        ("layer_values", (jnp.ones((7, 2)),)),
        ("sample_layer_values", (jr.key(0), (7,))),
        ("bijection.transform", (jnp.ones(2),)),
        ("bijection.inverse", (jnp.ones(2),)),
        ("bijection.transform_and_log_det", (jnp.ones(2),)),
        ("bijection.inverse_and_log_det", (jnp.ones(2),)),
    ],
)
def test_a_second_call_compiles_nothing_also_of_an_equal_flow(name, arguments, compiles):
    def call(flow):
        *parts, method = name.split(".")
        for part in parts:
            flow = getattr(flow, part)
        return jax.block_until_ready(getattr(flow, method)(*arguments))

    flow, twin = build(jr.key(0)), build(jr.key(0))
    jax.clear_caches()
    before = compiles.compiled
    first = call(flow)
    assert compiles.compiled > before, "the first call compiled nothing, so that the second shows nothing"
    with compiles.expect_none():
        again = [call(flow), call(twin)]
    for other in again:
        jax.tree.map(np.testing.assert_array_equal, first, other)
