"""`Scan(gradient=...)`: equal gradients, memory, and the report of drift."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows
from flowlib.bijections import (
    Affine,
    BlockAutoregressiveNetwork,
    Coupling,
    Gradient,
    Invert,
    MaskedAutoregressive,
    NumericalInverse,
    Planar,
    RationalQuadraticSpline,
    Scan,
    rebuild_drift,
)
from flowlib.distributions import StandardNormal
from flowlib.tasks import two_moons
from flowlib.train import fit_to_data
from registry import only_in_full

GRADIENTS: tuple[Gradient, ...] = ("store", "recompute", "rebuild")
SPLINE = RationalQuadraticSpline(knots=8, interval=4.0)


def deep_flow(gradient, *, layers=20, dim=2, **options):
    base_dist = StandardNormal((dim,))
    return flows.coupling_flow(
        jr.key(0), base_dist=base_dist, flow_layers=layers, nn_width=16, gradient=gradient, **options
    )


def with_gradient(flow, gradient):
    """The same flow, differentiated in another way."""

    def is_scan(node):
        return isinstance(node, Scan)

    def change(node):
        return Scan(node.bijection, gradient=gradient) if is_scan(node) else node

    return jax.tree.map(change, flow, is_leaf=is_scan)


def with_noise(flow, scale):
    def add(leaf):
        return leaf + scale * jr.normal(jr.key(3), leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(add, flow)


def gradients(flow, *args, method="log_prob"):
    params, static = eqx.partition(flow, eqx.is_inexact_array)

    def loss(params, *args):
        flow = eqx.combine(params, static)
        return flow.log_prob(*args).mean() if method == "log_prob" else (flow.from_base(*args) ** 2).mean()

    return jax.jit(jax.grad(loss, argnums=tuple(range(1 + len(args)))))(params, *args)


def largest_difference(found, wanted):
    """Of the leaves of two trees, relative to the norm of each leaf."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) + 1e-6)) for a, b in pairs)


@pytest.mark.parametrize("method", ["log_prob", "from_base"])
@pytest.mark.parametrize("invert", [True, False])
def test_all_three_give_one_gradient_with_and_without_a_condition(method, invert):
    x, condition = jr.normal(jr.key(1), (40, 2)), jr.normal(jr.key(2), (40, 3))
    for cond_dim, args in ((None, (x,)), (3, (x, condition))):
        flow = with_noise(deep_flow("store", cond_dim=cond_dim, invert=invert), 0.03)
        wanted = gradients(flow, *args, method=method)
        assert jnp.linalg.norm(wanted[-1]) > 0, "nothing depends on the last argument"
        for gradient in ("recompute", "rebuild"):
            found = gradients(with_gradient(flow, gradient), *args, method=method)
            assert largest_difference(found, wanted) < 1e-3, gradient


@pytest.mark.parametrize(
    ("toy", "transformer"),
    [
        pytest.param("two moons", SPLINE, id="two moons-spline"),
        pytest.param("ring", None, id="ring-affine"),
        pytest.param("two moons", None, id="two moons-affine", marks=only_in_full),
        pytest.param("ring", SPLINE, id="ring-spline", marks=only_in_full),
    ],
)
def test_rebuilt_gradients_of_flows_fitted_to_toy_sets_are_those_of_stored_ones(transformer, toy):
    key = jr.key(0)
    if toy == "two moons":
        x = two_moons(key, 1000)
    else:
        angle, noise = jr.uniform(key, (1000,), maxval=2 * jnp.pi), 0.1 * jr.normal(jr.key(1), (1000, 2))
        x = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) + noise
    flow = flows.coupling_flow(
        key, base_dist=StandardNormal((2,)), transformer=transformer, flow_layers=16, nn_width=20, gradient="rebuild"
    )
    before = flow.log_prob(x).mean()
    flow, _ = fit_to_data(key, flow, x, max_epochs=8, learning_rate=3e-3, show_progress=False)
    assert flow.log_prob(x).mean() > before + 0.3, "the flow has learnt nothing"
    wanted = gradients(with_gradient(flow, "store"), x)
    assert largest_difference(gradients(flow, x), wanted) < 1e-3
    assert rebuild_drift(Invert(flow.bijection), x).max() < 1e-3


def test_memory_grows_with_the_layers_when_activations_are_stored_and_not_when_they_are_rebuilt():
    x = jnp.zeros((2000, 2))

    def needed(gradient, layers):
        params, static = eqx.partition(deep_flow(gradient, layers=layers, transformer=SPLINE), eqx.is_inexact_array)
        program = jax.jit(jax.grad(lambda params: eqx.combine(params, static).log_prob(x).mean()))
        analysis = program.lower(params).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    deep = {gradient: needed(gradient, 64) for gradient in GRADIENTS}
    assert deep["store"] > 6 * needed("store", 8)
    assert deep["rebuild"] < 1.2 * needed("rebuild", 8)
    assert deep["rebuild"] < deep["recompute"] < deep["store"] / 4


