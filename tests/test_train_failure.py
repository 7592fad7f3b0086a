"""Fits that go wrong: losses and updates that are not finite, interruptions."""

import re
import signal
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flowlib.errors import NonFiniteWarning
from flowlib.train import fit_to_data, fit_to_key_based_loss
from flowlib.train._progress import Interrupts, Progress
from train_tools import Counter, gaussian

# 20 rows: 4 for validation, and 16 for training in 4 batches of 4.
DATA = np.zeros(20)
KWARGS = {"optimizer": optax.sgd(1.0), "batch_size": 4, "val_prop": 0.2, "max_epochs": 5, "show_progress": False}


class FailAt(eqx.Module):
    """-n, so that gradient descent counts steps; but something breaks once n has reached `at`, a number or an array."""

    at: jax.Array
    how: str = eqx.field(static=True)

    def __init__(self, at, how):
        self.at = jnp.asarray(at, float)
        self.how = how

    def __call__(self, params, static, *arrays, key):
        n = eqx.combine(params, static).n
        reached = n >= self.at
        if self.how == "gradient":
            # Zero, with an infinite slope.
            return -n + jnp.where(reached, jnp.sqrt(jnp.abs(n - self.at)), 0.0)
        if self.how.startswith("validation"):
            bad = float(self.how.split()[1])
            return jnp.where(reached, bad, -n) if len(arrays[0]) == 3 else -n
        return jnp.where(reached, float(self.how), -n) if self.how in ("nan", "inf", "-inf") else -n


def fit(key, at, how, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted, losses = fit_to_data(key, Counter(), DATA, loss_fn=FailAt(at, how), **{**KWARGS, **kwargs})
    (warning,) = caught
    assert warning.category is NonFiniteWarning
    assert np.array_equal(fitted.frozen, Counter().frozen)
    return float(fitted.n), losses, str(warning.message)


@pytest.mark.parametrize("how", ["nan", "inf", "-inf", "gradient"])
def test_the_fit_stops_at_the_step_that_is_not_finite(key, how):
    # Step 10 is the third one of epoch 2. Epochs 0 and 1 ended at 4 and 8.
    best, losses, message = fit(key, 10, how)
    assert best == 8
    assert "step 2 of epoch 2 (counted from zero)" in message
    assert ("update" if how == "gradient" else f"loss became {how} at") in message
    assert losses["train"][:2] == [-1.5, -5.5]
    assert losses["val"][:2] == [-4, -8]
    assert len(losses["train"]) == len(losses["val"]) == 3
    np.testing.assert_equal(losses["train"][2], -9.0 if how == "gradient" else float(how))
    assert "best parameters" in message
    assert fit(key, 10, how, return_best=False)[0] == 10


def test_the_input_comes_back_if_the_first_step_fails(key):
    for kwargs in [{}, {"return_best": False}]:
        n, losses, message = fit(key, 0, "nan", **kwargs)
        assert n == 0
        assert len(losses["train"]) == 1
        assert "step 0 of epoch 0" in message


def test_a_failure_in_the_first_epoch_keeps_what_was_reached(key):
    # Without validation, the loss of the steps made speaks for the parameters; with it, their validation loss
    # must be finite.
    assert fit(key, 3, "inf", val_prop=0)[0] == 3
    assert fit(key, 0, "inf", val_prop=0)[0] == 0
    assert fit(key, 3, "gradient")[0] == 3
    assert fit(key, 3, "inf")[0] == 0


@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_validation_loss_that_is_not_finite_stops_the_fit(key, value):
    n, losses, message = fit(key, 8, f"validation {value}", val_prop=0.15)
    # 17 rows for training are 5 steps: epochs end at 5 and 10.
    assert n == 5
    assert f"validation loss became {value} after epoch 1 (counted from zero) and 10 steps" in message
    np.testing.assert_array_equal(losses["val"], [-5, float(value)])


def test_a_nan_model_is_never_the_best_one(key):
    # FlowJAX: infinity is the least of nothing but infinities, and a NaN model comes back.
    broken = gaussian((10 * float(jnp.finfo(jnp.result_type(float)).max) ** 0.5, 0.0))
    with pytest.warns(NonFiniteWarning, match="step 0 of epoch 0"):
        flow, losses = fit_to_data(
            key,
            broken,
            np.random.default_rng(0).normal(size=(20, 2)),
            batch_size=4,
            max_epochs=3,
            standardise=False,
            show_progress=False,
        )
    assert eqx.tree_equal(flow, broken)
    assert not np.isfinite(losses["train"]).any()


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_a_loss_without_data_stops_likewise(key, how):
    with pytest.warns(NonFiniteWarning, match=re.escape("at step 37 (counted from zero)")):
        fitted, losses = fit_to_key_based_loss(
            key, Counter(), loss_fn=FailAt(37, how), steps=100, optimizer=KWARGS["optimizer"], show_progress=False
        )
    assert fitted.n == 37
    np.testing.assert_array_equal(losses, [*(-np.arange(37.0)), np.nan if how == "nan" else -37.0])


class InterruptAt:
    """Replaces `Progress.show`, with a Ctrl-C once so much is done."""

    def __init__(self, done):
        self.done, self.seen = done, 0

    def __call__(self, done, **values):
        self.seen = done
        if done >= self.done:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_fit_returns_what_it_reached(key, monkeypatch):
    interrupt = InterruptAt(3)
    monkeypatch.setattr(Progress, "show", interrupt.__call__)
    with pytest.warns(UserWarning, match=r"interrupted after \d+ epochs"):
        fitted, losses = fit_to_data(key, Counter(), DATA, loss_fn=FailAt(1000, "nan"), **{**KWARGS, "max_epochs": 100})
    assert len(losses["train"]) == len(losses["val"]) == interrupt.seen < 100
    assert fitted.n == 4 * interrupt.seen
    with pytest.warns(UserWarning, match=r"interrupted after \d+ steps"):
        fitted, losses = fit_to_key_based_loss(
            key, Counter(), loss_fn=FailAt(1000, "nan"), steps=100, optimizer=KWARGS["optimizer"], show_progress=False
        )
    assert fitted.n == len(losses) == interrupt.seen < 100


def test_a_second_interrupt_is_not_held_back():
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_exception_closes_the_bar(key, monkeypatch, capsys):
    def broken(params, static, x, key):
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss today"):
        fit_to_data(key, Counter(), DATA, loss_fn=broken)
    # A bar that is left open does not end its line.
    assert capsys.readouterr().err.endswith("\n")
