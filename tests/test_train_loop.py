"""What a fit does beside its steps: reports, callbacks, weights, limits, averages, checkpoints."""

import errno
import math
import os
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from flowlib.bijections import Affine
from flowlib.distributions import StandardNormal, Transformed
from flowlib.errors import CheckpointError, CheckpointMismatchError
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data, fit_to_key_based_loss, fit_to_variational_target
from flowlib.train._options import fit_limits
from train_tools import Counter, Regression, affine_of, gaussian, halves, mean_loss

X64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
RTOL = 1e-9 if X64 else 2e-5
X = np.random.default_rng(0).normal(size=(60, 2)) * [2.0, 0.5] + [1.0, -1.0]
QUIET: dict[str, Any] = {"show_progress": False, "batch_size": 16, "learning_rate": 0.05}
PLAIN = {**QUIET, "standardise": False}


def same(fit, other):
    return eqx.tree_equal(fit[0], other[0]) and fit[1] == other[1]


def stop_at(epochs):
    """A callback that stops a fit after at least so many epochs or steps."""

    def stop(snapshot):
        return max(snapshot.metrics["epoch"], snapshot.metrics["step"]) >= epochs

    return stop


def noisy(params, static, key):
    """Minimised by the mean of the noise, 3."""
    return ((params - 3 - jr.normal(key, params.shape, params.dtype)) ** 2).sum()


def target(x):
    """100 times the density of N((1, -1), diag(2, 0.5)^2)."""
    return np.log(100) + jax.scipy.stats.norm.logpdf(x, jnp.array([1.0, -1.0]), jnp.array([2.0, 0.5])).sum()


class FailAt(eqx.Module):
    """-n, so that gradient descent of rate 1 counts steps; NaN in the steps of some numbers, skipped ones included."""

    bad: jax.Array

    def __init__(self, *bad):
        self.bad = jnp.asarray(bad, float)

    def __call__(self, params, static, x, key):
        # Row 0 of a batch is its number: see `COUNTED`.
        return jnp.where((self.bad == x[0]).any(), jnp.nan, -eqx.combine(params, static).n)


# One batch of 4 equal rows a step, in a stream: the order stays.
COUNTED = [(np.full(4, i, float),) for i in range(10)]
COUNT: dict[str, Any] = {"optimizer": optax.sgd(1.0), "show_progress": False, "return_best": False}


# --- reports


def test_a_report_says_why_and_how_far(key):
    def report(**kwargs):
        losses = fit_to_data(key, gaussian(), X, **{**PLAIN, **kwargs})[1]
        seen, report = losses["val"] or losses["train"], losses.report
        assert report.epochs == len(seen)
        assert report.best_epoch == int(np.argmin(seen))
        assert report.best_loss == min(seen)
        assert report.as_dict()["stopped"] == report.stopped
        assert report.seconds > 0
        assert (report.skipped, report.resumed) == (0, False)
        assert f"stopped by {report.stopped} after {report.epochs} epochs" in str(report)
        return report

    # 54 rows for training: 4 steps an epoch.
    first = report(max_epochs=7)
    assert (first.stopped, first.epochs, first.steps) == ("max_epochs", 7, 28)
    patient = report(learning_rate=0.5, max_patience=2, max_epochs=500)
    assert patient.stopped == "patience"
    assert patient.best_epoch == patient.epochs - 4
    short = report(max_steps=6, val_prop=0)
    assert (short.stopped, short.epochs, short.steps) == ("max_steps", 2, 6)
    timed = report(max_seconds=0, max_epochs=10**6, max_patience=np.inf)
    assert (timed.stopped, timed.epochs) == ("max_seconds", 1)
    called = report(callbacks=lambda snapshot: True)
    assert (called.stopped, called.epochs) == ("callback", 1)


def test_a_fit_without_epochs_reports_that(key):
    losses = fit_to_data(key, gaussian(), X, max_epochs=0, **PLAIN)[1]
    assert (losses.report.stopped, losses.report.epochs, losses.report.best_epoch) == ("max_epochs", 0, None)
    assert losses.report.best_loss == math.inf
    assert "lowest" not in str(losses.report)


def test_the_most_steps_are_made_and_no_more(key):
    fitted, _ = fit_to_data(key, Counter(), [(batch,) for (batch,) in COUNTED], loss_fn=FailAt(), max_steps=13, **COUNT)
    assert fitted.n == 13
    fitted, losses = fit_to_data(
        key, Counter(), np.zeros(40), loss_fn=FailAt(), max_steps=13, batch_size=4, val_prop=0, max_patience=99, **COUNT
    )
    assert fitted.n == 13
    # The mean over the steps that were made.
    np.testing.assert_allclose(losses["train"], [-4.5, -11.0], rtol=1e-6)


