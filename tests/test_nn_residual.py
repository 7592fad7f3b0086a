"""The residual network of vectors, and how couplings take networks."""

import copy
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.tree_util import Partial

import flowlib
from contract_tools import EPS, assert_same_tree, perturb
from flowlib import flows
from flowlib.bijections import Affine, Coupling
from flowlib.bijections import forward_batch as batch_of
from flowlib.distributions import StandardNormal
from flowlib.nn import MLP, ResidualMLP

RNG = np.random.default_rng(0)


def noisy(tree: Any, scale: float = 0.5) -> Any:
    return perturb(tree, np.random.default_rng(1), scale)


def in_numpy(net: ResidualMLP, x: np.ndarray) -> np.ndarray:
    """The formula of the docstring, and weight normalisation as Salimans and Kingma write it."""

    def dense(layer, x):
        weight = np.asarray(layer.weight, np.float64)
        if layer.scale is not None:
            weight = np.asarray(layer.scale)[:, None] * weight / np.linalg.norm(weight, axis=1, keepdims=True)
        return weight @ x + np.asarray(layer.bias)

    h = dense(net.first, 10 * np.arcsinh(x / 10))
    for inner, outer in net.blocks:
        h = h + dense(outer, np.tanh(dense(inner, np.tanh(h))))
    return dense(net.last, np.tanh(h))


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("depth", [0, 2])
def test_it_is_the_formula(weight_norm, depth, key):
    net = noisy(ResidualMLP(key, 3, 4, width=5, depth=depth, activation=jnp.tanh, weight_norm=weight_norm))
    for x in RNG.standard_normal((3, 3)) * [[1], [30], [0.1]]:
        np.testing.assert_allclose(net(jnp.asarray(x)), in_numpy(net, x), rtol=0, atol=200 * EPS)


def test_its_output_starts_at_0_and_then_depends_on_every_input(key):
    net = ResidualMLP(key, 3, 4, width=8, depth=1)
    assert (net(jnp.array([1.0, -2.0, 1e6])) == 0).all()
    grads = eqx.filter_grad(lambda net: net(jnp.ones(3)).sum())
    assert (grads(net).last.weight != 0).any(), "a saddle"
    assert (jnp.abs(jax.jacobian(noisy(net))(jnp.array([0.3, -0.2, 0.1]))).sum(0) > 0).all()


def test_weight_normalisation_changes_no_weight_at_the_start_and_makes_lengths_parameters(key):
    plain, normalised = (ResidualMLP(key, 3, 2, width=6, depth=1, weight_norm=on) for on in (False, True))
    last = 0.1 * jnp.asarray(RNG.standard_normal((2, 6)))
    x = jnp.array([0.3, -0.2, 0.1])
    plain, normalised = (eqx.tree_at(lambda net: net.last.weight, net, last) for net in (plain, normalised))
    np.testing.assert_allclose(plain(x), normalised(x), rtol=0, atol=100 * EPS)
    assert plain.first.scale is None
    longer = eqx.tree_at(lambda net: net.first.weight, normalised, 7 * normalised.first.weight)
    np.testing.assert_allclose(longer(x), normalised(x), rtol=0, atol=100 * EPS)
    wider = eqx.tree_at(lambda net: net.first.scale, normalised, 7 * normalised.first.scale)
    assert (jnp.abs(wider(x) - normalised(x)) > 1e-3).any()


def test_a_weight_row_of_zeros_has_finite_gradients(key):
    net = noisy(ResidualMLP(key, 3, 2, width=4, depth=1))
    net = eqx.tree_at(lambda net: net.blocks[0][0].weight, net, jnp.zeros((4, 4)))
    for leaf in jax.tree.leaves(eqx.filter_grad(lambda net: net(jnp.ones(3)).sum())(net)):
        assert jnp.isfinite(leaf).all()


def test_columns_are_single_calls_and_take_what_is_added(key):
    net = noisy(ResidualMLP(key, 3, 4, width=5, depth=1))
    x, extra = jnp.asarray(RNG.standard_normal((3, 6))), jnp.array([1.0, -2.0])
    single = jax.vmap(net, -1, -1)(x)
    np.testing.assert_allclose(net.columns(x), single, rtol=0, atol=50 * EPS)
    np.testing.assert_allclose(net.columns(x, extra), single + jnp.pad(extra, (0, 2))[:, None], rtol=0, atol=50 * EPS)


def test_without_inputs_it_is_a_constant(key):
    net = noisy(ResidualMLP(key, 0, 3, width=5, depth=2))
    np.testing.assert_array_equal(net(jnp.zeros(0)), net.last.bias)


