"""`init_from_data`: each `ActNorm` is set from the batch as it arrives there, through every composite."""

import math
import pickle
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
import pytest

import flowlib
from contract_tools import FLOAT, assert_same_tree, generator, perturb
from flowlib.bijections import (
    AbstractBijection,
    ActNorm,
    Affine,
    Chain,
    Concatenate,
    Coupling,
    EmbedCondition,
    Exp,
    InDataUnits,
    Indexed,
    Invert,
    InvertibleConv1x1,
    InvertibleLinear,
    NumericalInverse,
    Reshape,
    Sandwich,
    Scan,
    Sigmoid,
    Stack,
    ToSupport,
    Vmap,
    backward,
    forward,
    initialise,
    multiscale,
    multiscale_shapes,
)
from flowlib.constraints import positive
from flowlib.distributions import Dequantized, Normal, StandardNormal, Transformed, init_from_data, with_support
from flowlib.parameters import freeze
from flowlib.train import fit_to_data
from parts import shift

TOLERANCE = 1e-5
ROWS = 200


def draws(*shape):
    """Correlated rows far from standardised."""
    rng = generator("rows", shape)
    x = rng.standard_normal((ROWS, *shape))
    return (np.cumsum(x * 3.0, axis=-1) + np.arange(1, 1 + np.prod(shape)).reshape(shape)).astype(FLOAT)


def conditions(dim=2):
    return generator("conditions").standard_normal((ROWS, dim)).astype(FLOAT)


def step(key, cond_dim=None):
    keys = jr.split(key)
    coupling = Coupling(
        keys[0],
        transformer=Affine(),
        untransformed_dim=1,
        dim=3,
        cond_dim=cond_dim,
        nn_width=6,
        nn_activation=jnp.tanh,
    )
    return Chain([ActNorm((3,)), InvertibleLinear(keys[1], dim=3), coupling])


def steps(key, *, scan, cond_dim=None, n=3) -> Any:
    """Several steps, all with random parameters, those of each ActNorm too."""
    stack = eqx.filter_vmap(partial(step, cond_dim=cond_dim))(jr.split(key, n))
    stack = Scan(perturb(stack, generator("stack"), 0.3))
    return stack if scan else Chain(list(stack))


def flow_of(bijection) -> Any:
    return Transformed(StandardNormal(bijection.shape), bijection)


def assert_standardised(values, axes=(0,)):
    values = np.asarray(values, np.float64)
    np.testing.assert_allclose(values.mean(axes), 0, atol=TOLERANCE)
    np.testing.assert_allclose(values.std(axes), 1, atol=TOLERANCE)