def test_a_small_improvement_does_not_count_for_patience(key):
    # -n falls by 10 an epoch.
    kwargs = {"loss_fn": FailAt(), "val_prop": 0, "batch_size": 4, "max_epochs": 50, "max_patience": 3, **COUNT}
    assert fit_to_data(key, Counter(), np.zeros(40), min_improvement=9.9, **kwargs)[1].report.stopped == "max_epochs"
    kwargs["return_best"] = True
    fitted, losses = fit_to_data(key, Counter(), np.zeros(40), min_improvement=50.1, **kwargs)
    # Epoch 6 is the first to be 50.1 better than epoch 0; three without are allowed.
    assert (losses.report.stopped, losses.report.epochs) == ("patience", 5)
    # The best parameters are the latest ones all the same.
    assert fitted.n == 50
    assert fit_to_data(key, Counter(), np.zeros(40), min_improvement=29.9, **kwargs)[1].report.epochs == 50


def test_patience_in_steps_ends_at_an_epoch(key):
    kwargs = {**PLAIN, "learning_rate": 0.0, "max_patience": np.inf}
    # 4 steps an epoch, of which the first one is an improvement.
    for steps, epochs in [(0, 2), (3, 2), (4, 3), (11, 4), (12, 5)]:
        report = fit_to_data(key, gaussian(), X, max_patience_steps=steps, **kwargs)[1].report
        assert (report.stopped, report.epochs) == ("patience", epochs)


# --- callbacks


def test_callbacks_are_given_what_the_fit_returns(key):
    seen, kept = [], []

    def note(snapshot):
        seen.append(dict(snapshot.metrics))
        kept.append((snapshot.metrics["epoch"], snapshot.current(), snapshot.best()))
        assert snapshot.losses["train"][-1] == snapshot.metrics["train"]

    other = []
    kwargs = {**QUIET, "learning_rate": 0.5, "max_patience": 99, "max_epochs": 30}
    fitted, losses = fit_to_data(key, gaussian(), X, callbacks=[note, other.append], return_best=False, **kwargs)
    assert len(other) == len(seen)
    for metrics in seen:
        epoch = metrics["epoch"]
        assert metrics["step"] == 4 * epoch
        assert metrics["skipped"] == 0
        assert metrics["train"] == losses["train"][epoch - 1]
        assert metrics["val"] == losses["val"][epoch - 1]
        assert metrics["best_loss"] == min(losses["val"][:epoch])
    # Valid long after their buffers were given up to the next dispatch.
    for epoch, current, best in kept:
        assert eqx.tree_equal(
            current, fit_to_data(key, gaussian(), X, return_best=False, **{**kwargs, "max_epochs": epoch})[0]
        )
        assert eqx.tree_equal(best, fit_to_data(key, gaussian(), X, **{**kwargs, "max_epochs": epoch})[0])
    assert eqx.tree_equal(kept[-1][1], fitted)
    # And nothing that it sees changes the fit.
    assert same((fitted, losses), fit_to_data(key, gaussian(), X, return_best=False, **kwargs))


def test_only_true_stops(key):
    for answer in (None, False, 1, "stop", np.float32(0)):
        losses = fit_to_data(key, gaussian(), X, max_epochs=4, callbacks=lambda _, answer=answer: answer, **PLAIN)[1]
        assert losses.report.stopped == "max_epochs"


def test_an_exception_in_a_callback_loses_nothing(key):
    def broken(snapshot):
        raise ValueError("no disk today")

    with pytest.warns(UserWarning, match="a callback raised ValueError: no disk today") as caught:
        fit = fit_to_data(key, gaussian(), X, callbacks=broken, **PLAIN)
    assert caught[0].filename == __file__
    assert fit[1].report.stopped == "callback"
    assert same(fit, fit_to_data(key, gaussian(), X, max_epochs=fit[1].report.epochs, **PLAIN))


@pytest.mark.usefixtures("unchecked_annotations")
def test_a_whole_number_in_floating_point_is_a_limit_too():
    limits = fit_limits(max_patience=60.0, max_patience_steps=math.inf)
    assert int(limits.patience) == 60
    assert int(limits.patience_steps) > 1e9
    with pytest.raises(ValueError, match=r"max_patience must be an integer of at least 0, got 2\.5"):
        fit_limits(max_patience=2.5)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.filterwarnings("ignore:x has a single row")
