"""`fit_ensemble_to_data`: many fits in one program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib.distributions import StandardNormal, VmapMixture
from flowlib.errors import NonFiniteWarning
from flowlib.flows import coupling_flow
from flowlib.train import fit_ensemble_to_data, fit_to_data

RTOL = 1e-9 if jax.config.jax_enable_x64 else 1e-4  # pyright: ignore[reportAttributeAccessIssue]
X = np.random.default_rng(0).normal(size=(120, 2)) @ [[30.0, 10.0], [0.0, 5.0]] + [1000.0, -1.0]


def make_flow(key):
    return coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=2, nn_width=6)


def fit(key, **options):
    options = {"learning_rate": 1e-2, "max_epochs": 6, "batch_size": 32, "show_progress": False, **options}
    return fit_ensemble_to_data(key, make_flow, X, **options)


def member(mixture, i):
    return jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, mixture.dist)


def test_each_member_is_what_a_fit_of_its_own_gives(key):
    mixture, losses = fit(key, members=3)
    make_key, fit_key = jr.split(key)
    for i, (own_make, own_fit) in enumerate(zip(jr.split(make_key, 3), jr.split(fit_key, 3), strict=True)):
        alone, history = fit_to_data(
            own_fit, make_flow(own_make), X, learning_rate=1e-2, max_epochs=6, batch_size=32, show_progress=False
        )
        np.testing.assert_allclose(member(mixture, i).log_prob(X), alone.log_prob(X), rtol=RTOL)
        for name in ("train", "val"):
            np.testing.assert_allclose(losses[i][name], history[name], rtol=RTOL)
        assert losses[i].report.best_epoch == history.report.best_epoch


def test_the_mixture_weighs_its_members_equally(key):
    mixture, _ = fit(key, members=3, max_epochs=2)
    assert isinstance(mixture, VmapMixture)
    each = jnp.stack([member(mixture, i).log_prob(X) for i in range(3)])
    assert not np.allclose(each[0], each[1])
    expected = jax.nn.logsumexp(each, axis=0) - np.log(3)
    np.testing.assert_allclose(mixture.log_prob(X), expected, rtol=RTOL)
    assert abs(mixture.sample(key, 500).mean(0) - X.mean(0)).max() < 10


def test_an_ensemble_keeps_to_the_support_and_to_the_weights(key):
    x = np.abs(X) + 1.0
    weights = np.arange(len(x)) % 3
    options: dict[str, Any] = {"members": 2, "max_epochs": 1, "support": "positive", "show_progress": False}
    mixture, _ = fit_ensemble_to_data(key, make_flow, x, weights=weights, **options)
    assert (mixture.sample(key, 200) > 0).all()
    fit_ensemble_to_data(key, make_flow, x, val_data=x[:7], **options)
    with pytest.raises(ValueError, match="val_data"):
        fit_ensemble_to_data(key, make_flow, x, val_data=-x[:7], **options)


def test_members_stop_by_themselves(key):
    _, losses = fit(key, members=4, max_epochs=60, max_patience=1, learning_rate=5e-2)
    lengths = [len(history["val"]) for history in losses]
    assert len(set(lengths)) > 1
    for history, length in zip(losses, lengths, strict=True):
        assert history.report.epochs == length
        assert history.report.stopped == ("patience" if length < 60 else "max_epochs")
        if history.report.stopped == "patience":
            assert history.report.best_epoch == length - 3


def test_an_ensemble_goes_on_from_its_checkpoint(key, tmp_path):
    whole, losses = fit(key, members=2)
    fit(key, members=2, max_epochs=3, checkpoint=tmp_path, checkpoint_every=2)
    resumed, resumed_losses = fit(key, members=2, checkpoint=tmp_path, checkpoint_every=2)
    assert resumed_losses == losses
    assert resumed_losses[0].report.resumed
    assert eqx.tree_equal(whole, resumed)


def test_what_is_not_finite_is_said_once(key):
    with pytest.warns(NonFiniteWarning, match=r"Of 2 members, \[0, 1\]"):
        _, losses = fit(key, members=2, learning_rate=float(jnp.finfo(jnp.result_type(float)).max) / 10)
    assert {history.report.stopped for history in losses} == {"non-finite"}


def test_bad_arguments_are_named(key):
    with pytest.raises(TypeError, match="make_dist expected to give a distribution"):
        fit_ensemble_to_data(key, lambda key: 1.0, X, show_progress=False)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="members must be an integer of at least 1"):
        fit(key, members=0)