def assert_close_arrays(one, other):
    for a, b in zip(*(jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def trace(bijection, x, condition, *, inverse):
    """Each ActNorm met by the batch with what comes out of it, one layer after another by the public methods."""
    if isinstance(bijection, Invert):
        yield from trace(bijection.bijection, x, condition, inverse=not inverse)
    elif isinstance(bijection, Chain | Scan):
        parts = list(bijection)
        for part in reversed(parts) if inverse else parts:
            yield from trace(part, x, condition, inverse=inverse)
            x = apply(part, x, condition, inverse=inverse)
    elif isinstance(bijection, ActNorm):
        yield bijection, apply(bijection, x, condition, inverse=inverse)


def apply(bijection, x, condition, *, inverse):
    method = bijection.inverse if inverse else bijection.transform
    return jax.vmap(method, (0, None if condition is None else 0))(x, condition)


@pytest.mark.parametrize("scan", [False, True], ids=["Chain", "Scan"])
@pytest.mark.parametrize("invert", [False, True], ids=["plain", "Invert"])
@pytest.mark.parametrize("cond_dim", [None, 2], ids=["unconditional", "conditional"])
def test_each_act_norm_gives_mean_zero_and_standard_deviation_one(scan, invert, cond_dim, key):
    bijection = steps(key, scan=scan, cond_dim=cond_dim)
    flow = flow_of(Invert(bijection) if invert else bijection)
    x, condition = draws(3), None if cond_dim is None else conditions(cond_dim)
    found = list(trace(flowlib.init_from_data(flow, x, condition).bijection, x, condition, inverse=True))
    assert len(found) == 3
    for _, values in found:
        assert_standardised(values)
    untouched = trace(flow.bijection, x, condition, inverse=True)
    assert not any(np.allclose(values.mean(0), 0, atol=0.01) for _, values in untouched)


@pytest.mark.parametrize("invert", [False, True], ids=["plain", "Invert"])
def test_scan_is_set_as_the_chain_of_its_layers(invert, key):
    scan, chain = steps(key, scan=True), steps(key, scan=False)
    if invert:
        scan, chain = Invert(scan), Invert(chain)
    one, other = (flowlib.init_from_data(flow_of(b), draws(3)).bijection for b in (scan, chain))
    assert_close_arrays([*one.bijection] if invert else [*one], [*other.bijection] if invert else [*other])


def test_channels_of_images_are_standardised_over_rows_and_pixels(key):
    shapes = multiscale_shapes((1, 4, 8), 2)
    levels = [
        Chain([ActNorm(shape), InvertibleConv1x1(k, shape=shape)])
        for k, shape in zip(jr.split(key), shapes, strict=True)
    ]
    flow = flowlib.init_from_data(flow_of(Invert(multiscale(levels, shape=(1, 4, 8)))), draws(1, 4, 8))
    # Squeeze, the steps, and of half of the channels the same again.
    squeeze, (norm, conv), rest, _ = flow.bijection.bijection
    values = jax.vmap(lambda x: norm.transform(squeeze.transform(x)))(draws(1, 4, 8))
    assert_standardised(values, (0, 2, 3))
    squeeze, (norm, _), _ = rest.bijections[0]
    values = jax.vmap(lambda x: norm.transform(squeeze.transform(conv.transform(x)[:2])))(values)
    assert_standardised(values, (0, 2, 3))


def norms(n, shape):
    return eqx.filter_vmap(lambda _: ActNorm(shape))(jnp.arange(n))


def transposed(tree):
    return jax.tree.map(lambda leaf: leaf.T, tree)


# Composites of nothing but an ActNorm; the parts of what comes out that are then standardised, and over which axes.
COMPOSITES = {
    "Chain": (lambda: Chain([Chain([ActNorm((3,))])]), lambda y: [y], (0,)),
    "Invert": (lambda: Invert(ActNorm((3,))), lambda y: [y], (0,)),
    "Scan": (lambda: Scan(norms(1, (3,))), lambda y: [y], (0,)),
    "Concatenate": (
        lambda: Concatenate([ActNorm((2, 1)), Invert(ActNorm((2, 2)))], axis=-1),
        lambda y: [y[:, :, :1], y[:, :, 1:]],
        (0, 2),
    ),
    "Stack": (lambda: Stack([ActNorm((2,)), Invert(ActNorm((2,))), ActNorm((2,))], axis=1), lambda y: [y], (0,)),
    "Vmap_own": (lambda: Vmap(norms(3, (2,)), in_axes=eqx.if_array(0)), lambda y: [y], (0,)),
    "Vmap_last_axis": (lambda: Vmap(transposed(norms(3, (2,))), in_axes=eqx.if_array(1)), lambda y: [y], (0,)),
    "Vmap_shared": (lambda: Vmap(ActNorm((2,)), axis_size=3), lambda y: [y], (0, 1)),
    "Indexed": (lambda: Indexed(ActNorm((2,)), np.array([2, 0]), (3,)), lambda y: [y[:, [0, 2]]], (0,)),
    "Indexed_pixels": (lambda: Indexed(ActNorm((2,)), (slice(None), 1), (2, 3)), lambda y: [y[:, :, 1]], (0,)),
    "Reshape": (lambda: Reshape(ActNorm((3, 2)), (6,)), lambda y: [y.reshape(-1, 3, 2)], (0, 2)),
    "Reshape_out": (lambda: Reshape(ActNorm((2,)), (2, 1), out_shape=(1, 2)), lambda y: [y], (0,)),
    "NumericalInverse": (lambda: NumericalInverse(ActNorm((3,))), lambda y: [y], (0,)),
}


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_pass_the_batch_on_in_both_directions(name, inverse):
    make, parts, axes = COMPOSITES[name]
    bijection = perturb(make(), generator(name), 0.3)
    x = jnp.asarray(draws(*(bijection.out_shape if inverse else bijection.shape)))
    new, y = eqx.filter_jit(initialise)(bijection, x, inverse=inverse)
    for part in parts(y):
        assert_standardised(part, axes)
    np.testing.assert_allclose(apply(new, x, None, inverse=inverse), y, rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(new) == jax.tree.structure(bijection)


def shifted_norm():
    """An ActNorm that a batch meets last on its way back, after a shift by the condition."""
    return Chain([ActNorm((2,)), shift(jr.key(3), 2)])


def embedding(condition):
    return jnp.stack([condition[0] - condition[1], condition[1] ** 2])


CONDITIONAL = {
    "Chain": (shifted_norm, (0,)),
    "EmbedCondition": (lambda: EmbedCondition(shifted_norm(), embedding, (2,)), (0,)),
    "InDataUnits": (lambda: InDataUnits(shifted_norm(), jnp.arange(2.0), 2.0, cond_location=1.0, cond_scale=3.0), (0,)),
    "InDataUnits_support": (
        lambda: InDataUnits(shifted_norm(), 1.0, 2.0, to_data=ToSupport((-100.0, np.inf), (2,))),
        (0,),
    ),
    "Reshape": (lambda: Reshape(shifted_norm(), (1, 2), (2, 1)), (0,)),
    "Vmap": (lambda: Vmap(stacked(shifted_norm()), in_axes=eqx.if_array(0)), (0,)),
    "Vmap_condition": (lambda: Vmap(stacked(shifted_norm()), in_axes=eqx.if_array(0), in_axes_condition=1), (0,)),
    "Vmap_shared": (lambda: Vmap(shifted_norm(), axis_size=3), (0, 1)),
    "Vmap_shared_condition": (lambda: Vmap(shifted_norm(), axis_size=3, in_axes_condition=0), (0, 1)),
}


def stacked(tree, n=3):
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: jnp.stack([leaf * (1 + i) for i in range(n)]), arrays), rest)


@pytest.mark.parametrize("one_condition", [False, True], ids=["one each", "one for all"])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_composites_pass_the_condition_on(name, one_condition):
    make, axes = CONDITIONAL[name]
    flow = flow_of(make())
    x, condition = draws(*flow.shape), generator("conditions").standard_normal((ROWS, *flow.cond_shape)).astype(FLOAT)
    condition = condition[0] if one_condition else condition
    assert_standardised(flowlib.init_from_data(flow, x, condition).to_base(x, condition), axes)


def test_sandwich_sets_its_outer_map_where_the_batch_meets_it_first():
    x, sandwich = jnp.asarray(draws(3)), Sandwich(ActNorm((3,)), ActNorm((3,)))
    for inverse in (False, True):
        new, y = initialise(sandwich, x, inverse=inverse)
        between = apply(new.outer, x, None, inverse=False)
        assert_standardised(between)
        assert_standardised(apply(new.inner, between, None, inverse=inverse))
        np.testing.assert_allclose(apply(new, x, None, inverse=inverse), y, rtol=1e-4, atol=1e-4)


def test_base_that_is_a_flow_is_set_from_what_reaches_it():
    inner = Transformed(Normal(jnp.zeros(2), 2.0), ActNorm((2,)))
    flow: Any = Transformed(inner, Chain([Affine(1.0, jnp.ones(2)), ActNorm((2,))]))
    flow = flowlib.init_from_data(flow, draws(2))
    z = flow.to_base(draws(2))
    assert_standardised(z + 1)
    assert_standardised(flow.base_dist.to_base(z))
    np.testing.assert_array_equal(flow.base_dist.base_dist.scale, np.full(2, 2.0))


@pytest.mark.parametrize("noise", [False, True])
def test_whole_numbers_are_seen_somewhere_in_their_cells(noise):
    cells = Transformed(StandardNormal((2,)), Sigmoid((2,))) if noise else None
    x = generator("whole").integers(0, 6, (3000, 2))
    x[:, 1] = 3
    flow: Any = Dequantized(flow_of(Invert(ActNorm((2,)))), noise=cells)
    flow = flowlib.init_from_data(flow, x)
    norm = flow.dist.bijection.bijection
    # The mean and the variance of a place in a cell are added.
    variance = np.var(1 / (1 + np.exp(-generator("places").standard_normal(10**5)))) if noise else 1 / 12
    np.testing.assert_allclose(norm.loc, x.mean(0) + 0.5, atol=0.03)
    np.testing.assert_allclose(jnp.exp(norm.log_scale), np.sqrt(x.var(0) + variance), rtol=0.03)


def test_columns_of_real_numbers_beside_whole_ones_are_seen_as_they_are():
    x = np.round(draws(3))
    flow: Any = Dequantized(flow_of(Invert(ActNorm((3,)))), columns=(True, False, False))
    norm = flowlib.init_from_data(flow, x).dist.bijection.bijection
    np.testing.assert_allclose(norm.loc[1:], x.mean(0)[1:], rtol=1e-5)
    np.testing.assert_allclose(norm.loc[0] - x.mean(0)[0], 0.5, atol=0.1)


def test_frozen_parts_stay():
    whole, leaves, free = paramax.NonTrainable(ActNorm((3,))), freeze(ActNorm((3,))), ActNorm((3,))
    chain = eqx.tree_at(lambda chain: chain.bijections, Chain([free, free, free]), (whole, free, leaves))
    chain = flowlib.init_from_data(flow_of(chain), draws(3)).bijection
    assert_same_tree(chain.bijections[0], whole)
    assert_same_tree(chain.bijections[2], leaves)
    assert_standardised(apply(chain[1], draws(3), None, inverse=True))
    # One of the two parameters.
    half = freeze(ActNorm((3,)), lambda norm: norm.log_scale)
    values = flowlib.init_from_data(flow_of(Invert(half)), draws(3)).to_base(draws(3))
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-4)
    assert (values.std(0) > 1.5).all()


