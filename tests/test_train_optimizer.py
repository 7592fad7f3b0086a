"""Fits with optimisers of optax: decay of weights, accumulated gradients, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flowlib.bijections import RationalQuadraticSpline
from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow, masked_autoregressive_flow
from flowlib.parameters import freeze, partition_trainable
from flowlib.train import decay_mask, fit_to_data
from train_tools import gaussian, mean_loss

X = np.random.default_rng(0).normal(size=(400, 2)) * [2.0, 0.5] + [1.0, -1.0]


def arrays(tree):
    return jax.tree.leaves(partition_trainable(tree)[0])


def by_path(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("build", [coupling_flow, masked_autoregressive_flow])
@pytest.mark.parametrize("partly_frozen", [False, True])
def test_only_weight_matrices_decay(key, build, partly_frozen):
    flow = build(
        key,
        base_dist=StandardNormal((2,)),
        flow_layers=2,
        nn_width=4,
        transformer=RationalQuadraticSpline(knots=3, interval=8),
    )
    if partly_frozen:
        frozen = freeze(flow, lambda flow: flow.bijection)
        flow = type(flow)(gaussian((1.0, 2.0)), frozen.bijection)
    optimizer = optax.chain(optax.set_to_zero(), optax.add_decayed_weights(0.5, mask=decay_mask))
    options = {"max_epochs": 1, "batch_size": 400, "val_prop": 0, "return_best": False, "show_progress": False}
    fitted, _ = fit_to_data(key, flow, X, optimizer=optimizer, standardise=False, **options)
    before, after = by_path(partition_trainable(flow)[0]), by_path(partition_trainable(fitted)[0])
    assert before.keys() == after.keys()
    decayed = {path for path in before if path.endswith(".weight")}
    assert bool(decayed) != partly_frozen
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value * (1.5 if path in decayed else 1.0), rtol=1e-6)
    assert any(np.any(before[path]) for path in before)


def test_accumulated_gradients_are_those_of_larger_batches(key):
    options = {"max_epochs": 3, "val_prop": 0, "return_best": False, "standardise": False, "show_progress": False}
    whole, _ = fit_to_data(key, gaussian(), X, optimizer=optax.sgd(0.1), batch_size=100, **options)
    steps = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    halves, losses = fit_to_data(key, gaussian(), X, optimizer=steps, batch_size=50, **options)
    assert losses.report.steps == 3 * 8
    for a, b in zip(arrays(whole), arrays(halves), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_schedule_sees_the_number_of_updates(key):
    def schedule(step):
        return jnp.where(step < 4, 0.1, 0.0)

    def fit(epochs):
        return fit_to_data(
            key, gaussian(), X, loss_fn=mean_loss, learning_rate=schedule, batch_size=200, max_epochs=epochs,
            val_prop=0, return_best=False, show_progress=False,
        )[0]  # fmt: skip

    two, five, one = arrays(fit(2)), arrays(fit(5)), arrays(fit(1))
    for a, b in zip(two, five, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(one, two, strict=True))