def test_bad_options_are_named(key):
    for kwargs, message in [
        ({"callbacks": 3}, "callbacks must be functions of a Snapshot, got int"),
        ({"callbacks": [print, None]}, "callbacks must be functions of a Snapshot, got NoneType"),
        ({"checkpoint_errors": "ignore"}, 'checkpoint_errors must be "raise" or "warn", got \'ignore\''),
        ({"checkpoint_every": 0}, "checkpoint_every must be an integer of at least 1, got 0"),
        ({"checkpoint_keep": 0}, "checkpoint_keep must be an integer of at least 1, got 0"),
        ({"max_seconds": -1}, "max_seconds must be a number of at least 0, got -1"),
        ({"max_steps": -1}, "max_steps must be an integer of at least 0, got -1"),
        ({"max_skipped": 1.5}, "max_skipped must be an integer of at least 0, got 1.5"),
        ({"min_improvement": math.inf}, "min_improvement must be finite"),
        ({"min_improvement": -1}, "min_improvement must be a number of at least 0, got -1"),
        ({"ema": 1.0}, "ema must be less than 1, such as 0.99, got 1.0"),
        ({"ema": True}, "ema must be a number of at least 0, got True"),
        ({"weights": np.ones(3)}, r"weights expected one number a row, of shape \(60,\), got \(3,\)"),
        ({"weights": -np.ones(60)}, "weights expected finite numbers of at least 0, got -1.0 in row 0"),
        ({"weights": np.full(60, np.nan)}, "weights expected finite numbers of at least 0, got nan in row 0"),
        ({"weights": np.zeros(60)}, "weights expected at least one above 0, got all 0"),
        ({"weights": np.eye(60)[0]}, "weights are 0 in all"),
        ({"weights": np.ones(60), "loss_fn": mean_loss}, "weights need a loss by row"),
        ({"val_weights": np.ones(60)}, "val_weights belong to val_data: got no val_data"),
        ({"val_data": X, "val_weights": np.ones(60), "loss_fn": mean_loss}, "weights need a loss by row"),
        ({"val_data": X, "val_weights": np.ones(3)}, r"val_weights expected one number a row, of shape \(60,\)"),
        ({"val_data": X[:, :1]}, r"val_data x expected rows of shape \(2,\) and dtype float\d+ as in data, got \(1,\)"),
        ({"val_data": (X, X)}, "val_data expected 1 arrays as data has, got 2"),
        ({"val_data": X[:0]}, "val_data x expected at least one row"),
        ({"val_data": X * np.nan}, "val_data x expected finite numbers, got nan at row 0, column 0"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            fit_to_data(key, gaussian(), X, **{**PLAIN, **kwargs})


# --- weights and rows for validation


def test_integer_weights_are_repeated_rows(key):
    # All rows are one batch, so that their order means nothing.
    counts = np.arange(60) % 4
    repeated = np.repeat(X, counts, axis=0)
    start = gaussian((1.0, -1.0), (2.0, 0.5))
    kwargs = {"show_progress": False, "learning_rate": 0.02, "max_epochs": 20, "batch_size": 200, "max_patience": 99}
    for more, more_repeated in [
        ({"val_prop": 0}, {"val_prop": 0}),
        ({"val_data": X + 1, "val_weights": counts}, {"val_data": repeated + 1}),
    ]:
        weighted, losses = fit_to_data(key, start, X, weights=counts, **kwargs, **more)
        expected, expected_losses = fit_to_data(key, start, repeated, **kwargs, **more_repeated)
        for name in ("train", "val"):
            np.testing.assert_allclose(losses[name], expected_losses[name], rtol=1e-5)
        x = jnp.asarray(X, float)
        np.testing.assert_allclose(weighted.log_prob(x), expected.log_prob(x), rtol=1e-5, atol=1e-5)


def test_the_scale_of_weights_means_nothing(key):
    weights = np.linspace(0.1, 1, 60)
    first = fit_to_data(key, gaussian(), X, weights=weights, max_epochs=5, **QUIET)
    # float32 knows neither of these numbers.
    for factor in (1e-60, 1e60):
        scaled = fit_to_data(key, gaussian(), X, weights=weights * factor, max_epochs=5, **QUIET)
        np.testing.assert_allclose(scaled[1]["val"], first[1]["val"], rtol=1e-4)


@pytest.mark.parametrize("batch_size", [7, 16, 60])
def test_the_loss_of_an_epoch_is_the_weighted_mean(key, batch_size):
    weights = np.random.default_rng(3).gamma(0.5, size=60)
    values = -np.asarray(gaussian().log_prob(jnp.asarray(X, float)))
    kwargs = {**PLAIN, "learning_rate": 0.0, "batch_size": batch_size, "weights": weights, "max_epochs": 1}
    _, losses = fit_to_data(key, gaussian(), X, val_prop=0, **kwargs)
    assert losses["train"][0] == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-5)
    val_weights = weights[::-1].copy()
    _, losses = fit_to_data(key, gaussian(), X, val_data=X, val_weights=val_weights, **kwargs)
    assert losses["val"][0] == pytest.approx((val_weights * values).sum() / val_weights.sum(), rel=1e-5)
    _, losses = fit_to_data(key, gaussian(), X, val_data=X, **kwargs)
    assert losses["val"][0] == pytest.approx(values.mean(), rel=1e-5)


def test_rows_without_weight_do_not_count_even_if_their_loss_is_infinite(key):
    far = np.finfo(np.float64 if X64 else np.float32).max / 2
    x = np.concatenate([X, np.full((10, 2), [far, 0.0])])
    weights = np.concatenate([np.ones(60), np.zeros(10)])
    assert not np.isfinite(gaussian().log_prob(jnp.asarray(x[60:], float))).any()
    for batch_size in (16, 70):
        fitted, losses = fit_to_data(
            key, gaussian(), x, weights=weights, val_prop=0, max_epochs=3, **{**PLAIN, "batch_size": batch_size}
        )
        assert losses.report.stopped == "max_epochs"
        assert np.isfinite(losses["train"]).all()
        assert np.isfinite(fitted.log_prob(jnp.asarray(X, float))).all()


def test_rows_of_ones_own_judge(key):
    # All rows of data are for training, whatever val_prop says.
    kwargs = {**QUIET, "learning_rate": 0.5, "max_patience": 99, "max_epochs": 10}
    fitted, losses = fit_to_data(key, gaussian(), X, val_data=X[:7] + 1, val_prop=0.9, **kwargs)
    assert losses.report.steps == 40
    best = int(np.argmin(losses["val"]))
    value = -fitted.log_prob(jnp.asarray(X[:7] + 1, float)).mean()
    assert losses["val"][best] == pytest.approx(float(value), rel=1e-5)


def test_a_conditional_fit_takes_weights_and_rows_for_validation(key):
    c = np.random.default_rng(1).normal(size=200)
    weights = np.random.default_rng(2).gamma(1.0, size=200)
    y = 1.5 * c + np.random.default_rng(3).normal(size=200)
    kwargs = {"max_epochs": 200, "max_patience": 200, "batch_size": 200, "learning_rate": 0.1, "show_progress": False}
    fitted, losses = fit_to_data(
        key, Regression(), (y, c), weights=weights, val_data=(y, c), **kwargs, return_best=False
    )
    np.testing.assert_allclose(fitted.weight, (weights * c * y).sum() / (weights * c * c).sum(), atol=1e-3)
    assert len(losses["val"]) == 200


# --- skipped steps


def test_bad_steps_are_skipped_up_to_a_limit(key):
    # 10 steps an epoch, of which those of batches 3 and 7 are NaN.
    fitted, losses = fit_to_data(key, Counter(), COUNTED, loss_fn=FailAt(3, 7), max_skipped=6, max_epochs=3, **COUNT)
    assert fitted.n == 24
    assert (losses.report.stopped, losses.report.skipped, losses.report.steps) == ("max_epochs", 6, 24)
    assert losses["train"] == [-3.5, -11.5, -19.5]
    assert "6 steps were skipped" in str(losses.report)
    with pytest.warns(UserWarning, match="the loss became nan at step 23 of epoch 2"):
        fitted, losses = fit_to_data(
            key, Counter(), COUNTED, loss_fn=FailAt(3, 7), max_skipped=4, max_epochs=3, **COUNT
        )
    assert (losses.report.stopped, losses.report.skipped, losses.report.steps) == ("non-finite", 4, 19)


@pytest.mark.filterwarnings("ignore:x has one value in many rows")
def test_a_skipped_step_leaves_the_optimiser_as_it_was(key):
    batches = [(X[:16],), (X[16:32],), (X[32:],)]
    # Its loss is infinite, and so are gradients.
    bad = (np.full((16, 2), [np.finfo(np.float64 if X64 else np.float32).max / 2, 0.0]),)
    kwargs = {**PLAIN, "max_epochs": 5, "max_skipped": 10, "return_best": False}
    clean = fit_to_data(key, gaussian(), batches, **kwargs)
    skipped = fit_to_data(key, gaussian(), [batches[0], bad, *batches[1:], bad], **kwargs)
    assert skipped[1].report.skipped == 10
    assert same(clean, skipped)


def test_skipped_steps_without_data(key):
    def loss(params, static, key):
        # About one in eight is NaN.
        return jnp.where(jr.uniform(key, ()) < 0.125, jnp.nan, ((params - 3) ** 2).sum())

    fitted, losses = fit_to_key_based_loss(
        key, jnp.zeros(2), loss_fn=loss, steps=300, max_skipped=300, learning_rate=0.1, show_progress=False
    )
    report, bad = losses.report, int(np.isnan(losses).sum())
    assert (report.stopped, report.skipped, report.steps, len(losses)) == ("max_steps", bad, 300 - bad, 300)
    assert 10 < bad < 80
    np.testing.assert_allclose(fitted, 3, atol=1e-2)


# --- averages


def test_the_average_is_that_of_the_formula(key):
    batches, past = [(X[:30],), (X[30:],)], 0.7
    kwargs = {**PLAIN, "learning_rate": 0.1, "max_epochs": 4, "return_best": False}
    averaged, losses = fit_to_data(key, gaussian(), batches, ema=past, val_data=X, **kwargs)
    trained = [
        fit_to_data(key, gaussian(), batches, max_steps=n, **{**kwargs, "max_epochs": 9})[0] for n in range(1, 9)
    ]
    mean = None
    for n, flow in enumerate(trained, start=1):
        params = halves(flow)[0]
        # A plain mean, until the past would weigh more in it than it should.
        weight = min(past, (n - 1) / n)
        mean = params if mean is None else jax.tree.map(lambda m, p, w=weight: w * m + (1 - w) * p, mean, params)
    for a, b in zip(jax.tree.leaves(halves(averaged)[0]), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL * 10)
    # Steps are those without it, and validation judges the average.
    assert losses["train"] == fit_to_data(key, gaussian(), batches, **kwargs)[1]["train"]
    assert losses["val"][-1] == pytest.approx(-float(averaged.log_prob(jnp.asarray(X, float)).mean()), rel=1e-5)
    best, losses = fit_to_data(key, gaussian(), batches, ema=past, val_data=X, **{**kwargs, "return_best": True})
    assert min(losses["val"]) == pytest.approx(-float(best.log_prob(jnp.asarray(X, float)).mean()), rel=1e-5)


def test_an_average_of_steps_without_data(key):
    # Gradient descent on (p - 3)^2 / 2 with noise: the mean is nearer than the last.
    kwargs = {"loss_fn": noisy, "steps": 3000, "optimizer": optax.sgd(0.05), "show_progress": False}
    last, _ = fit_to_key_based_loss(key, jnp.zeros(200), **kwargs)
    mean, _ = fit_to_key_based_loss(key, jnp.zeros(200), ema=0.99, **kwargs)
    # The variance of the mean over about 200 steps is 1/200 or so, that of the last 1/19.
    assert float(jnp.square(mean - 3).mean()) < 0.3 * float(jnp.square(last - 3).mean())


# --- checkpoints


def flow_of(key):
    return coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=2, nn_width=5)