def test_an_array_shared_by_some_parts_of_a_vmap_only_stays(key):
    mixed = Vmap(norms(3, (2,)), in_axes=eqx.tree_at(lambda n: (n.loc, n.log_scale), ActNorm((2,)), (0, None)))
    assert mixed.axes == (0, None)
    mixed = eqx.tree_at(lambda v: v.bijection.log_scale, mixed, jnp.zeros(2))
    new = flowlib.init_from_data(flow_of(Invert(mixed)), draws(3, 2)).bijection.bijection
    np.testing.assert_array_equal(new.bijection.log_scale, np.zeros(2))
    np.testing.assert_allclose(new.bijection.loc, draws(3, 2).mean(0), rtol=1e-5)


# Rows and columns that do not tell anything.


@pytest.mark.parametrize("invert", [False, True], ids=["plain", "Invert"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 12345.678, -1e30])
def test_constant_column_gets_the_scale_one(constant, invert):
    x = draws(3)
    x[:, 1] = constant
    flow = flow_of(Invert(ActNorm((3,))) if invert else ActNorm((3,)))
    flow = flowlib.init_from_data(flow, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(flow))
    norm = flow.bijection.bijection if invert else flow.bijection
    assert norm.log_scale[1] == 0
    values = np.asarray(flow.to_base(x))
    np.testing.assert_array_equal(values[:, 1], 0)
    assert_standardised(values[:, [0, 2]])


