"""Defects seen in other libraries of normalizing flows, each shown to be absent here.

Those that every bijection or distribution could have are in `test_contract.py` and
`test_distributions.py`, those of fits in `test_train_failure.py`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import bijections as bij
from flowlib.distributions import Normal, StandardNormal, Uniform
from flowlib.flows import (
    block_neural_autoregressive_flow,
    coupling_flow,
    inverse_autoregressive_flow,
    masked_autoregressive_flow,
    neural_spline_flow,
    nice,
    planar_flow,
    radial_flow,
    realnvp,
    residual_flow,
    sylvester_flow,
    triangular_spline_flow,
)

KEY = jr.key(0)
X64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
CONSTRUCTORS = [
    block_neural_autoregressive_flow,
    coupling_flow,
    inverse_autoregressive_flow,
    masked_autoregressive_flow,
    neural_spline_flow,
    nice,
    planar_flow,
    radial_flow,
    realnvp,
    residual_flow,
    sylvester_flow,
    triangular_spline_flow,
]


def noisy(tree, scale=0.5, seed=1):
    """Noise on every floating array."""
    rng = np.random.default_rng(seed)

    def move(leaf):
        return leaf + jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(lambda leaf: move(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def test_a_scan_of_householder_layers_normalises_each_layer_by_itself():
    layers = eqx.filter_vmap(lambda key: bij.Householder(jr.normal(key, (4,))))(jr.split(KEY, 3))
    x = jr.normal(KEY, (4,))
    y, log_det = bij.Scan(layers).transform_and_log_det(x)
    np.testing.assert_allclose(np.linalg.norm(y), np.linalg.norm(x), rtol=1e-5)
    np.testing.assert_allclose(bij.Scan(layers).inverse(y), x, atol=1e-5)
    assert log_det == 0


def test_stack_on_the_last_axis_has_the_shape_that_comes_out():
    stack = bij.Stack([bij.Exp((2, 3)), bij.Identity((2, 3))], axis=-1)
    assert stack.shape == stack.transform(jnp.ones((2, 3, 2))).shape == (2, 3, 2)


def test_unconditional_layers_stand_beside_a_conditional_one():
    parts = [
        bij.Coupling(KEY, transformer=bij.Affine(), untransformed_dim=1, dim=2, nn_width=4),
        bij.MaskedAutoregressive(KEY, transformer=bij.Affine(), dim=2, nn_width=4),
        bij.BlockAutoregressiveNetwork(KEY, dim=2, depth=1, block_dim=2),
        bij.AdditiveCondition(eqx.nn.Linear(3, 2, key=KEY), (2,), (3,)),
    ]
    assert np.isfinite(bij.Chain(parts).transform(jnp.ones(2), jnp.ones(3))).all()


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_a_numerical_inverse_bounds_its_largest_error_at_every_scale(scale):
    network = noisy(bij.BlockAutoregressiveNetwork(KEY, dim=3, depth=1, block_dim=3), 0.3)
    x = scale * jr.normal(KEY, (64, 3))
    y = jax.vmap(network.transform)(x)
    error = np.abs(jax.vmap(network.inverse)(y) - x)
    # What the rounding of y itself leaves open: the inverse Jacobian times its last digits.
    inverse_jacobian = np.abs(np.linalg.inv(jax.vmap(jax.jacfwd(network.transform))(x)))
    rounding = 4 * np.finfo(y.dtype).eps * np.einsum("nij,nj->ni", inverse_jacobian, np.abs(y))
    assert (error <= (1e-9 if X64 else 1e-5) * (1 + np.abs(x)) + rounding).all()


def test_the_gradient_of_a_numerical_inverse_reaches_the_condition_by_a_triangular_solve():
    network = noisy(bij.BlockAutoregressiveNetwork(KEY, dim=3, cond_dim=2, depth=1, block_dim=3), 0.3)
    y, condition = jnp.asarray([0.3, -0.2, 0.9]), jnp.asarray([0.5, -1.0])

    def inverse(condition):
        return network.inverse(y, condition)

    x = inverse(condition)
    actual = jax.jacrev(inverse)(condition)
    jacobian = jax.jacfwd(lambda x: network.transform(x, condition))(x)
    explicit = jax.jacfwd(lambda c: network.transform(x, c))(condition)
    np.testing.assert_allclose(actual, -np.linalg.solve(jacobian, explicit), atol=1e-4)
    jaxpr = str(jax.make_jaxpr(jax.jacrev(inverse))(condition))
    assert "triangular_solve" in jaxpr
    assert "= lu[" not in jaxpr


def test_an_autoregressive_network_narrower_than_the_event_connects_all_its_coordinates():
    layer = bij.MaskedAutoregressive(KEY, transformer=bij.Affine(), dim=20, nn_width=5, nn_depth=2)
    jacobian = np.asarray(jax.jacfwd(noisy(layer).transform)(jr.normal(KEY, (20,))))
    assert (jacobian[np.tril_indices(20)] != 0).all()
    assert (jacobian[np.triu_indices(20, k=1)] == 0).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_the_inverse_of_an_autoregressive_layer_costs_about_one_pass(depth):
    layer = bij.MaskedAutoregressive(KEY, transformer=bij.Affine(), dim=32, nn_width=64, nn_depth=depth)
    x = jnp.zeros((10, 32))

    def arithmetic(method):
        # Loops unrolled, since the analysis counts the body of a loop once.
        with pytest.MonkeyPatch.context() as patch:
            scan = jax.lax.scan
            patch.setattr(jax.lax, "scan", lambda *args, **options: scan(*args, **options, unroll=True))
            return dict(jax.jit(jax.vmap(method)).lower(x).cost_analysis() or {})["flops"]

    assert arithmetic(layer.inverse_and_log_det) < 4 * arithmetic(layer.transform_and_log_det)


def test_a_conditional_autoregressive_layer_of_dimension_one_depends_on_its_condition():
    layer = bij.MaskedAutoregressive(KEY, transformer=bij.Affine(), dim=1, cond_dim=2, nn_width=4, nn_depth=1)
    gradient = jax.jacrev(lambda c: noisy(layer).transform(jnp.ones(1), c))(jnp.asarray([0.3, -0.8]))
    assert (gradient != 0).all()


@pytest.mark.parametrize("edges", ["identity", "free"])
def test_the_density_of_a_spline_has_no_jump_at_the_ends_of_its_interval(edges):
    spline = noisy(bij.RationalQuadraticSpline(knots=6, interval=2.0, edges=edges))
    for end in (-2.0, 2.0):
        sides = [np.nextafter(np.asarray(end, jnp.zeros(()).dtype), to) for to in (-np.inf, np.inf)]
        below, above = (spline.transform_and_log_det(side) for side in sides)
        np.testing.assert_allclose(below, above, atol=1e-5)


def test_the_inverse_of_a_spline_is_never_nan():
    @jax.jit
    @jax.vmap
    def inverse(key):
        noise_key, y_key = jr.split(key)
        spline = bij.RationalQuadraticSpline(knots=8, interval=1.0)
        leaves, treedef = jax.tree.flatten(spline)
        noise = [3 * jr.normal(k, leaf.shape) for k, leaf in zip(jr.split(noise_key, 3), leaves, strict=True)]
        return jax.tree.unflatten(treedef, noise).inverse_and_log_det(jr.uniform(y_key, (), minval=-1.1, maxval=1.1))

    x, log_det = inverse(jr.split(KEY, 20_000))
    assert np.isfinite(x).all()
    assert np.isfinite(log_det).all()


def test_a_nan_log_density_stays_nan():
    flow = coupling_flow(KEY, base_dist=StandardNormal((2,)), flow_layers=1, nn_width=4)
    broken = eqx.tree_at(lambda f: f.bijection.bijection, flow, replace_fn=lambda b: jax.tree.map(_to_nan, b))
    assert np.isnan(broken.log_prob(jnp.ones(2)))


def _to_nan(leaf):
    return jnp.full_like(leaf, jnp.nan) if eqx.is_inexact_array(leaf) else leaf


@pytest.mark.parametrize("cond_dim", [None, 2])
def test_the_default_planar_flow_samples(cond_dim):
    flow = noisy(planar_flow(KEY, base_dist=StandardNormal((2,)), cond_dim=cond_dim, flow_layers=2))
    condition = None if cond_dim is None else jnp.ones(cond_dim)
    x, log_prob = flow.sample_and_log_prob(KEY, 50, condition)
    np.testing.assert_allclose(flow.log_prob(x, condition), log_prob, atol=1e-4)


def test_a_planar_slope_above_one_is_refused():
    with pytest.raises(ValueError, match=r"negative_slope in \(0, 1\], got 1.5"):
        bij.Planar(KEY, dim=2, negative_slope=1.5)


@pytest.mark.parametrize("slope", [None, 0.1])
def test_a_planar_layer_with_weight_zero_is_a_shift(slope):
    layer = bij.Planar(KEY, dim=2, negative_slope=slope)
    params = jnp.asarray([0.0, 0.0, 1.0, -2.0, 0.5])
    layer = eqx.tree_at(lambda p: p.params, layer, params)

    def total(layer):
        y, log_det = layer.transform_and_log_det(jnp.ones(2))
        return y.sum() + log_det

    value, gradient = eqx.filter_value_and_grad(total)(layer)
    h = np.tanh(0.5) if slope is None else 0.5
    np.testing.assert_allclose(value, 2 - h, rtol=1e-6)
    assert np.isfinite(gradient.params).all()


def test_the_log_det_of_a_power_at_zero_is_its_limit():
    assert bij.Power(2.0).transform_and_log_det(0.0)[1] == -np.inf
    assert bij.Power(0.5).transform_and_log_det(0.0)[1] == np.inf
    assert bij.Power(1.0).transform_and_log_det(0.0)[1] == 0


def test_the_gradient_of_a_leaky_tanh_is_finite_where_tanh_is_one():
    layer = bij.LeakyTanh(3.0)
    for y in (-1.0, 1.0, np.tanh(3.0)):
        gradients = jax.grad(lambda y: sum(layer.inverse_and_log_det(y)))(jnp.asarray(y))
        assert np.isfinite(gradients)


@pytest.mark.parametrize("inverse", [bij.SoftPlus().inverse_and_log_det, bij.Exp().inverse_and_log_det])
def test_a_number_that_processors_take_for_zero_is_no_positive_one(inverse):
    """A pole in value and log-det at once would give a gradient of NaN."""
    smallest = float(jnp.finfo(jnp.result_type(float)).tiny)
    for y, inside in [(smallest, True), (smallest / 8, False), (0.0, False)]:
        (x, log_det), gradient = inverse(y), jax.grad(lambda y: sum(inverse(y)))(y)
        assert np.isfinite([x, log_det]).all() == inside
        assert not np.isnan(gradient)


def test_a_scale_never_underflows():
    affine = bij.Affine(jnp.zeros(2), jnp.ones(2))
    affine = eqx.tree_at(lambda a: a.scale.args[0], affine, jnp.asarray([-1e4, -200.0]))
    _, log_det = affine.transform_and_log_det(jnp.ones(2))
    assert np.isfinite(log_det)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"scale must be positive and finite, got 0"):
        Normal(0, 0)


def test_normalised_rows_are_finite_where_the_rows_are_nearly_zero():
    flow = triangular_spline_flow(KEY, base_dist=StandardNormal((2,)), flow_layers=1)

    def raw(flow):
        return flow.bijection.bijection.bijection[0].bijection[1].triangular.args[0]

    sunk = eqx.tree_at(raw, flow, -300 * jnp.eye(2)[None])
    value, gradient = eqx.filter_value_and_grad(lambda flow: flow.log_prob(jnp.ones(2)))(sunk)
    np.testing.assert_allclose(value, StandardNormal((2,)).log_prob(jnp.ones(2)), rtol=1e-4)
    assert np.isfinite(raw(gradient)).all()


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_flows_start_at_the_identity(constructor):
    base = StandardNormal((2,))
    flow = constructor(KEY, base_dist=base)
    x = jr.normal(KEY, (200, 2))
    difference = np.abs(flow.log_prob(x) - base.log_prob(x))
    # A monotone network has no weights at which it is the identity; the rest differ by rounding.
    bound = 0.3 if constructor is block_neural_autoregressive_flow else 1e-4
    assert difference.mean() < bound


def test_the_parameters_of_a_uniform_are_plain_arrays():
    uniform = Uniform(jnp.zeros(2), jnp.ones(2))
    assert isinstance(uniform.minval, jax.Array)
    assert isinstance(uniform.loc, jax.Array)


def test_indexing_by_a_slice_works_inside_jit():
    @eqx.filter_jit
    def transform(indexed, x):
        return indexed.transform(x)

    indexed = bij.Indexed(bij.Exp((2,)), slice(1, 3), (3,))
    np.testing.assert_allclose(transform(indexed, jnp.zeros(3)), [0, 1, 1])