def test_it_builds_inside_transformations_and_is_saved_pickled_and_copied(key, tmp_path):
    make = Partial(ResidualMLP, in_size=3, out_size=2, width=4, depth=1)
    net = make(key)
    shapes = eqx.filter_eval_shape(make, key)
    stack = eqx.filter_jit(eqx.filter_vmap(make))(jr.split(key, 2))
    assert jax.tree.structure(net) == jax.tree.structure(shapes) == jax.tree.structure(stack)
    assert stack.first.weight.shape == (2, *net.first.weight.shape)
    assert net(jnp.ones(3)).dtype == jnp.result_type(float)
    flowlib.save(tmp_path / "net", net)
    for again in (flowlib.load(tmp_path / "net"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert_same_tree(again, net)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"in_size": -1}, "in_size must be an integer of at least 0, got -1"),
        ({"out_size": 0}, "out_size must be an integer of at least 1, got 0"),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
        ({"depth": 1.5}, "depth must be an integer of at least 0, got 1.5"),
    ],
)
def test_a_bad_size_is_one_clear_line(sizes, message, key, unchecked_annotations):
    with pytest.raises(ValueError, match=message):
        ResidualMLP(key, **{"in_size": 2, "out_size": 2, "width": 4, "depth": 1, **sizes})


# Networks in couplings.


@pytest.mark.parametrize("network", [MLP, ResidualMLP])
def test_a_coupling_refuses_a_network_of_another_size_whichever_way_it_is_called(network, key):
    coupling = Coupling(
        key, transformer=Affine(), untransformed_dim=1, dim=3, conditioner=network(key, 1, 3, width=4, depth=1)
    )
    with pytest.raises(ValueError, match=r"expected its conditioner to give shape \(4,\), got \(3,\)"):
        coupling.transform(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"expected its conditioner to give shape \(4,\), got \(3,\)"):
        batch_of(coupling, jnp.zeros((2, 3)))


class InColumns(eqx.Module):
    """A network that is no vector network of flowlib's: couplings map it over the rows."""

    net: ResidualMLP

    def __call__(self, x):
        return self.net(x)


def test_a_coupling_takes_a_residual_network_in_columns(key):
    net = noisy(ResidualMLP(key, 1 + 2, 4, width=4, depth=1))
    couplings = [
        Coupling(key, transformer=Affine(), untransformed_dim=1, dim=3, cond_dim=2, conditioner=conditioner)
        for conditioner in (net, InColumns(net))
    ]
    x, condition = jnp.asarray(RNG.standard_normal((5, 3))), jnp.asarray(RNG.standard_normal((5, 2)))
    one, other = (batch_of(coupling, x, condition) for coupling in couplings)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    program = str(jax.make_jaxpr(lambda x: batch_of(couplings[0], x, condition)[0])(x))
    assert "4,5] = dot_general" in program, "rows are the last axis"


def residual_flow(key, dim=3, **options):
    conditioner = Partial(ResidualMLP, width=6, depth=1)
    return flows.coupling_flow(key, base_dist=StandardNormal((dim,)), flow_layers=3, conditioner=conditioner, **options)


@pytest.mark.parametrize(("dim", "cond_dim"), [(3, None), (1, 2), (1, None)])
def test_a_coupling_flow_makes_the_network_of_each_layer(dim, cond_dim, key):
    flow = residual_flow(key, dim, cond_dim=cond_dim)
    x = RNG.standard_normal((4, dim))
    condition = None if cond_dim is None else RNG.standard_normal((4, cond_dim))
    np.testing.assert_allclose(flow.log_prob(x, condition), StandardNormal((dim,)).log_prob(x), rtol=0, atol=100 * EPS)
    networks = [leaf for leaf in jax.tree.leaves(flow, is_leaf=is_residual) if is_residual(leaf)]
    assert len(networks) == 1, "one stack"
    n_inputs = dim // 2 + (cond_dim or 0)
    assert networks[0].last.weight.shape == (3, 2 * (dim - dim // 2), 6 if n_inputs else 0)
    if n_inputs:
        weights = networks[0].first.weight
        assert weights.shape == (3, 6, n_inputs)
        assert (weights[0] != weights[1]).all()
    changed = noisy(flow)
    if condition is not None:
        assert (changed.log_prob(x, condition) != changed.log_prob(x, condition + 1)).all()


def is_residual(node):
    return isinstance(node, ResidualMLP)


def test_a_second_flow_with_networks_of_that_kind_compiles_nothing(key, compiles, tmp_path):
    flow = residual_flow(key)
    x = RNG.standard_normal((4, 3))
    flow.log_prob(x)
    with compiles.expect_none():
        again = residual_flow(jr.key(5))
        again.log_prob(x)
    changed = noisy(flow)
    flowlib.save(tmp_path / "flow", changed)
    np.testing.assert_array_equal(flowlib.load(tmp_path / "flow").log_prob(x), changed.log_prob(x))