def test_column_that_is_constant_within_rounding_gets_the_scale_one():
    x = draws(2)
    x[:, 1] = FLOAT(0.1)
    x[::5, 1] = np.nextafter(FLOAT(0.1), FLOAT(1))
    flow = flowlib.init_from_data(flow_of(Invert(ActNorm((2,)))), x)
    assert flow.bijection.bijection.log_scale[1] == 0


@pytest.mark.parametrize("scale", [1e-18, 1e-30, 1e18, 3e38])
def test_extreme_scales_neither_overflow_nor_vanish(scale):
    x = draws(2) / np.abs(draws(2)).max() * FLOAT(scale)
    values = np.asarray(flowlib.init_from_data(flow_of(Invert(ActNorm((2,)))), x).to_base(x))
    assert_standardised(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_do_not_count(bad, key):
    # Here a batch meets an ActNorm before anything that sees the condition.
    flow, x, condition = flow_of(Invert(steps(key, scan=True, cond_dim=2))), draws(3), conditions()
    clean = flowlib.init_from_data(flow, x[2:], condition[2:])
    spoilt, conditions_ = x.copy(), condition.copy()
    spoilt[0, 1] = bad
    conditions_[1] = bad
    found = flowlib.init_from_data(flow, spoilt, conditions_)
    assert_close_arrays(found, clean)


def test_rows_outside_the_support_do_not_count():
    flow = flow_of(Chain([ActNorm((2,)), Exp((2,)), Invert(ActNorm((2,)))]))
    fixed = eqx.tree_at(lambda flow: flow.bijection.bijections[2], flow, freeze(flow.bijection[2]))
    x = np.exp(0.2 * draws(2))
    outside = np.concatenate([x, [[-1.0, 1.0], [2.0, -3.0]]]).astype(FLOAT)
    assert_close_arrays(flowlib.init_from_data(fixed, x), flowlib.init_from_data(fixed, outside))


# Bijections of the user's own.


class Doubling(AbstractBijection):
    """y = width x, set so that the largest absolute value becomes 2; the parameter is wrapped."""

    width: Any
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: None = eqx.field(static=True, default=None)

    def __init__(self, shape):
        self.width = positive(jnp.ones(shape), "width")
        self.shape = shape

    def _transform_and_log_det(self, x, condition=None):
        return self.width * x, jnp.log(self.width).sum()

    def _inverse_and_log_det(self, y, condition=None):
        return y / self.width, -jnp.log(self.width).sum()

    def _init_from_data(self, x, condition, *, inverse):
        largest = jnp.nanmax(jnp.abs(x), 0) / 2
        return eqx.tree_at(lambda b: b.width, self, positive(largest if inverse else 1 / largest, "width"))


class Twice(AbstractBijection):
    """A composite of the user's own, y = f(f(x)); with a hook that passes the batch on, if `passes`."""

    bijection: AbstractBijection
    passes: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: None = eqx.field(static=True, default=None)

    def _transform_and_log_det(self, x, condition=None):
        y, first = forward(self.bijection, x)
        y, second = forward(self.bijection, y)
        return y, first + second

    def _inverse_and_log_det(self, y, condition=None):
        x, first = backward(self.bijection, y)
        x, second = backward(self.bijection, x)
        return x, first + second

    def _init_from_data(self, x, condition, *, inverse):
        if not self.passes:
            return self
        return eqx.tree_at(lambda b: b.bijection, self, initialise(self.bijection, x, condition, inverse=inverse)[0])


class Fickle(AbstractBijection):
    """A hook that changes a shape."""

    loc: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True, default=(2,))
    cond_shape: None = eqx.field(static=True, default=None)

    def _transform_and_log_det(self, x, condition=None):
        return x + self.loc, 0.0

    def _inverse_and_log_det(self, y, condition=None):
        return y - self.loc, 0.0

    def _init_from_data(self, x, condition, *, inverse):
        return eqx.tree_at(lambda b: b.loc, self, x.mean(0))


