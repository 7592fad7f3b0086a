"""How a fit ends: worse than it began, or before it was done."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

from flowlib.train import fit_ensemble_to_data, fit_to_data, fit_to_key_based_loss
from flowlib.train._history import still_falling
from train_tools import gaussian

ROWS = np.random.default_rng(0).normal(size=(300, 2))
KWARGS: dict[str, Any] = {"learning_rate": 5.0, "max_epochs": 3, "show_progress": False}


@pytest.mark.parametrize("data", ["rows", "stream", "no validation", "ema"])
def test_a_fit_that_made_it_worse_gives_what_it_was_given(data):
    kwargs: dict[str, Any] = {"val_prop": 0} if data == "no validation" else {"ema": 0.9} if data == "ema" else {}
    rows = [(ROWS[:100],), (ROWS[100:],)] if data == "stream" else ROWS
    with pytest.warns(UserWarning, match="The fit made the loss worse"):
        flow, losses = fit_to_data(jr.key(0), gaussian(), rows, standardise=False, **KWARGS, **kwargs)
    np.testing.assert_allclose(flow.log_prob(ROWS), gaussian().log_prob(ROWS), rtol=1e-6)
    assert losses.report.best_loss > 4
    with pytest.warns(UserWarning, match="the last parameters are returned"):
        fit_to_data(jr.key(0), gaussian(), rows, standardise=False, return_best=False, **KWARGS, **kwargs)


def test_a_member_that_made_it_worse_is_as_it_began():
    with pytest.warns(UserWarning, match=r"\[0, 1\] .* higher loss than they began with"):
        mixture, _ = fit_ensemble_to_data(
            jr.key(0),
            lambda key: gaussian(),
            ROWS,
            members=2,
            standardise=False,
            **{**KWARGS, "batch_size": 300, "max_epochs": 1},
        )
    np.testing.assert_allclose(mixture.log_prob(ROWS), gaussian().log_prob(ROWS), rtol=1e-5)


def square(params, static, *, key):
    # Of the first parameter; larger steps than the parabola is wide grow.
    return ((eqx.combine(params, static).bijection.loc - 3) ** 2).sum()


def test_a_loss_without_data_that_rises_warns():
    with pytest.warns(UserWarning, match="at first and is"):
        fit_to_key_based_loss(jr.key(0), gaussian(), loss_fn=square, steps=40, learning_rate=1e4, show_progress=False)


def test_a_trend_is_told_from_noise():
    epochs, noise = np.arange(100.0), np.random.default_rng(1).normal(size=(200, 100))
    assert still_falling((10 - 0.05 * epochs + 0.02 * noise[0]).tolist())
    assert not still_falling((np.exp(-epochs / 5)).tolist())
    # Four standard errors, on 23 degrees of freedom: one in four thousand.
    assert sum(still_falling(own.tolist()) for own in noise) <= 1
    assert not still_falling(np.linspace(0, 5, 100).tolist())
    assert still_falling([3.0, 2.0])
    assert not still_falling([2.0, 3.0])
    assert not still_falling([3.0, np.nan])


def test_a_fit_that_stops_while_falling_says_so():
    far = ROWS + 50
    slow = {"standardise": False, "learning_rate": 1e-2, "max_patience": 99, "show_progress": False}
    with pytest.warns(UserWarning, match="max_epochs=100 while its loss was still falling"):
        _, losses = fit_to_data(jr.key(0), gaussian(), far, max_epochs=100, **slow)
    assert losses.report.falling
    assert "still falling" in str(losses.report)
    _, losses = fit_to_data(jr.key(0), gaussian(), far, max_epochs=4, **slow)
    assert losses.report.falling
    _, losses = fit_to_data(jr.key(0), gaussian(), ROWS, max_epochs=100, show_progress=False)
    assert not losses.report.falling
