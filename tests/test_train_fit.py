"""`fit_to_data`: what it computes, which rows it uses, and what it compiles."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from flowlib.bijections import Affine
from flowlib.distributions import StandardNormal, Transformed
from flowlib.errors import DataWarning
from flowlib.flows import coupling_flow
from flowlib.parameters import freeze
from flowlib.train import MaximumLikelihoodLoss, fit_to_data
from train_tools import Regression, affine_of, gaussian, halves, mean_loss

RTOL = 1e-9 if jax.config.jax_enable_x64 else 2e-5  # pyright: ignore[reportAttributeAccessIssue]
# 47 rows: 5 for validation, 42 for training in batches of 16, 16 and 10.
ROWS, N_VAL, BATCH = 47, 5, 16
X = np.random.default_rng(0).normal(size=(ROWS, 2)) * [2.0, 0.5] + [1.0, -1.0]
QUIET = {"show_progress": False, "batch_size": BATCH, "standardise": False}


def leaves(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def assert_same(tree, other, rtol=RTOL):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(leaves(tree), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


class Recorder:
    """A plain loss that also notes the rows of each batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, params, static, x, key):
        jax.debug.callback(lambda rows: self.batches.append(np.asarray(rows)), x[:, 0], ordered=True)
        return mean_loss(params, static, x, key=key)


def test_each_epoch_uses_every_row_once_and_equals_a_loop_by_hand(key):
    recorder, epochs, rate = Recorder(), 3, 0.05
    start = gaussian()
    fitted, losses = fit_to_data(
        key, start, X, loss_fn=recorder, learning_rate=rate, max_epochs=epochs, return_best=False, **QUIET
    )
    jax.effects_barrier()
    # Three training batches and one of validation in each epoch.
    assert [len(batch) for batch in recorder.batches] == [16, 16, 10, 5] * epochs
    column = X[:, 0].astype(recorder.batches[0].dtype)
    rows = [np.array([int(np.argmin(abs(column - value))) for value in batch]) for batch in recorder.batches]
    for epoch in range(epochs):
        assert sorted(np.concatenate(rows[4 * epoch : 4 * epoch + 4]).tolist()) == list(range(ROWS))
        assert set(rows[4 * epoch + 3].tolist()) == set(rows[3].tolist())
    assert rows[0].tolist() != rows[4].tolist()

    params, static = halves(start)
    optimizer = optax.adam(rate)
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        expected = {"train": [], "val": []}
        grad = eqx.filter_jit(eqx.filter_value_and_grad(mean_loss))
        for i, batch in enumerate(rows):
            loss, grads = grad(params, static, jnp.asarray(X[batch], float), key=None)
            if i % 4 == 3:
                expected["val"].append(float(loss))
                continue
            if i % 4 == 0:
                expected["train"].append(0.0)
            expected["train"][-1] += float(loss) * len(batch) / (ROWS - N_VAL)
            updates, state = optimizer.update(grads, state)
            params = eqx.apply_updates(params, updates)
    assert_same(fitted, eqx.combine(params, static))
    for name in expected:
        np.testing.assert_allclose(losses[name], expected[name], rtol=RTOL)
        assert all(type(loss) is float for loss in losses[name])


def test_rows_drawn_with_a_part_of_the_same_key_are_shuffled_all_the_same(key):
    # Sorting the bits that made them would put the largest 50 into the validation set.
    x = jr.normal(jr.split(key)[0], (500, 1), float)
    seen = []

    def loss(params, static, x, key):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), x[:, 0], ordered=True)
        return mean_loss(params, static, x, key=key)

    start = Transformed(StandardNormal((1,)), Affine(jnp.zeros(1), jnp.ones(1)))
    fit_to_data(key, start, x, loss_fn=loss, max_epochs=1, batch_size=500, show_progress=False)
    jax.effects_barrier()
    assert [len(rows) for rows in seen] == [450, 50]
    # The standard error is 0.15; the mean of the largest tenth is 1.75.
    assert abs(seen[1].mean() - seen[0].mean()) < 0.6