@pytest.mark.parametrize("inverse", [False, True])
def test_bijection_of_ones_own_is_set_and_the_next_sees_it_set(inverse):
    chain = Chain([ActNorm((2,)), Doubling((2,)), ActNorm((2,))])
    x = jnp.asarray(draws(2))
    new, y = initialise(chain, x, inverse=inverse)
    assert_standardised(y)
    first, own = (new[2], new[1]) if inverse else (new[0], new[1])
    values = apply(own, apply(first, x, None, inverse=inverse), None, inverse=inverse)
    np.testing.assert_allclose(np.abs(values).max(0), 2, rtol=1e-5)


def test_composite_of_ones_own_is_one_layer_unless_it_passes_the_batch_on():
    for passes in (False, True):
        flow = flow_of(Chain([ActNorm((2,)), Twice(bijection=Doubling((2,)), passes=passes, shape=(2,))]))
        flow = flowlib.init_from_data(flow, draws(2))
        assert_standardised(flow.to_base(draws(2)))
        set_ = np.abs(apply(flow.bijection[1].bijection, draws(2), None, inverse=True)).max(0)
        assert np.allclose(set_, 2) == passes


def test_hook_that_changes_more_than_values_is_an_error():
    with pytest.raises(ValueError, match="_init_from_data of Fickle changed more than the values") as caught:
        flowlib.init_from_data(flow_of(Fickle(loc=jnp.zeros(()))), draws(2))
    assert "\n" not in str(caught.value)


