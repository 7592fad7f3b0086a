"""Arrays of a transformer that are the layer's own: trained with it, and made by no conditioner."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import flowlib
import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, assert_same_tree, perturb
from flowlib.bijections import backward_batch, forward_batch
from flowlib.distributions import StandardNormal, Transformed
from flowlib.nn import MLP
from flowlib.parameters import Own, count_parameters, freeze, partition_trainable
from flowlib.train import fit_to_data

KEY = jr.key(0)


def coupling(key=KEY, transformer=None, **options):
    transformer = bij.TanhAffine() if transformer is None else transformer
    return bij.Coupling(key, transformer=transformer, untransformed_dim=2, dim=5, nn_width=6, **options)


def autoregressive(key=KEY, transformer=None, **options):
    transformer = bij.TanhAffine() if transformer is None else transformer
    return bij.MaskedAutoregressive(key, transformer=transformer, dim=5, nn_width=6, **options)


def own_of(layer) -> list[Any]:
    """The own arrays of all templates of a layer."""
    return [array for template in layer.transformers.templates for array in template.own]


def with_bounds(layer, log_bounds):
    return eqx.tree_at(lambda layer: layer.transformers.templates[0].own[0], layer, jnp.asarray(log_bounds, FLOAT))


def scales(raw, log_bounds):
    bounds = np.exp(log_bounds)
    return np.exp(bounds * np.tanh(raw / bounds))


def test_each_changed_coordinate_has_its_own_bound_and_the_conditioner_makes_only_the_rest():
    layer = coupling()
    assert [array.shape for array in own_of(layer)] == [(3,)]
    assert layer.n_parameters == 2 * 3
    assert isinstance(layer.conditioner, MLP)
    assert layer.conditioner.layers[-1].weight.shape == (6, 6)
    assert [array.shape for array in own_of(autoregressive())] == [(5,)]
    # For a transformer of vectors as many as it had.
    assert [array.shape for array in own_of(coupling(transformer=bij.TanhAffine((3,))))] == [(1, 3)]


@pytest.mark.parametrize("joint", [False, True])
def test_a_coupling_applies_the_bound_of_each_coordinate(joint):
    log_bounds = np.array([-1.0, 0.0, 1.5])
    raw, loc = np.array([3.0, -0.7, 5.0]), np.array([0.5, -1.0, 2.0])
    layer = coupling(transformer=bij.TanhAffine((3,)) if joint else None)
    layer = with_bounds(layer, log_bounds[None] if joint else log_bounds)
    # The conditioner's constant, in the order of the fields: loc and raw, together or coordinate by coordinate.
    bias = np.concatenate([loc, raw]) if joint else np.stack([loc, raw], axis=1).ravel()
    layer = eqx.tree_at(lambda layer: layer.conditioner.layers[-1].bias, layer, jnp.asarray(bias, FLOAT))
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(FLOAT)
    expected = np.concatenate([x[:, :2], (x[:, 2:] + loc) * scales(raw, log_bounds)], axis=1)
    log_det = np.log(scales(raw, log_bounds)).sum()
    y, change = forward_batch(layer, jnp.asarray(x))
    for value, found in [jax.vmap(layer.transform_and_log_det)(x), (y, change.value)]:
        np.testing.assert_allclose(value, expected, rtol=50 * EPS, atol=50 * EPS)
        np.testing.assert_allclose(found, log_det, rtol=50 * EPS)
    back, _ = backward_batch(layer, jnp.asarray(expected, FLOAT))
    np.testing.assert_allclose(back, x, rtol=200 * EPS, atol=200 * EPS)


def test_an_autoregressive_layer_in_any_order_applies_and_inverts_with_the_bound_of_each_coordinate():
    log_bounds = np.array([-1.0, 0.0, 1.5, 0.5, -0.5])
    layer = with_bounds(autoregressive(order=[3, 0, 4, 1, 2]), log_bounds)
    layer = eqx.tree_at(lambda layer: layer.conditioner.last.bias, layer, jnp.tile(jnp.asarray([0.0, 50.0], FLOAT), 5))
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(FLOAT)
    y, change = forward_batch(layer, jnp.asarray(x))
    # Far out the scale is as large as its bound allows.
    np.testing.assert_allclose(y, x * scales(50.0, log_bounds), rtol=50 * EPS)
    back, change_back = backward_batch(layer, y)
    np.testing.assert_allclose(back, x, rtol=50 * EPS)
    np.testing.assert_allclose(change_back.value, -change.value, rtol=50 * EPS)


def test_transformers_of_unlike_structure_keep_their_own_arrays():
    kinds = [bij.TanhAffine(), bij.LeakyTanh(1.0), bij.Chain([bij.TanhAffine(), bij.Affine()])]
    layer = perturb(coupling(transformer=kinds), np.random.default_rng(0))
    assert sorted(array.shape for array in own_of(layer)) == [(1,), (1,)]
    same = perturb(coupling(transformer=[bij.TanhAffine()] * 3), np.random.default_rng(0))
    assert [array.shape for array in own_of(same)] == [(3,)]
    x = jr.normal(KEY, (4, 5))
    for one in (layer, same):
        value, change = forward_batch(one, x)
        singly, log_det = jax.vmap(one.transform_and_log_det)(x)
        np.testing.assert_allclose(value, singly, rtol=100 * EPS, atol=100 * EPS)
        np.testing.assert_allclose(change.value, log_det, rtol=100 * EPS, atol=100 * EPS)
        np.testing.assert_allclose(backward_batch(one, value)[0], x, rtol=1e3 * EPS, atol=1e3 * EPS)


@pytest.mark.parametrize("make", [coupling, autoregressive])
def test_a_scan_of_layers_is_the_chain_of_them(make):
    layers = perturb(eqx.filter_vmap(make)(jr.split(KEY, 3)), np.random.default_rng(0), 0.3)
    changed = 3 if make is coupling else 5
    assert [array.shape for array in own_of(layers)] == [(3, changed)]
    scan = bij.Scan(layers)
    chain = bij.Chain(list(scan))
    x = jr.normal(KEY, (5,))
    y, log_det = scan.transform_and_log_det(x)
    expected, expected_log_det = chain.transform_and_log_det(x)
    np.testing.assert_allclose(y, expected, rtol=100 * EPS)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=100 * EPS)
    np.testing.assert_allclose(scan.inverse(y), x, rtol=1e3 * EPS, atol=1e3 * EPS)


def test_bounds_are_trained_and_move_in_a_fit():
    layers = eqx.filter_vmap(coupling)(jr.split(KEY, 2))
    trainable, rest = partition_trainable(layers)
    assert [array.shape for array in own_of(trainable)] == [(2, 3)]
    assert own_of(rest) == [None]
    flow = Transformed(StandardNormal((5,)), bij.Invert(bij.Scan(layers)))
    data = np.random.default_rng(0).standard_normal((200, 5)) ** 3
    fitted, _ = fit_to_data(KEY, flow, data, max_epochs=3, learning_rate=0.01, show_progress=False)
    moved = [leaf for leaf in jax.tree.leaves(partition_trainable(fitted)[0]) if leaf.shape == (2, 3)]
    assert len(moved) == 1
    assert (np.abs(moved[0]) > 1e-4).all()


def test_frozen_bounds_stay_out_of_training():
    layer = coupling()
    assert own_of(partition_trainable(freeze(layer))[0]) == [None]
    # Frozen before, the bound is a constant of the transformer.
    shared = coupling(transformer=freeze(bij.TanhAffine(), lambda t: t.log_bound))
    assert own_of(shared) == []
    assert shared.n_parameters == layer.n_parameters
    assert count_parameters(shared) == count_parameters(layer) - 3
    x = jr.normal(KEY, (4, 5))
    for one in (freeze(perturb(layer, np.random.default_rng(0))), perturb(shared, np.random.default_rng(0))):
        value, _ = forward_batch(one, x)
        np.testing.assert_allclose(value, jax.vmap(one.transform)(x), rtol=100 * EPS, atol=100 * EPS)


def test_an_autoregressive_layer_inverts_transformers_with_frozen_arrays():
    spline = bij.RationalQuadraticSpline(knots=4, interval=2.0)
    kinds = [freeze(bij.Affine(1.0, 2.0), lambda t: t.loc), freeze(spline, lambda t: t.slopes)]
    x = jr.normal(KEY, (4, 5))
    for transformer in kinds:
        layer = perturb(autoregressive(transformer=transformer), np.random.default_rng(0), 0.3)
        assert layer.transformers.alike
        y, change = forward_batch(layer, x)
        back, change_back = backward_batch(layer, y)
        np.testing.assert_allclose(back, x, rtol=1e3 * EPS, atol=1e3 * EPS)
        np.testing.assert_allclose(change_back.value, -change.value, rtol=1e3 * EPS, atol=1e3 * EPS)


def test_own_arrays_are_saved(tmp_path):
    layers = perturb(eqx.filter_vmap(coupling)(jr.split(KEY, 2)), np.random.default_rng(0))
    scan = bij.Scan(layers)
    flowlib.save(tmp_path / "flow", (scan, bij.TanhAffine((2,))))
    loaded, alone = flowlib.load(tmp_path / "flow")
    assert_same_tree(loaded, scan)
    assert_same_tree(alone, bij.TanhAffine((2,)))
    assert isinstance(alone.log_bound, Own)


def test_outside_of_layers_own_is_the_array_itself():
    plain = bij.Affine(jnp.asarray([1.0, 2.0]), jnp.asarray([0.5, 3.0]))
    owned = eqx.tree_at(lambda affine: affine.loc, plain, replace_fn=Own)
    for one, other in zip(
        plain.transform_and_log_det(jnp.ones(2)), owned.transform_and_log_det(jnp.ones(2)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert count_parameters(owned) == count_parameters(plain) == 4
    vmapped = bij.Vmap(eqx.filter_vmap(bij.TanhAffine, axis_size=3)(), in_axes=eqx.if_array(0))
    assert vmapped.transform(jnp.ones(3)).shape == (3,)


def test_a_tanh_affine_is_the_formula_and_starts_as_the_identity():
    rng = np.random.default_rng(0)
    loc, raw, log_bound, x = rng.standard_normal((4, 6))
    start = bij.TanhAffine((6,))
    np.testing.assert_array_equal(start.transform(x.astype(FLOAT)), x.astype(FLOAT))
    affine = eqx.tree_at(
        lambda t: (t.loc, t.raw, t.log_bound), start, tuple(jnp.asarray(a, FLOAT) for a in (loc, raw, log_bound))
    )
    y, log_det = affine.transform_and_log_det(x.astype(FLOAT))
    np.testing.assert_allclose(y, (x + loc) * scales(raw, log_bound), rtol=50 * EPS, atol=50 * EPS)
    np.testing.assert_allclose(log_det, np.log(scales(raw, log_bound)).sum(), rtol=50 * EPS)