def test_filled_up_batches_give_what_smaller_ones_give(key):
    # The same key means the same batches; a loss by row pads the third one, a plain loss compiles it by itself.
    by_row = fit_to_data(key, gaussian(), X, loss_fn=MaximumLikelihoodLoss(), max_epochs=3, learning_rate=0.1, **QUIET)
    plain = fit_to_data(key, gaussian(), X, loss_fn=mean_loss, max_epochs=3, learning_rate=0.1, **QUIET)
    assert_same(by_row[0], plain[0])
    for name in ("train", "val"):
        np.testing.assert_allclose(by_row[1][name], plain[1][name], rtol=RTOL)


def test_the_fit_finds_the_maximum_of_the_likelihood(key):
    fitted, losses = fit_to_data(
        key, gaussian(), X, learning_rate=0.02, max_epochs=1000, val_prop=0, batch_size=ROWS, show_progress=False,
        standardise=False,
        max_patience=100,
    )  # fmt: skip
    np.testing.assert_allclose(affine_of(fitted).loc, X.mean(0), atol=1e-3)
    z = fitted.to_base(jnp.asarray(X, float))
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)
    entropy = np.log(2 * np.pi * np.e) + np.log(X.std(0)).sum()
    assert min(losses["train"]) == pytest.approx(entropy, abs=1e-4)
    assert losses["val"] == []


def test_a_conditional_fit_is_least_squares(key):
    rng = np.random.default_rng(1)
    c = rng.normal(size=200)
    y = 1.5 * c + rng.normal(size=200)
    fitted, _ = fit_to_data(
        key, Regression(), (y, c), learning_rate=0.1, max_epochs=200, max_patience=200, val_prop=0, batch_size=200,
        show_progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.weight, (c * y).sum() / (c * c).sum(), atol=1e-3)


def test_a_second_fit_of_a_flow_built_anew_compiles_nothing(key, compiles):
    def build(key):
        return coupling_flow(key, base_dist=StandardNormal((2,)), cond_dim=1, flow_layers=2, nn_width=5)

    data = jnp.asarray(X, float), jnp.asarray(X[:, :1], float)
    fit_to_data(key, build(key), data, max_epochs=2, **QUIET)
    flow = build(jr.key(1))
    with compiles.expect_none():
        _, losses = fit_to_data(
            key, flow, data, max_epochs=50, max_patience=50, learning_rate=0.01, return_best=False, **QUIET
        )
    assert len(losses["train"]) == 50
    assert losses["train"][-1] < losses["train"][0]


def test_optimisers_and_schedules_are_told_apart_by_identity(key, compiles):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))
    schedule = optax.cosine_decay_schedule(0.05, 100)
    x = jnp.asarray(X, float)
    arguments = [{"optimizer": optimizer}, {"learning_rate": schedule}]
    first = [fit_to_data(key, gaussian(), x, max_epochs=2, **arg, **QUIET)[1] for arg in arguments]
    with compiles.expect_none():
        again = [fit_to_data(key, gaussian(), x, max_epochs=2, **arg, **QUIET)[1] for arg in arguments]
    assert first == again
    # The schedule falls slowly: two epochs of it are nearly those of its first rate.
    constant = fit_to_data(key, gaussian(), x, max_epochs=2, learning_rate=0.05, **QUIET)[1]
    np.testing.assert_allclose(first[1]["train"], constant["train"], rtol=1e-2)
    assert first[1] != constant


def test_the_number_of_epochs_does_not_change_what_an_epoch_computes(key):
    kwargs = {"learning_rate": 0.1, "max_patience": 100, **QUIET}
    short = fit_to_data(key, gaussian(), X, max_epochs=7, **kwargs)[1]
    long = fit_to_data(key, gaussian(), X, max_epochs=40, **kwargs)[1]
    assert {name: values[:7] for name, values in long.items()} == short
    legacy = fit_to_data(jr.PRNGKey(0), gaussian(), X, max_epochs=7, **kwargs)[1]
    assert legacy == fit_to_data(jr.key(0), gaussian(), X, max_epochs=7, **kwargs)[1]