# What it is as a function.


def test_only_the_values_of_layers_that_ask_change(key):
    flow = flow_of(steps(key, scan=True))
    before = jax.tree.map(lambda leaf: np.array(leaf) if eqx.is_array(leaf) else leaf, flow)
    new = flowlib.init_from_data(flow, draws(3))
    assert_same_tree(flow, jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array(leaf) else leaf, before))
    assert jax.tree.structure(new) == jax.tree.structure(flow)

    def where(flow):
        norm = flow.bijection.bijection[0]
        return norm.loc, norm.log_scale

    assert not np.allclose(where(new)[0], where(flow)[0], atol=0.01)
    assert_same_tree(eqx.tree_at(where, new, where(flow)), flow)


def test_flow_without_such_layers_comes_back_equal(key, compiles):
    flow = flow_of(Coupling(key, transformer=Affine(), untransformed_dim=1, dim=3, nn_width=4))
    before = compiles.compiled
    assert_same_tree(flowlib.init_from_data(flow, draws(3)), flow)
    assert compiles.compiled == before


def test_half_precision_and_numpy_arrays_stay_what_they_are():
    norm = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), ActNorm((3,)))
    loc = Affine(jnp.zeros(3))
    loc = eqx.tree_at(lambda b: b.loc, loc, np.ones(3, FLOAT))
    chain = flowlib.init_from_data(flow_of(Chain([norm, loc])), draws(3)).bijection
    assert chain[0].loc.dtype == chain[0].log_scale.dtype == jnp.bfloat16
    assert isinstance(chain[1].loc, np.ndarray)
    np.testing.assert_array_equal(chain[1].loc, np.ones(3))
    values = apply(jax.tree.map(lambda leaf: leaf.astype(FLOAT), chain[0]), draws(3) - 1, None, inverse=True)
    np.testing.assert_allclose(values.std(0), 1, rtol=0.02)


def test_second_call_compiles_nothing_also_for_an_equal_flow(key, compiles):
    flow, twin = flow_of(steps(key, scan=True)), flow_of(steps(key, scan=True))
    x, other = draws(3), draws(3) + 1
    first = flowlib.init_from_data(flow, x)
    with compiles.expect_none():
        again = flowlib.init_from_data(twin, x)
        flowlib.init_from_data(flow, other)
    assert_same_tree(again, first)


def test_inside_jit_and_vmap_it_is_the_same(key):
    flow, x = flow_of(steps(key, scan=True)), jnp.asarray(draws(3))
    expected = flowlib.init_from_data(flow, x)
    inside = eqx.filter_jit(flowlib.init_from_data)(flow, x)
    many = eqx.filter_vmap(flowlib.init_from_data, in_axes=(None, 0))(flow, jnp.stack([x, 2 * x]))
    for new in (inside, jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, many)):
        assert jax.tree.structure(new) == jax.tree.structure(expected)
        assert_close_arrays(new, expected)