@pytest.mark.parametrize(
    "kwargs", [{}, {"ema": 0.9, "val_prop": 0.0}, {"optimizer": optax.adamw(0.01)}, {"max_skipped": 3}]
)
def test_ten_epochs_and_ten_more_are_twenty(key, tmp_path, kwargs):
    flow, kwargs = flow_of(key), {**QUIET, **kwargs, "max_patience": 99, "weights": np.linspace(0, 1, 60)}
    whole = fit_to_data(key, flow, X, max_epochs=20, **kwargs)
    part = fit_to_data(key, flow, X, max_epochs=10, checkpoint=tmp_path, **kwargs)
    assert same(part, fit_to_data(key, flow, X, max_epochs=10, **kwargs))
    rest = fit_to_data(key, flow, X, max_epochs=20, checkpoint=tmp_path, **kwargs)
    assert same(rest, whole)
    assert (rest[1].report.resumed, rest[1].report.epochs) == (True, 20)
    assert whole[1].report.steps == rest[1].report.steps
    last = fit_to_data(key, flow, X, max_epochs=20, checkpoint=tmp_path, **{**kwargs, "return_best": False})
    assert eqx.tree_equal(last[0], fit_to_data(key, flow, X, max_epochs=20, **{**kwargs, "return_best": False})[0])