def test_patience_and_the_best_parameters(key):
    # With this rate the loss soon goes up and down.
    kwargs = {"learning_rate": 1.0, "max_epochs": 200, "max_patience": 3, **QUIET}
    best, losses = fit_to_data(key, gaussian(), X, **kwargs)
    last, _ = fit_to_data(key, gaussian(), X, return_best=False, **kwargs)
    at = int(np.argmin(losses["val"]))
    assert len(losses["val"]) - 1 - at == 4
    truncated, _ = fit_to_data(key, gaussian(), X, return_best=False, **{**kwargs, "max_epochs": at + 1})
    assert eqx.tree_equal(best, truncated)
    assert not eqx.tree_equal(best, last)
    endless = fit_to_data(key, gaussian(), X, **{**kwargs, "max_patience": np.inf, "max_epochs": 60})[1]
    assert len(endless["val"]) == 60


def test_without_validation_best_means_training_loss(key):
    kwargs = {"learning_rate": 1.0, "max_epochs": 30, "max_patience": 100, "val_prop": 0, **QUIET}
    best, losses = fit_to_data(key, gaussian(), X, **kwargs)
    assert losses["val"] == []
    at = int(np.argmin(losses["train"]))
    truncated, _ = fit_to_data(key, gaussian(), X, return_best=False, **{**kwargs, "max_epochs": at + 1})
    assert eqx.tree_equal(best, truncated)


@pytest.mark.parametrize(("rows", "n_val"), [(1, 0), (2, 1), (4, 1)])
def test_a_few_rows_are_enough(key, rows, n_val):
    expected = pytest.warns(DataWarning, match="a single row") if rows == 1 else contextlib.nullcontext()
    with expected:
        _, losses = fit_to_data(key, gaussian(), X[:rows], max_epochs=2, show_progress=False)
    assert len(losses["train"]) == 2
    assert len(losses["val"]) == (2 if n_val else 0)


def test_frozen_leaves_and_the_structure_stay(key):
    start = freeze(gaussian((0.1, 0.2)), lambda flow: affine_of(flow).loc)
    before = jax.tree.map(np.array, leaves(start))
    fitted, _ = fit_to_data(key, start, X, max_epochs=3, learning_rate=0.1, **QUIET)
    assert jax.tree.structure(fitted) == jax.tree.structure(start)
    assert [leaf.dtype for leaf in leaves(fitted)] == [leaf.dtype for leaf in leaves(start)]
    assert eqx.tree_equal(affine_of(fitted).loc, affine_of(start).loc)
    assert not eqx.tree_equal(affine_of(fitted).scale, affine_of(start).scale)
    # The flow that was given is neither changed nor consumed.
    assert all(np.array_equal(a, b) for a, b in zip(leaves(start), before, strict=True))
    none, losses = fit_to_data(key, start, X, max_epochs=0, **QUIET)
    assert eqx.tree_equal(none, start)
    assert losses == {"train": [], "val": []}


def test_other_trees_and_other_numbers_of_arrays_can_be_fitted(key):
    def loss(params, static, x, labels, weights, key):
        model = eqx.combine(params, static)
        assert jnp.issubdtype(labels.dtype, jnp.integer)
        return (weights * (x - model["means"][labels]) ** 2).mean()

    labels = np.arange(ROWS) % 3
    weights = np.ones(ROWS, np.float32)
    tree = {"means": jnp.zeros(3), "name": "a static leaf"}
    fitted, _ = fit_to_data(
        key, tree, (X[:, 0], labels, weights), loss_fn=loss, learning_rate=0.1, max_epochs=300, val_prop=0,
        batch_size=ROWS, show_progress=False, max_patience=20,
    )  # fmt: skip
    np.testing.assert_allclose(fitted["means"], [X[labels == i, 0].mean() for i in range(3)], atol=1e-2)


def test_the_bar_shows_epochs_losses_and_patience(key, capsys):
    _, losses = fit_to_data(key, gaussian(), X, max_epochs=3, batch_size=BATCH)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert f"train={losses['train'][-1]:.4g}" in shown
    assert f"val={losses['val'][-1]:.4g}" in shown
    assert "patience=0/5" in shown
    fit_to_data(key, gaussian(), X, max_epochs=3, **QUIET)
    assert capsys.readouterr().err == ""
