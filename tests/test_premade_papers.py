"""What the flows named after their papers promise beyond the contract, and the mixing between layers of all."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows, init_from_data
from flowlib.bijections import HouseholderProduct, InvertibleLinear, QRLinear, Rotation, SVDLinear
from flowlib.distributions import StandardNormal
from flowlib.parameters import partition_trainable

KEY = jr.key(0)
X64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
SMALL = {"nn_width": 5, "nn_activation": jnp.tanh}


def noisy(tree, scale=0.3, seed=1):
    """Noise on every floating array that trains."""
    rng = np.random.default_rng(seed)

    def move(leaf):
        return leaf + jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    params, static = partition_trainable(tree)
    return eqx.combine(jax.tree.map(move, params), static)


def normal(dim):
    return StandardNormal((dim,))


@pytest.mark.parametrize("flow_layers", [1, 2, 3])
@pytest.mark.parametrize("mixing", ["permutation", "reverse", "linear"])
def test_mixing_is_undone_after_any_number_of_layers(mixing, flow_layers):
    for dim in (2, 5):
        flow = flows.coupling_flow(KEY, base_dist=normal(dim), mixing=mixing, flow_layers=flow_layers, **SMALL)
        x = jr.normal(KEY, (7, dim))
        np.testing.assert_allclose(flow.to_base(x), x, atol=1e-5)
        np.testing.assert_allclose(flow.log_prob(x), flow.base_dist.log_prob(x), rtol=1e-5)


@pytest.mark.parametrize(("mixing", "flow_layers"), [("reverse", 3), ("permutation", 6), ("linear", 2)])
def test_mixing_lets_every_coordinate_depend_on_every_other(mixing, flow_layers):
    flow = flows.coupling_flow(KEY, base_dist=normal(4), mixing=mixing, flow_layers=flow_layers, **SMALL)
    jacobian = np.asarray(jax.jacfwd(noisy(flow).to_base)(jr.normal(KEY, (4,))))
    assert (np.abs(jacobian) > 1e-7).all()


@pytest.mark.parametrize(
    ("mixing", "kind", "dim"),
    [
        ("lu", InvertibleLinear, 3),
        ("qr", QRLinear, 3),
        ("svd", SVDLinear, 2),
        ("householder", HouseholderProduct, 5),
        ("rotation", Rotation, 2),
    ],
)
def test_a_matrix_beside_the_permutations_starts_as_the_identity_and_is_trained(mixing, kind, dim):
    """One stands before each layer, and one at the end."""
    flow = flows.coupling_flow(KEY, base_dist=normal(dim), mixing=mixing, flow_layers=3, **SMALL)
    scan, *_, last = flow.bijection.bijection.bijection  # pyright: ignore
    assert type(scan.bijection[0]) is type(last) is kind
    x, weights = jr.normal(jr.key(1), (2, 7, dim))
    arrays, rest = eqx.partition(flow, eqx.is_inexact_array)

    def weighted(arrays):
        z = eqx.combine(arrays, rest).to_base(x)
        return (weights * z).sum(), z

    grads, z = jax.grad(weighted, has_aux=True)(arrays)
    np.testing.assert_allclose(z, x, atol=1e-5)
    scan, *_, last = grads.bijection.bijection.bijection
    for part in (scan.bijection[0], last):
        assert all((np.abs(grad) > 1e-6).any() for grad in jax.tree.leaves(part))


def test_linear_mixing_starts_with_another_rotation_in_each_layer():
    flow = flows.coupling_flow(KEY, base_dist=normal(3), mixing="linear", flow_layers=3, **SMALL)
    scan = flow.bijection.bijection.bijection[0]  # pyright: ignore
    matrices = np.stack([layer[0].matrix for layer in scan])
    assert all(isinstance(layer[0], InvertibleLinear) for layer in scan)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-5)
    assert np.abs(matrices[:, None] - matrices[None]).max((2, 3))[np.triu_indices(3, 1)].min() > 0.1


def test_nice_changes_volume_by_its_scaling_alone():
    flow = noisy(flows.nice(KEY, base_dist=normal(5), **SMALL))
    x = 3 * jr.normal(KEY, (20, 5))
    change = flow.log_prob(x) - flow.base_dist.log_prob(flow.to_base(x))
    np.testing.assert_allclose(change, change[0], atol=1e-4)
    assert abs(change[0]) > 0.01
    # The couplings do more than shift.
    jacobian = np.asarray(jax.vmap(jax.jacfwd(flow.to_base))(x))
    assert jacobian.std(0).max() > 0.01


def test_nice_in_one_dimension_is_a_scaling_and_a_shift_by_the_condition():
    flow = noisy(flows.nice(KEY, base_dist=normal(1), cond_dim=2, **SMALL))
    slope = jax.vmap(jax.jacfwd(flow.to_base), (0, 0))(jr.normal(KEY, (20, 1)), jr.normal(jr.key(1), (20, 2)))
    np.testing.assert_allclose(slope, slope[0, 0, 0], rtol=1e-5)
    shifts = flow.to_base(jnp.zeros((20, 1)), jr.normal(jr.key(1), (20, 2)))
    assert len(np.unique(shifts)) == 20


@pytest.mark.parametrize("act_norm", [True, False])
def test_realnvp_is_normalised_by_data_where_it_is_to_be(act_norm):
    x = np.random.default_rng(0).normal([3.0, -2.0, 50.0], [0.1, 2.0, 7.0], (200, 3))
    flow = flows.realnvp(KEY, base_dist=normal(3), act_norm=act_norm, flow_layers=3, **SMALL)
    z = init_from_data(flow, x).to_base(x)
    mean, deviation = ([0, 0, 0], [1, 1, 1]) if act_norm else (x.mean(0), x.std(0))
    np.testing.assert_allclose(z.mean(0), mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(z.std(0), deviation, rtol=1e-3)


def test_an_inverse_autoregressive_flow_is_a_masked_one_turned_around():
    masked = flows.masked_autoregressive_flow(KEY, base_dist=normal(3), mixing="reverse", **SMALL)
    inverse = flows.inverse_autoregressive_flow(KEY, base_dist=normal(3), **SMALL)
    x = jr.normal(KEY, (7, 3))
    np.testing.assert_allclose(noisy(inverse).from_base(x), noisy(masked).to_base(x), rtol=1e-5, atol=1e-6)


def test_an_inverse_autoregressive_flow_samples_without_a_loop_over_coordinates():
    flow = flows.inverse_autoregressive_flow(KEY, base_dist=normal(3), **SMALL)
    x = jnp.zeros((7, 3))
    loops = [str(jax.make_jaxpr(method)(x)).count("scan[") for method in (flow.from_base, flow.to_base)]
    # One over layers, and inside of it one over coordinates.
    assert loops == [1, 2]


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_the_splines_of_a_neural_spline_flow_have_one_bin_more_than_knots(kind):
    flow = flows.neural_spline_flow(KEY, base_dist=normal(2), kind=kind, knots=7, flow_layers=1, **SMALL)
    template = flow.bijection.bijection.bijection[0][0][1].transformers.templates[0]  # pyright: ignore
    assert template.skeleton.widths.shape == template.skeleton.heights.shape == (8,)


def test_a_neural_spline_flow_is_linear_where_its_coordinates_are_far_out():
    flow = noisy(flows.neural_spline_flow(KEY, base_dist=normal(1), interval=3.0, flow_layers=2, **SMALL))
    x = jnp.asarray([[-100.0], [-3.0], [3.0], [1e6]])
    np.testing.assert_allclose(flow.to_base(x), x, rtol=1e-6)