@pytest.mark.parametrize("every", [1, 3, 7])
def test_checkpoints_change_nothing(key, tmp_path, every):
    kwargs = {**QUIET, "max_epochs": 20, "max_patience": 99}
    fit = fit_to_data(key, gaussian(), X, checkpoint=tmp_path, checkpoint_every=every, checkpoint_keep=99, **kwargs)
    assert same(fit, fit_to_data(key, gaussian(), X, **kwargs))
    numbers = sorted({*range(every, 20, every), 20})
    assert sorted(os.listdir(tmp_path)) == [f"fit-{number:08d}.ckpt" for number in numbers]


def test_a_fit_that_is_done_returns_at_once(key, tmp_path, compiles):
    kwargs = {**QUIET, "max_epochs": 200, "max_patience": 2, "learning_rate": 1.0, "checkpoint": tmp_path}
    first = fit_to_data(key, gaussian(), X, **kwargs)
    assert first[1].report.stopped == "patience"
    # The first one to read a checkpoint compiles the conversion of its key, and nothing else.
    before = compiles.compiled
    fit_to_data(key, gaussian(), X, **kwargs)
    assert compiles.compiled - before <= 1
    with compiles.expect_none():
        again = fit_to_data(key, gaussian(), X, **kwargs)
    assert same(first, again)
    assert (again[1].report.stopped, again[1].report.resumed) == ("patience", True)
    assert again[1].report.epochs == first[1].report.epochs


