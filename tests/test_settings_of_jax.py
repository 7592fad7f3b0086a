"""Settings of JAX that are there to find the user's mistakes do not stop flowlib."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import flowlib.bijections as bij
import flowlib.distributions as dst
import flowlib.flows as flows
from flowlib.train import fit_ensemble_to_data, fit_to_data, fit_to_variational_target

KEY = jr.key(0)
BASE = dst.StandardNormal((2,))
X = np.random.default_rng(0).normal(3, 2, (60, 2))
QUIET: Any = {"max_epochs": 1, "show_progress": False, "batch_size": 30}


def small(key=KEY):
    return flows.coupling_flow(key, base_dist=BASE, flow_layers=1, nn_width=3)


@pytest.fixture(params=["debug_nans", "rank_promotion"])
def setting(request):
    if request.param == "debug_nans":
        with jax.debug_nans(True):
            yield
    else:
        with jax.numpy_rank_promotion("raise"):
            yield


@pytest.mark.usefixtures("setting")
def test_fits_run_under_the_settings():
    for options in ({}, {"val_prop": 0.0}):
        flow, losses = fit_to_data(KEY, small(), X, **options, **QUIET)
        assert np.isfinite(losses["train"]).all()
    flow, losses = fit_to_data(
        KEY, small(), lambda: (X[i : i + 30] for i in (0, 30)), max_epochs=1, show_progress=False
    )
    assert np.isfinite(losses["train"]).all()
    _, losses = fit_ensemble_to_data(KEY, small, X, members=2, **QUIET)
    assert np.isfinite([member["val"] for member in losses]).all()
    each: Any = ({}, {"return_best": True})
    for options in each:
        _, losses = fit_to_variational_target(
            KEY, small(), lambda x: -x @ x, steps=2, num_samples=4, show_progress=False, **options
        )
        assert np.isfinite(losses).all()
    assert np.isfinite(flow.log_prob(X)).all()
    assert np.isfinite(flow.sample(KEY, 3)).all()


@pytest.mark.usefixtures("setting")
def test_densities_off_the_support_under_the_settings():
    for dist, outside in (
        (dst.Gamma(np.full(2, 2.0), np.ones(2)), [-1.0, 2.0]),
        (dst.Beta(np.full(2, 2.0), np.ones(2)), [0.5, 3.0]),
        (dst.Uniform(np.zeros(2), 1.0), [0.5, 2.0]),
        (dst.LogNormal(np.zeros(2), 1.0), [0.5, -2.0]),
        (dst.VonMises(np.zeros(2), 1.0), [0.5, np.inf]),
        (dst.Dirichlet(np.ones(2)), [0.5, 0.6]),
        (dst.UniformSphere(2), [0.5, 0.6]),
        (dst.Mixture([dst.Uniform(np.zeros(2), 1.0), dst.Gamma(np.ones(2), 1.0)]), [-0.5, 0.6]),
        (dst.Transformed(BASE, bij.ToSupport(["positive", (0, 1)])), [1.0, 1.5]),
    ):
        x = np.array([outside], jnp.result_type(float))
        assert np.isneginf(dist.log_prob(x)).all(), dist
        np.testing.assert_array_equal(jax.vmap(jax.grad(dist.log_prob))(x), 0)


def test_constructors_and_directions_under_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        for flow in (
            flows.neural_spline_flow(KEY, base_dist=BASE, flow_layers=1, nn_width=3, gradient="rebuild"),
            flows.block_neural_autoregressive_flow(KEY, base_dist=BASE, nn_block_dim=2),
            flows.circular_spline_flow(KEY, dim=2, flow_layers=1, nn_width=3),
            flows.simplex_flow(KEY, dim=3, flow_layers=1, nn_width=3),
            dst.Transformed(BASE, bij.MonotoneNetwork(2, 1, (2,))),
            flows.glow(KEY, shape=(1, 4, 4), n_levels=1, n_steps=1, nn_width=3),
            dst.Transformed(BASE, bij.BlockAutoregressiveNetwork(KEY, dim=2, depth=1, block_dim=2)),
            dst.VmapMixture(eqx.filter_vmap(dst.Exponential)(jnp.ones((3, 2))), jnp.ones(3)),
            dst.Truncated(dst.Normal(np.zeros(2), 1.0), -1.0, 1.0),
        ):
            x = jnp.full((2, *flow.shape), 1 / flow.shape[0], float)
            # Traced, and not compiled.
            if isinstance(flow, dst.AbstractDistribution):
                jax.eval_shape(lambda x, flow=flow: jax.grad(lambda x: flow.log_prob(x).sum())(x), x)
            jax.eval_shape(lambda key, flow=flow: flow.sample(key, 2), KEY)
        jax.eval_shape(lambda: dst.Truncated(dst.Normal(np.zeros(2), 1.0), -1.0, 1.0).variance)
        jax.eval_shape(lambda: dst.kl_divergence(dst.Normal(np.zeros(2)), dst.Laplace(np.zeros(2)), key=KEY).value)


def test_rows_split_over_an_explicit_axis_want_a_mesh():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    x = jax.device_put(X.astype(np.float32), NamedSharding(mesh, P("rows")))
    wanted = r"data is split over the Explicit mesh axes \('rows',\): give its mesh, fit_to_data\(\.\.\., mesh=mesh\)"
    with pytest.raises(ValueError, match=wanted):
        fit_to_data(KEY, small(), x, **QUIET)
    conditional = flows.coupling_flow(KEY, base_dist=BASE, cond_dim=2, flow_layers=1, nn_width=3)
    with pytest.raises(ValueError, match=r"data\[1\] is split over the Explicit mesh axes"):
        fit_to_data(KEY, conditional, (X, x), **QUIET)
    with pytest.raises(ValueError, match=r"data is split .*an ensemble takes them whole"):
        fit_ensemble_to_data(KEY, small, x, members=2, **QUIET)
    _, losses = fit_to_data(KEY, small(), x, mesh=mesh, **QUIET)
    assert np.isfinite(losses["train"]).all()
