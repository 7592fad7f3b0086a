"""`fit_to_key_based_loss`, `fit_to_variational_target` and `step`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from flowlib.parameters import freeze
from flowlib.train import ElboLoss, fit_to_key_based_loss, fit_to_variational_target, step
from train_tools import Regression, affine_of, gaussian, halves


def target(x):
    """100 times the density of N((1, -1), diag(2, 0.5)^2)."""
    return np.log(100) + jax.scipy.stats.norm.logpdf(x, jnp.array([1.0, -1.0]), jnp.array([2.0, 0.5])).sum()


def noisy(params, static, key):
    """Minimised by the mean of the noise, 3."""
    return (params - 3 - jr.normal(key, params.shape, params.dtype)) ** 2


def test_a_variational_fit_finds_target_and_normaliser(key):
    fitted, losses = fit_to_variational_target(
        key, gaussian(), target, steps=1500, learning_rate=0.02, num_samples=10, stick_the_landing=True,
        show_progress=False,
    )  # fmt: skip
    assert len(losses) == 1500
    assert all(type(loss) is float for loss in losses)
    np.testing.assert_allclose(affine_of(fitted).loc, [1, -1], atol=1e-3)
    assert losses[-1] == pytest.approx(-np.log(100), abs=1e-4)


def test_the_steps_equal_a_loop_by_hand(key):
    # Deterministic, so that nothing depends on how keys are drawn.
    def loss(params, static, key):
        return ((params - 3) ** 2).sum()

    fitted, losses = fit_to_key_based_loss(
        key, jnp.zeros(2), loss_fn=loss, steps=7, learning_rate=0.1, show_progress=False
    )
    params, optimizer = jnp.zeros(2), optax.adam(0.1)
    state, expected = optimizer.init(params), []
    for _ in range(7):
        params, state, value = step(params, None, optimizer=optimizer, opt_state=state, loss_fn=loss, key=key)
        expected.append(float(value))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(fitted, params, rtol=1e-5)


def test_step_differentiates_the_arrays_only_and_passes_arguments_on(key):
    def loss(params, scale, *, offset):
        return scale * (params["x"] + offset) ** 2

    optimizer = optax.sgd(0.1)
    params = {"x": jnp.array(1.0)}
    new, state, value = step(params, 2, optimizer=optimizer, opt_state=optimizer.init(params), loss_fn=loss, offset=1.0)
    assert value == 8
    assert new["x"] == pytest.approx(1 - 0.1 * 8)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(params))


def test_each_step_has_a_key_of_its_own(key):
    fitted, losses = fit_to_key_based_loss(
        key, jnp.zeros(()), loss_fn=noisy, steps=2000, learning_rate=0.0, show_progress=False
    )
    assert fitted == 0
    assert len(set(losses)) == 2000
    # The mean of (3 + noise)^2 is 10; its standard deviation over 2000 draws is 0.14.
    assert np.mean(losses) == pytest.approx(10, abs=0.6)
    again = fit_to_key_based_loss(key, jnp.zeros(()), loss_fn=noisy, steps=30, learning_rate=0.0, show_progress=False)
    assert again[1] == losses[:30]


def test_another_number_of_steps_or_rate_compiles_nothing(key, compiles):
    fit_to_variational_target(key, gaussian(), target, steps=7, num_samples=10, show_progress=False)
    flow = gaussian((2.0, 0.0))
    with compiles.expect_none():
        fit_to_variational_target(key, flow, target, steps=1000, learning_rate=0.1, num_samples=10, show_progress=False)


def test_optimisers_schedules_and_other_trees(key):
    tree = {"a": jnp.zeros(2), "b": freeze(jnp.ones(2)), "c": "static", "d": jnp.arange(2)}

    def loss(params, static, key):
        tree = eqx.combine(params, static)
        return ((tree["a"] - tree["b"].tree - tree["d"].astype(float)) ** 2).sum()

    for kwargs in [
        {"optimizer": optax.adamw(0.1, weight_decay=0.0)},
        {"optimizer": optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=100))},
        {"learning_rate": optax.piecewise_constant_schedule(0.1, {10_000: 0.1})},
        {"learning_rate": jnp.array(0.1)},
    ]:
        fitted, losses = fit_to_key_based_loss(key, tree, loss_fn=loss, steps=300, show_progress=False, **kwargs)
        np.testing.assert_allclose(fitted["a"], [1, 2], atol=1e-2)
        assert losses[0] == 5
        assert jax.tree.structure(fitted) == jax.tree.structure(tree)
    assert eqx.tree_equal((fitted["b"], fitted["d"]), (tree["b"], tree["d"]))


def test_no_steps_give_back_the_input(key):
    fitted, losses = fit_to_key_based_loss(key, jnp.ones(2), loss_fn=noisy, steps=0, show_progress=False)
    assert (fitted == 1).all()
    assert losses == []


def test_a_loss_of_ones_own_replaces_the_elbo(key):
    loss = ElboLoss(target, 10)
    kwargs = {"steps": 5, "show_progress": False}
    own = fit_to_variational_target(key, gaussian(), target, loss_fn=loss, **kwargs)
    default = fit_to_variational_target(key, gaussian(), target, num_samples=10, **kwargs)
    assert own[1] == default[1]
    assert own[1] == fit_to_key_based_loss(key, gaussian(), loss_fn=loss, **kwargs)[1]


def test_the_bar_shows_steps_and_loss(key, capsys):
    _, losses = fit_to_key_based_loss(key, jnp.zeros(()), loss_fn=noisy, steps=30)
    shown = capsys.readouterr().err
    assert "30/30" in shown
    assert f"loss={losses[-1]:.4g}" in shown


def test_bad_arguments_are_named(key):
    with pytest.raises(ValueError, match=r"an unconditional distribution, got one with conditions of shape \(\)"):
        fit_to_variational_target(key, Regression(), target, steps=5)
    with pytest.raises(ValueError, match=r"a scalar for one event of shape \(2,\), got shape \(2,\)"):
        fit_to_variational_target(key, gaussian(), lambda x: -(x**2), steps=5, show_progress=False)
    with pytest.raises(TypeError, match="expected a distribution, got tuple"):
        fit_to_variational_target(key, (1, 2), target, steps=5)
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, got -1"):
        fit_to_variational_target(key, gaussian(), target, steps=-1)
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1, got 0"):
        fit_to_variational_target(key, gaussian(), target, steps=1, num_samples=0)
    with pytest.raises(ValueError, match=r"loss_fn expected to return a scalar, got shape \(2,\)"):
        fit_to_key_based_loss(key, jnp.zeros(2), loss_fn=noisy, steps=1, show_progress=False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        fit_to_key_based_loss(key, freeze(jnp.ones(2)), loss_fn=noisy, steps=1)
    with pytest.raises(ValueError, match=r"learning_rate must be one finite number of at least 0, got -0\.1"):
        fit_to_key_based_loss(key, jnp.ones(2), loss_fn=noisy, steps=1, learning_rate=-0.1)


def test_step_is_what_the_fit_partitions(key):
    params, static = halves(freeze(gaussian(), lambda flow: affine_of(flow).loc))
    optimizer = optax.adam(0.1)
    new, _, _ = step(
        params, static, optimizer=optimizer, opt_state=optimizer.init(params), loss_fn=ElboLoss(target, 10), key=key
    )
    assert jax.tree.structure(new) == jax.tree.structure(params)
    assert eqx.tree_equal(affine_of(eqx.combine(new, static)).loc, affine_of(eqx.combine(params, static)).loc)