def test_saving_pickling_and_loading_keep_the_values_and_nothing_is_set_again(key, tmp_path):
    flow = flowlib.init_from_data(flow_of(steps(key, scan=True)), draws(3))
    flowlib.save(tmp_path / "flow", flow)
    for again in (flowlib.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        assert_same_tree(again, flow)
        # Other data, other rows: only another call would set anything.
        np.testing.assert_array_equal(again.log_prob(5 * draws(3)), flow.log_prob(5 * draws(3)))
        assert_same_tree(again, flow)


def test_batches_of_any_shape_are_rows(key):
    flow = flow_of(steps(key, scan=False, cond_dim=2, n=1))
    x, condition = draws(3), conditions()
    expected = flowlib.init_from_data(flow, x, condition)
    assert_same_tree(flowlib.init_from_data(flow, x.reshape(10, 20, 3), condition.reshape(10, 20, 2)), expected)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda flow: (StandardNormal((2,)), draws(2)), TypeError, "expected a Transformed, got StandardNormal"),
        (lambda flow: (Dequantized(StandardNormal((2,))), draws(2)), TypeError, "expected a Transformed, got Standard"),
        (lambda flow: (flow.bijection, draws(2)), TypeError, "expected a Transformed, got Chain"),
        (lambda flow: (flow, draws(3), np.ones((ROWS, 2))), ValueError, r"expected x of shape \(\.\.\., 2\)"),
        (lambda flow: (flow, draws(2)), ValueError, "expected a condition"),
        (lambda flow: (flow, draws(2), np.ones((ROWS, 3))), ValueError, r"expected condition of shape \(\.\.\., 2\)"),
        (lambda flow: (flow, draws(2), np.ones((7, 2))), ValueError, "does not broadcast"),
        (lambda flow: (flow_of(ActNorm((2,))), draws(2), np.ones(2)), ValueError, "unconditional, but got a condition"),
        (lambda flow: (flow, draws(2)[:1], np.ones(2)), ValueError, "expected at least 2 rows of x, got 1"),
        (lambda flow: (flow, draws(2)[0], np.ones(2)), ValueError, "expected at least 2 rows of x, got 1"),
        (lambda flow: (flow, draws(2)[:0], np.ones(2)), ValueError, "expected at least 2 rows of x, got 0"),
        (
            lambda flow: (flow, [[1.0, 2.0], [np.nan, 1.0], [1.0, np.inf]], np.ones(2)),
            ValueError,
            "expected at least 2 rows of finite numbers, got 1",
        ),
        (
            lambda flow: (flow, draws(2), np.array([1.0, np.nan])),
            ValueError,
            "expected at least 2 rows of finite numbers, got 0",
        ),
        (lambda flow: (flow, [["a", "b"]] * 3, np.ones(2)), TypeError, "x must hold real numbers"),
    ],
)
def test_bad_arguments_are_one_line_errors(make, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        flowlib.init_from_data(*make(flow_of(shifted_norm())))
    assert "\n" not in str(caught.value)


def test_fit_sets_normalisations_in_the_units_that_it_puts_in():
    x = 1e4 + 50 * np.random.default_rng(3).standard_normal((400, 2))
    flow = Transformed(StandardNormal((2,)), Invert(Chain([ActNorm((2,)), Affine(np.zeros(2), np.full(2, 1.0))])))
    for given in (with_support(flow), with_support(init_from_data(flow, x))):
        fitted, losses = fit_to_data(jr.key(0), given, x, max_epochs=1, learning_rate=1e-5, show_progress=False)
        # The entropy of two normal columns of standard deviation 50.
        assert abs(losses["train"][0] - (math.log(2 * math.pi * math.e) + 2 * math.log(50))) < 0.1
        z = np.asarray(fitted.to_base(x))
        np.testing.assert_allclose(z.mean(0), 0, atol=0.01)
