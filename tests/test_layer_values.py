"""The events between the layers of a flow, against the layers applied one by one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows
from flowlib.bijections import (
    Affine,
    Chain,
    Coupling,
    EmbedCondition,
    InDataUnits,
    Invert,
    RationalQuadraticSpline,
    Reshape,
    Scan,
    ToSupport,
)
from flowlib.distributions import Normal, StandardNormal, Transformed, Uniform
from flowlib.parameters import freeze

TOLERANCE = 1e-9 if jax.config.read("jax_enable_x64") else 2e-4
NARROW: dict[str, Any] = {"flow_layers": 3, "nn_width": 5}


def noisy(flow, scale=0.3):
    """The same with every array moved, so that no layer is the identity."""

    def add(leaf):
        return leaf + scale * jr.normal(jr.key(leaf.size), leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(add, flow)


def coupling(dim=2, base=None, **options):
    base_dist = StandardNormal((dim,)) if base is None else base
    return noisy(flows.coupling_flow(jr.key(0), base_dist=base_dist, **NARROW, **options))


def in_units(**options):
    """As after a fit of raw data: scaled, on the ranges of the columns."""
    flow = coupling(**options)
    units = InDataUnits(
        flow.units.bijection,
        jnp.array([3.0, -1.0]),
        jnp.array([2.0, 0.5]),
        to_data=ToSupport(["positive", (0.0, 2.0)], (2,)),
    )
    return Transformed(flow.base_dist, units)


def with_conditions_in_units():
    flow = coupling(cond_dim=2)
    units = InDataUnits(flow.units.bijection, cond_location=jnp.array([1.0, 2.0]), cond_scale=2.0)
    return Transformed(flow.base_dist, units)


def labelled():
    embedding = eqx.nn.Embedding(4, 3, key=jr.key(1))
    return coupling(cond_dim=3, embedding=embedding, raw_cond_shape=())


def reshaping():
    """Layers of unlike shapes, one of them conditional."""
    inner = EmbedCondition(
        Coupling(jr.key(3), transformer=Affine(), untransformed_dim=3, dim=6, cond_dim=1), jnp.sin, (1,)
    )
    parts = [Reshape(shape=(2, 3), out_shape=(6,)), noisy(inner), Reshape(shape=(6,), out_shape=(3, 2))]
    return Transformed(Normal(jnp.ones((2, 3)), 2.0), Invert(Invert(Chain(parts))))


SPLINE = RationalQuadraticSpline(knots=4, interval=3.0)
FLOWS = {
    "splines": lambda: coupling(transformer=SPLINE),
    "odd permutations": lambda: coupling(3),
    "one dimension": lambda: coupling(1),
    "not inverted": lambda: coupling(invert=False),
    "rebuilding": lambda: coupling(gradient="rebuild", invert=False),
    "autoregressive": lambda: noisy(
        flows.masked_autoregressive_flow(jr.key(0), base_dist=StandardNormal((3,)), **NARROW)
    ),
    "numerical inverse": lambda: flows.planar_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=2),
    "conditional": lambda: coupling(cond_dim=2),
    "labels": labelled,
    "units": in_units,
    "units of the condition": with_conditions_in_units,
    "frozen": lambda: freeze(in_units(), lambda flow: flow.bijection),
    "other shapes": reshaping,
    "flow as base": lambda: coupling(base=coupling(transformer=SPLINE)),
    "conditional base": lambda: coupling(base=coupling(cond_dim=2)),
    "one plain layer": lambda: Transformed(Uniform(jnp.zeros(2), jnp.ones(2)), Affine(jnp.ones(2), 2.0)),
}


def conditions(flow, *batch) -> Any:
    if flow.cond_shape is None:
        return None
    if flow.cond_shape == ():
        return jnp.arange(np.prod(batch, dtype=int), dtype=jnp.int32).reshape(batch) % 4
    return jr.normal(jr.key(8), (*batch, *flow.cond_shape))


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=TOLERANCE, atol=TOLERANCE)


@eqx.filter_jit
def taken(layer, x, condition):
    """One layer alone, and what it does to the log density."""
    rows, conditions = x.reshape(-1, *layer.shape), None
    if layer.cond_shape is not None:
        conditions = jnp.broadcast_to(condition, (*x.shape[: x.ndim - len(layer.shape)], *layer.cond_shape))
        conditions = conditions.reshape(-1, *layer.cond_shape)
    y, log_det = jax.vmap(layer.transform_and_log_det)(rows, conditions)
    return y, -log_det


def check_stages(flow, found, condition):
    layers, base = flow.layers, flow.base_dist
    assert len(found.values) == len(found.log_probs) == len(found.names) == len(layers) + 1
    close(found.log_probs[0], base.log_prob(found.values[0], None if base.cond_shape is None else condition))
    changes = np.diff(np.asarray(found.log_probs), axis=0)
    for layer, before, after, change in zip(layers, found.values[:-1], found.values[1:], changes, strict=True):
        y, log_density = taken(layer, before, condition)
        close(y.reshape(after.shape), after)
        close(log_density.reshape(change.shape), change)


@pytest.mark.parametrize("name", FLOWS)
def test_draws_at_each_stage_are_those_of_the_layers_so_far(name):
    flow = FLOWS[name]()
    condition = conditions(flow, 4)
    found = flow.sample_layer_values(jr.key(2), 3, condition)
    draws, log_prob = flow.sample_and_log_prob(jr.key(2), 3, condition)
    close(found.values[-1], draws)
    close(found.values[-1], flow.sample(jr.key(2), 3, condition))
    close(found.log_probs[-1], log_prob)
    check_stages(flow, found, condition)


@pytest.mark.parametrize("name", FLOWS)
def test_data_at_each_stage_are_those_of_the_layers_so_far(name):
    flow = FLOWS[name]()
    condition = conditions(flow, 4)
    x = flow.sample(jr.key(2), 3, condition)
    found = flow.layer_values(x, condition)
    np.testing.assert_array_equal(found.values[-1], x)
    close(found.values[0], flow.to_base(x, condition))
    close(found.log_probs[-1], flow.log_prob(x, condition))
    check_stages(flow, found, condition)


def test_batches_broadcast_as_in_log_prob():
    flow = coupling(cond_dim=2)
    x, condition = jr.normal(jr.key(1), (5, 1, 2)), conditions(flow, 4)
    found = flow.layer_values(x, condition)
    assert [value.shape for value in found.values] == [(5, 4, 2)] * 6
    assert found.log_probs.shape == (6, 5, 4)
    close(found.log_probs[-1], flow.log_prob(x, condition))
    one = flow.layer_values(x[0, 0], condition[0])
    assert (one.values[0].shape, one.log_probs.shape) == ((2,), (6,))
    assert flow.sample_layer_values(jr.key(0), (), condition[0]).values[0].shape == (2,)


@pytest.mark.usefixtures("unchecked_annotations")
def test_wrong_arguments_are_those_of_log_prob_and_sample():
    flow = coupling()
    with pytest.raises(ValueError, match=r"expected x of shape \(..., 2\), got \(3,\)"):
        flow.layer_values(jnp.ones(3))
    with pytest.raises(ValueError, match="unconditional, but got a condition"):
        flow.layer_values(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="sample_shape must be"):
        flow.sample_layer_values(jr.key(0), -1)
    with pytest.raises(TypeError, match="key must be a JAX PRNG key"):
        flow.sample_layer_values(0)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("splines", ["Coupling"] * 3 + ["Flip", "InDataUnits"]),
        ("autoregressive", ["Permute", *["MaskedAutoregressive"] * 3, "InDataUnits"]),
        ("units", ["Flip", *["Coupling"] * 3, "InDataUnits"]),
        ("labels", ["Flip", *["Coupling"] * 3, "InDataUnits"]),
        ("other shapes", ["Reshape", "Coupling", "Reshape"]),
    ],
)
def test_names_are_those_of_the_layers_without_what_wraps_them(name, layers):
    flow = FLOWS[name]()
    if name == "splines":
        flow = coupling(transformer=SPLINE, invert=False)
    assert flow.sample_layer_values(jr.key(2), condition=conditions(flow)).names == ("base", *layers)


def test_an_event_is_nan_from_the_layer_on_that_does_not_reach_it():
    flow = in_units()
    x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 3.0], [jnp.inf, 1.0], [jnp.nan, 1.0]])
    found = flow.layer_values(x)
    np.testing.assert_array_equal(found.values[-1], x)
    for value, log_prob in zip(found.values[:-1], found.log_probs[:-1], strict=True):
        assert np.isfinite(value[0]).all()
        assert np.isnan(value).any(-1).tolist() == np.isnan(log_prob).tolist() == [False, True, True, True, True]
    np.testing.assert_array_equal(found.log_probs[-1], flow.log_prob(x))
    assert found.log_probs[-1, 1] == -np.inf


def test_outside_the_support_of_the_base_events_have_no_density_at_any_stage():
    flow = Transformed(Uniform(jnp.zeros(2), jnp.ones(2)), Chain([Affine(jnp.ones(2), 2.0), Affine(jnp.zeros(2), 3.0)]))
    found = flow.layer_values(jnp.array([[6.0, 6.0], [0.0, 6.0]]))
    np.testing.assert_allclose(found.values[0], [[0.5, 0.5], [-0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(found.log_probs[:, 0], -np.log([1, 4, 36]), rtol=1e-6)
    np.testing.assert_array_equal(found.log_probs[:, 1], -np.inf)


def test_rows_that_are_not_reached_spoil_no_gradient():
    flow = in_units()

    def total(flow, x):
        found = flow.layer_values(x)
        return sum(value[0].sum() for value in found.values) + found.log_probs[:, 0].sum()

    good = jnp.array([1.0, 1.5])
    alone = eqx.filter_grad(total)(flow, good[None])
    beside = eqx.filter_grad(total)(flow, jnp.stack([good, jnp.array([-1.0, 1.0]), jnp.array([jnp.inf, 1.0])]))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(beside), strict=True):
        assert np.isfinite(one).all()
        close(one, other)


def test_events_come_in_the_precision_of_the_flow_and_densities_in_at_least_single():
    flow = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if eqx.is_inexact_array(leaf) else leaf, coupling())
    x = jnp.ones((3, 2), jnp.float16)
    for found in (flow.layer_values(x), flow.sample_layer_values(jr.key(0), 3)):
        assert {value.dtype for value in found.values} == {np.dtype(np.float16)}
        assert found.log_probs.dtype == np.float32


def test_layers_of_a_scan_are_compiled_once():
    def products(layers):
        flow = flows.coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=layers, nn_width=4)
        programs = [
            jax.make_jaxpr(lambda x: flow.layer_values(x).values)(jnp.ones((3, 2))),
            jax.make_jaxpr(lambda key: flow.sample_layer_values(key).values)(jr.key(0)),
        ]
        return [str(program).count("dot_general") for program in programs]

    assert products(2) == products(12)
    assert min(products(2)) > 0


def test_a_scan_keeps_the_layers_of_its_layers_together():
    layer = noisy(Chain([Affine(jnp.zeros(2), 1.0), Affine(jnp.zeros(2), 1.0)]))
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]) if eqx.is_array(leaf) else leaf, layer)
    found = Transformed(StandardNormal((2,)), Scan(stack)).sample_layer_values(jr.key(0))
    assert found.names == ("base", "Affine, Affine", "Affine, Affine")