def lossy_flow_and_rows():
    """A flow too badly conditioned for float32, whatever the precision of the run."""
    flow = with_noise(deep_flow("rebuild", dim=4, transformer=SPLINE), 0.2)
    x = jr.normal(jr.key(2), (100, 4))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, (flow, x))


def test_the_drift_report_warns_of_layers_that_lose_their_inputs():
    flow, x = lossy_flow_and_rows()
    with pytest.warns(UserWarning, match=r'gradients drift by .* at layer \d+ of 20 .* Use gradient="recompute"'):
        drifts = rebuild_drift(Invert(flow.bijection), x)
    assert drifts.shape == (20,)
    assert 1e-3 < drifts.max() < jnp.inf
    # Later layers are rebuilt first; the input of every eighth is kept, so that errors begin anew.
    np.testing.assert_array_less(drifts[jnp.array([7, 15, 19])], 1e-3)
    wanted = gradients(with_gradient(flow, "store"), x)
    assert largest_difference(gradients(flow, x), wanted) > 1e-3, "warned without need"


def test_a_fit_warns_when_its_gradients_were_off():
    flow, x = lossy_flow_and_rows()
    with pytest.warns(UserWarning, match="Inputs rebuilt for gradients drift"):
        fit_to_data(jr.key(3), flow, x, max_epochs=1, learning_rate=1e-8, show_progress=False)


def test_a_fit_with_arrays_of_its_own_kind_is_not_asked_for_its_drift():
    def loss(params, static, x, weights, shift, *, key=None):
        return -(weights * eqx.combine(params, static).log_prob(x + shift)).mean()

    x = jr.normal(jr.key(0), (20, 2))
    data = (x, jnp.ones(20), jnp.zeros((20, 1)))
    fit_to_data(jr.key(1), deep_flow("rebuild", layers=2), data, loss_fn=loss, max_epochs=1, show_progress=False)


def test_the_drift_of_a_conditional_flow_under_an_embedding():
    flow = deep_flow(
        "rebuild", layers=3, cond_dim=2, raw_cond_shape=(), embedding=eqx.nn.Embedding(4, 2, key=jr.key(0))
    )
    labels = jnp.arange(10) % 4
    assert rebuild_drift(Invert(flow.bijection), jr.normal(jr.key(1), (10, 2)), labels).shape == (3,)


def test_nothing_drifts_where_nothing_is_rebuilt():
    assert rebuild_drift(deep_flow("store").bijection, jnp.zeros((3, 2))).shape == (0,)


def test_rebuilding_is_refused_where_a_direction_is_not_analytic_and_cheap(key):
    def stack(make):
        return eqx.filter_vmap(make)(jr.split(key, 2))

    costly = {
        "MaskedAutoregressive": lambda key: MaskedAutoregressive(key, transformer=Affine(), dim=2),
        "BlockAutoregressiveNetwork": lambda key: BlockAutoregressiveNetwork(key, dim=2, depth=1, block_dim=2),
        "Planar": lambda key: Planar(key, dim=2),
        "NumericalInverse": lambda key: Coupling(
            key, transformer=NumericalInverse(Affine(), triangular=True), untransformed_dim=1, dim=2
        ),
    }
    for name, make in costly.items():
        with pytest.raises(ValueError, match=rf'cannot rebuild the inputs of {name}.*Use gradient="recompute"'):
            Scan(stack(make), gradient="rebuild")
        assert Scan(stack(make), gradient="recompute").gradient == "recompute"
    Scan(stack(lambda key: Planar(key, dim=2, negative_slope=0.1)), gradient="rebuild")
    with pytest.raises(ValueError, match="MaskedAutoregressive"):
        flows.masked_autoregressive_flow(key, base_dist=StandardNormal((2,)), gradient="rebuild")


def test_an_unknown_gradient_is_refused(key, unchecked_annotations):
    with pytest.raises(ValueError, match=r"expected gradient to be one of .*'rebuild'.*, got 'reverse'"):
        flows.coupling_flow(key, base_dist=StandardNormal((2,)), gradient="reverse")  # pyright: ignore[reportArgumentType]


def test_rebuilding_is_for_reverse_mode_only():
    flow = deep_flow("rebuild", layers=2)
    with pytest.raises(TypeError, match=r"reverse mode only.*Use gradient=.store"):
        jax.jacfwd(flow.log_prob)(jnp.zeros(2))