def test_each_way_to_stop_can_be_resumed(key, tmp_path):
    kwargs = {**QUIET, "max_epochs": 12, "max_patience": 99}
    whole = fit_to_data(key, gaussian(), X, **kwargs)
    for name, more in [("callback", {"callbacks": stop_at(3)}), ("max_seconds", {"max_seconds": 0})]:
        checkpoint = tmp_path / name
        part = fit_to_data(key, gaussian(), X, checkpoint=checkpoint, **kwargs, **more)
        assert part[1].report.stopped == name
        rest = fit_to_data(key, gaussian(), X, checkpoint=checkpoint, **kwargs)
        assert rest[1].report.resumed
        assert same(rest, whole)


def other_loss(params, static, x, key):
    return mean_loss(params, static, x, key=key) + 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": X + 1}, "x is .* and was"),
        ({"data": X[:-1]}, "x is"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"optimizer": optax.sgd(0.1)}, "optimizer"),
        ({"loss_fn": other_loss}, "loss_fn"),
        ({"batch_size": 17}, "batch_size"),
        ({"key": jr.key(99)}, "key"),
        ({"dist": gaussian((1.0, 0.0))}, "distribution"),
        ({"weights": np.arange(60)}, "weights"),
        ({"ema": 0.9}, "ema"),
        ({"val_prop": 0.5}, "rows"),
        ({"max_patience": 7}, "max_patience"),
        ({"support": "positive", "data": abs(X)}, "support"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(key, tmp_path, change, named):
    kwargs = {**QUIET, "max_epochs": 2, "checkpoint": tmp_path, "key": key, "dist": gaussian(), "data": X}
    fit_to_data(**kwargs)
    with pytest.raises(CheckpointMismatchError, match=rf"is of another fit: .*{named}"):
        fit_to_data(**{**kwargs, **change})


def full_disk(source, destination):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_fit_with_what_it_reached(key, tmp_path, monkeypatch):
    kwargs = {**QUIET, "max_epochs": 9, "max_patience": 99}
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device") as caught:
        fit_to_data(key, gaussian(), X, checkpoint=tmp_path, checkpoint_every=4, **kwargs)
    error = caught.value
    assert error.losses.report.stopped == "checkpoint"
    assert error.losses.report.epochs == 4
    assert same((error.fitted, error.losses), fit_to_data(key, gaussian(), X, **{**kwargs, "max_epochs": 4}))
    assert os.listdir(tmp_path) == []
    with pytest.raises(CheckpointError, match="No space left on device") as caught:
        fit_to_key_based_loss(
            key, jnp.zeros(2), loss_fn=noisy, steps=9, checkpoint=tmp_path, checkpoint_every=4, show_progress=False
        )
    assert len(caught.value.losses) == caught.value.losses.report.steps == 4
    assert caught.value.fitted.shape == (2,)


def test_a_full_disk_can_be_a_warning(key, tmp_path, monkeypatch):
    kwargs = {**QUIET, "max_epochs": 9, "max_patience": 99}
    monkeypatch.setattr(os, "replace", full_disk)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = fit_to_data(
            key, gaussian(), X, checkpoint=tmp_path, checkpoint_every=2, checkpoint_errors="warn", **kwargs
        )
    (warning,) = caught
    assert "No space left on device" in str(warning.message)
    assert "The fit goes on without" in str(warning.message)
    assert warning.filename == __file__
    assert same(fit, fit_to_data(key, gaussian(), X, **kwargs))


def test_a_directory_that_cannot_be_is_refused_before_the_fit(key, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="Cannot keep checkpoints"):
        fit_to_data(key, gaussian(), X, checkpoint=file, **QUIET)


# --- fits without data


def test_the_best_by_the_mean_of_the_last_losses(key):
    # So large a rate that the parameters jump about. Losses do not depend on `return_best`.
    kwargs = {"loss_fn": noisy, "steps": 300, "learning_rate": 1.0, "show_progress": False}
    last, losses = fit_to_key_based_loss(key, jnp.zeros(3), **kwargs)
    best, again = fit_to_key_based_loss(key, jnp.zeros(3), return_best=True, smoothing=0.5, **kwargs)
    assert losses == again
    smoothed = []
    for n, loss in enumerate(losses, start=1):
        weight = min(0.5, (n - 1) / n)
        smoothed.append(weight * (smoothed[-1] if smoothed else 0.0) + (1 - weight) * loss)
    at = int(np.argmin(smoothed))
    assert again.report.best_loss == pytest.approx(smoothed[at], rel=1e-4)
    # The loss of step `at` is that of the parameters before it.
    expected, _ = fit_to_key_based_loss(key, jnp.zeros(3), **{**kwargs, "steps": at})
    assert eqx.tree_equal(best, expected)
    assert not eqx.tree_equal(best, last)


def test_limits_of_a_fit_without_data(key):
    kwargs = {"loss_fn": noisy, "steps": 5000, "learning_rate": 0.0, "show_progress": False}
    losses = fit_to_key_based_loss(key, jnp.zeros(3), max_patience_steps=50, min_improvement=1e3, **kwargs)[1]
    assert (losses.report.stopped, losses.report.steps) == ("patience", 52)
    losses = fit_to_key_based_loss(key, jnp.zeros(3), max_seconds=0, **kwargs)[1]
    assert losses.report.stopped == "max_seconds"
    assert 0 < len(losses) < 5000
    losses = fit_to_key_based_loss(key, jnp.zeros(3), callbacks=stop_at(1), **kwargs)[1]
    assert losses.report.stopped == "callback"
    assert 0 < len(losses) < 5000
    losses = fit_to_key_based_loss(key, jnp.zeros(3), **{**kwargs, "steps": 70})[1]
    assert (losses.report.stopped, losses.report.steps, losses.report.best_epoch) == ("max_steps", 70, None)


def test_callbacks_see_steps_and_copies(key):
    kept = []

    def note(snapshot):
        kept.append((snapshot.metrics["step"], snapshot.metrics["loss"], snapshot.current(), snapshot.best()))

    kwargs = {"loss_fn": noisy, "learning_rate": 0.1, "show_progress": False}
    fitted, losses = fit_to_key_based_loss(key, jnp.zeros(3), steps=3000, callbacks=[note], **kwargs)
    for step, loss, current, best in kept[:3] + kept[-1:]:
        assert loss == losses[step - 1]
        assert eqx.tree_equal(current, fit_to_key_based_loss(key, jnp.zeros(3), steps=step, **kwargs)[0])
        # Nothing else is followed.
        assert eqx.tree_equal(best, current)
    assert eqx.tree_equal(kept[-1][2], fitted)


@pytest.mark.parametrize("kwargs", [{}, {"return_best": True, "ema": 0.9}])
def test_steps_and_more_steps_are_all_steps(key, tmp_path, kwargs, compiles):
    kwargs = {"loss_fn": noisy, "learning_rate": 0.1, "show_progress": False, "checkpoint_every": 30, **kwargs}
    whole = fit_to_key_based_loss(key, jnp.zeros(3), steps=200, **kwargs)
    part = fit_to_key_based_loss(key, jnp.zeros(3), steps=100, checkpoint=tmp_path, **kwargs)
    assert len(part[1]) == 100
    rest = fit_to_key_based_loss(key, jnp.zeros(3), steps=200, checkpoint=tmp_path, **kwargs)
    assert same(rest, whole)
    assert (rest[1].report.resumed, rest[1].report.steps) == (True, 200)
    with compiles.expect_none():
        assert same(fit_to_key_based_loss(key, jnp.zeros(3), steps=200, checkpoint=tmp_path, **kwargs), whole)
    for change, named in [({"learning_rate": 0.2}, "learning_rate"), ({"smoothing": 0.5}, "smoothing")]:
        with pytest.raises(CheckpointMismatchError, match=named):
            fit_to_key_based_loss(key, jnp.zeros(3), steps=300, checkpoint=tmp_path, **{**kwargs, **change})
    with pytest.raises(CheckpointMismatchError, match="tree"):
        fit_to_key_based_loss(key, jnp.ones(3), steps=300, checkpoint=tmp_path, **kwargs)


def test_a_variational_fit_goes_on(key, tmp_path):
    kwargs = {"num_samples": 10, "learning_rate": 0.05, "show_progress": False}
    whole = fit_to_variational_target(key, gaussian(), target, steps=60, **kwargs)
    fit_to_variational_target(key, gaussian(), target, steps=30, checkpoint=tmp_path, **kwargs)
    assert same(fit_to_variational_target(key, gaussian(), target, steps=60, checkpoint=tmp_path, **kwargs), whole)

    def other(x):
        return -(x**2).sum()

    with pytest.raises(CheckpointMismatchError, match="loss_fn"):
        fit_to_variational_target(key, gaussian(), other, steps=60, checkpoint=tmp_path, **kwargs)


def test_an_amortised_fit_finds_the_posterior_for_every_condition(key):
    # x ~ N(0, 1), c | x ~ N(x, 1): the posterior is N(c / 2, 1 / 2), and the evidence N(c; 0, 2).
    conditions = np.linspace(-2, 2, 41)

    def joint(x, c):
        return jax.scipy.stats.norm.logpdf(x) + jax.scipy.stats.norm.logpdf(c - x)

    fitted, losses = fit_to_variational_target(
        key, Regression(), joint, condition=conditions, steps=2000, num_samples=50, learning_rate=0.02, ema=0.99,
        show_progress=False,
    )  # fmt: skip
    # Of all N(w c, 1) the nearest has w = 1/2, and the variance adds KL(N(0, 1) | N(0, 1/2)) = (1 - log 2) / 2.
    np.testing.assert_allclose(fitted.weight, 0.5, atol=0.02)
    evidence = -0.5 * np.log(4 * np.pi) - conditions**2 / 4
    assert np.mean(losses[-1000:]) == pytest.approx(-evidence.mean() + (1 - np.log(2)) / 2, abs=0.05)


def test_a_minibatched_fit_finds_the_posterior_of_all_rows(key):
    # Of the mean of N(m, 1) rows under the prior N(0, 1): N(sum / (n + 1), 1 / (n + 1)).
    data = np.random.default_rng(0).normal(size=99) + 2

    def log_joint(m, batch):
        likelihood = jax.scipy.stats.norm.logpdf(batch - m).sum() * (99 / len(batch))
        return jax.scipy.stats.norm.logpdf(m).sum() + likelihood

    start = Transformed(StandardNormal((1,)), Affine(jnp.ones(1), jnp.full(1, 0.5)))
    kwargs: dict[str, Any] = {"learning_rate": optax.cosine_decay_schedule(0.02, 3000), "ema": 0.99}
    fitted, _ = fit_to_variational_target(
        key, start, log_joint, data=data, batch_size=33, steps=3000, num_samples=8, show_progress=False, **kwargs
    )
    np.testing.assert_allclose(affine_of(fitted).loc, data.sum() / 100, atol=0.02)
    z = fitted.to_base(jnp.asarray([[data.sum() / 100 + 0.1]]))
    # One standard deviation of the posterior from its mean.
    np.testing.assert_allclose(z, 1, atol=0.15)


def test_bad_conditions_and_rows_are_named(key):
    kwargs = {"steps": 5, "show_progress": False}
    with pytest.raises(ValueError, match="Transformed is unconditional, but got conditions"):
        fit_to_variational_target(key, gaussian(), target, condition=np.ones(3), **kwargs)
    with pytest.raises(ValueError, match=r"condition expected rows of shape \(\), got shape \(3, 1\)"):
        fit_to_variational_target(key, Regression(), target, condition=np.ones((3, 1)), **kwargs)
    with pytest.raises(ValueError, match="data and batch_size belong together"):
        fit_to_variational_target(key, gaussian(), target, data=X, **kwargs)
    with pytest.raises(ValueError, match="at least batch_size=61"):
        fit_to_variational_target(key, gaussian(), target, data=X, batch_size=61, **kwargs)
    with pytest.raises(ValueError, match=r"as many rows each, at least batch_size=5, got \[60, 59\]"):
        fit_to_variational_target(key, gaussian(), target, data=(X, X[1:]), batch_size=5, **kwargs)
