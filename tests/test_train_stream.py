"""`fit_to_data` on batches that come from the host: generators, loaders, memory-mapped files."""

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from flowlib.bijections import InDataUnits
from flowlib.distributions import Uniform, with_support
from flowlib.errors import NonFiniteDataError
from flowlib.train import ContrastiveLoss, fit_to_data
from flowlib.train._prefetch import prefetched
from train_tools import Counter, Regression, gaussian, halves, mean_loss

X64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
RTOL = 1e-9 if X64 else 2e-5
BATCH = 16
X = np.random.default_rng(0).normal(size=(58, 2)) * [2.0, 0.5] + [1.0, -1.0]
C = np.random.default_rng(1).normal(size=58)
# 16, 16, 16 and 10 rows.
SIZES = [16, 16, 16, 10]
QUIET = {"show_progress": False, "standardise": False, "learning_rate": 0.1}


def split(*arrays):
    """Batches of 16 rows and one of 10; a batch is an array, or a tuple of several."""
    cut = [np.array_split(array, range(BATCH, len(array), BATCH)) for array in arrays]
    return cut[0] if len(arrays) == 1 else list(zip(*cut, strict=True))


class Loader:
    """Batches that can be had again and again, and how often they were."""

    def __init__(self, batches):
        self.batches, self.times = batches, 0

    def __iter__(self):
        self.times += 1
        return iter(self.batches)


class Tensor:
    """What of a PyTorch tensor NumPy sees."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class Recorder:
    """A plain loss that also notes the rows of each batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, params, static, x, key):
        jax.debug.callback(lambda rows: self.batches.append(np.asarray(rows)), x, ordered=True)
        return mean_loss(params, static, x, key=key)


def endless(x: Any = X, calls: list | None = None) -> Iterator[Any]:
    if calls is not None:
        calls.append(None)
    while True:
        yield from split(x)


def by_hand(batches_of_epochs, flow, rate=0.1):
    """Adam on the mean loss of each batch; the flow, and the mean over rows in each epoch."""
    params, static = halves(flow)
    optimizer = optax.adam(rate)
    losses, grad = [], eqx.filter_jit(eqx.filter_value_and_grad(mean_loss))
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for batches in batches_of_epochs:
            total = 0.0
            for batch in batches:
                parts = batch if isinstance(batch, tuple) else (batch,)
                loss, grads = grad(params, static, *(jnp.asarray(part, float) for part in parts), key=None)
                total += float(loss) * len(parts[0])
                updates, state = optimizer.update(grads, state)
                params = eqx.apply_updates(params, updates)
            losses.append(total / sum(map(_rows, batches)))
    return eqx.combine(params, static), losses


def _rows(batch):
    return len(batch[0]) if isinstance(batch, tuple) else len(batch)


def assert_close(tree, other, rtol=RTOL):
    for a, b in zip(jax.tree.leaves(halves(tree)[0]), jax.tree.leaves(halves(other)[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def assert_no_thread():
    assert not [thread.name for thread in threading.enumerate() if thread.name == "flowlib-prefetch"]


def location_of(flow):
    """What an `InDataUnits` holds, frozen."""
    (units,) = [node for node in jax.tree.leaves(flow, is_leaf=_is_units) if _is_units(node)]
    return units.location.tree


def _is_units(node):
    return isinstance(node, InDataUnits)


def same(fit, other):
    return eqx.tree_equal(fit[0], other[0]) and fit[1] == other[1]


@pytest.mark.parametrize("loss_fn", [None, mean_loss], ids=["by row", "plain"])
def test_a_stream_gives_what_a_loop_by_hand_gives(key, loss_fn):
    # Batches of equal size go to the device together; the smaller last one is filled up, or compiled by itself.
    fitted, losses = fit_to_data(
        key, gaussian(), lambda: iter(split(X)), loss_fn=loss_fn, max_epochs=3, return_best=False, **QUIET
    )
    expected, expected_losses = by_hand([split(X)] * 3, gaussian())
    assert_close(fitted, expected)
    np.testing.assert_allclose(losses["train"], expected_losses, rtol=RTOL)
    assert losses["val"] == []
    assert losses.report.steps == 12
    assert_no_thread()


def test_all_kinds_of_streams_of_the_same_batches_give_the_same(key):
    def fit(data):
        return fit_to_data(key, gaussian(), data, max_epochs=3, **QUIET)

    def reusing():
        buffer = np.empty((BATCH, 2))
        for batch in split(X):
            buffer[: len(batch)] = batch
            yield buffer[: len(batch)]

    loader = Loader(split(X))
    first = fit(loader)
    # Once to look at and for the first epoch.
    assert loader.times == 3
    assert first[1].report.stopped == "max_epochs"
    for data in [
        lambda: iter(split(X)),
        lambda: split(X),
        [(batch,) for batch in split(X)],
        Loader([[batch] for batch in split(X)]),
        Loader([Tensor(batch) for batch in split(X)]),
        Loader([jnp.asarray(batch, float) for batch in split(X)]),
        Loader([np.empty((0, 2)), *split(X), np.empty((0, 2))]),
        reusing,
    ]:
        assert same(fit(data), first)


def test_a_function_is_called_once_an_epoch(key):
    calls = []

    def make():
        calls.append(None)
        return iter(split(X))

    fit_to_data(key, gaussian(), make, max_epochs=3, **QUIET)
    assert len(calls) == 3


def test_conditions_come_in_batches_too(key):
    y = 1.5 * C
    batches = split(y, C)
    fitted, losses = fit_to_data(key, Regression(), Loader(batches), max_epochs=3, return_best=False, **QUIET)
    expected, expected_losses = by_hand([batches] * 3, Regression())
    assert_close(fitted, expected)
    np.testing.assert_allclose(losses["train"], expected_losses, rtol=RTOL)
    assert same(
        fit_to_data(key, Regression(), batches, max_epochs=3, **QUIET),
        fit_to_data(key, Regression(), Loader(batches), max_epochs=3, **QUIET),
    )


def test_a_generator_that_is_at_its_end_ends_the_fit(key):
    fitted, losses = fit_to_data(key, gaussian(), iter(split(X)), max_epochs=5, **QUIET)
    assert losses.report.stopped == "exhausted"
    assert losses.report.epochs == 1
    expected = fit_to_data(key, gaussian(), lambda: iter(split(X)), max_epochs=1, **QUIET)
    assert eqx.tree_equal(fitted, expected[0])
    assert losses == expected[1]


def test_epochs_of_an_endless_stream_are_so_many_steps(key):
    calls = []
    # Epochs of 5 batches: the second begins in the middle of the data.
    fit = fit_to_data(key, gaussian(), lambda: endless(calls=calls), steps_per_epoch=5, max_epochs=3, **QUIET)
    assert len(calls) == 1
    assert fit[1].report.steps == 15
    batches = 4 * split(X)
    expected, losses = by_hand([batches[:5], batches[5:10], batches[10:15]], gaussian())
    np.testing.assert_allclose(fit[1]["train"], losses, rtol=RTOL)
    last, _ = fit_to_data(key, gaussian(), endless(), steps_per_epoch=5, max_epochs=3, return_best=False, **QUIET)
    assert_close(last, expected)
    # A loader with an end begins anew, and a generator ends the fit.
    loader = Loader(split(X))
    assert same(fit_to_data(key, gaussian(), loader, steps_per_epoch=5, max_epochs=3, **QUIET), fit)
    assert loader.times == 4
    ended = fit_to_data(key, gaussian(), iter(split(X)), steps_per_epoch=3, max_epochs=9, **QUIET)[1]
    assert ended.report.stopped == "exhausted"
    assert (ended.report.epochs, ended.report.steps) == (2, 4)


def test_batches_that_grow_and_shrink(key):
    sizes = np.cumsum([3, 7, 7, 2, 20, 5])
    batches = np.array_split(X, sizes)
    for loss_fn in (None, mean_loss):
        fitted, losses = fit_to_data(
            key, gaussian(), Loader(batches), loss_fn=loss_fn, max_epochs=2, return_best=False, **QUIET
        )
        expected, expected_losses = by_hand([batches] * 2, gaussian())
        assert_close(fitted, expected)
        np.testing.assert_allclose(losses["train"], expected_losses, rtol=RTOL)


def test_more_batches_than_go_to_the_device_at_once(key):
    batches = np.array_split(np.tile(X, (3, 1)), 130)
    fitted, losses = fit_to_data(key, gaussian(), Loader(batches), max_epochs=2, return_best=False, **QUIET)
    expected, expected_losses = by_hand([batches] * 2, gaussian())
    assert_close(fitted, expected)
    np.testing.assert_allclose(losses["train"], expected_losses, rtol=RTOL)


def test_a_short_batch_is_filled_up_with_rows_of_another(key):
    # Copies of its own row would be no contrast: log(1 + k), whatever the density.
    prior = Uniform(-10.0, 10.0)
    x = np.arange(9.0) - 4
    kwargs = {"loss_fn": ContrastiveLoss(prior, 3), "max_epochs": 1, **QUIET, "learning_rate": 0.0}
    alone = fit_to_data(key, Regression(1.0), Loader([(x[:8], x[:8])]), **kwargs)[1]["train"][0]
    both = fit_to_data(key, Regression(1.0), Loader([(x[:8], x[:8]), (x[8:], x[8:])]), **kwargs)[1]["train"][0]
    last = 9 * both - 8 * alone
    # Its contrasts are three of -4 to 3, at x = c = 4: at most exp(-1/2), exp(-4/2) and exp(-9/2).
    assert 0 < last < np.log(1 + np.exp(-0.5) + np.exp(-2.0) + np.exp(-4.5)) + 1e-4


# --- memory-mapped files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.bin"
    X.astype(np.float32).tofile(path)
    return np.memmap(path, np.float32, "r", shape=X.shape)


def test_a_file_is_read_once_an_epoch_in_a_new_order(key, file):
    recorder = Recorder()
    _, losses = fit_to_data(key, gaussian(), file, loss_fn=recorder, max_epochs=3, batch_size=BATCH, **QUIET)
    jax.effects_barrier()
    # 6 of 58 rows are for validation.
    assert [len(batch) for batch in recorder.batches] == [16, 16, 16, 4, 6] * 3
    assert len(losses["val"]) == 3
    column = file[:, 0].astype(float)
    rows = [[int(np.flatnonzero(column == value)[0]) for value in batch[:, 0]] for batch in recorder.batches]
    epochs = [rows[5 * i : 5 * i + 5] for i in range(3)]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(58))
        assert epoch[4] == epochs[0][4]
    assert len({tuple(epoch[0]) for epoch in epochs}) == 3
    again = Recorder()
    fit_to_data(key, gaussian(), file, loss_fn=again, max_epochs=1, batch_size=BATCH, **QUIET)
    jax.effects_barrier()
    assert all(np.array_equal(a, b) for a, b in zip(again.batches, recorder.batches[:5], strict=True))
    other = Recorder()
    fit_to_data(jr.key(3), gaussian(), file, loss_fn=other, max_epochs=1, batch_size=BATCH, **QUIET)
    jax.effects_barrier()
    assert not np.array_equal(other.batches[0], recorder.batches[0])


def test_the_same_key_gives_the_same_fit_of_a_file(key, file):
    def fit(key):
        return fit_to_data(key, gaussian(), file, max_epochs=2, batch_size=BATCH, **QUIET)

    assert same(fit(key), fit(key))
    assert not same(fit(key), fit(jr.key(3)))


def test_files_and_arrays_with_conditions(key, tmp_path):
    path = tmp_path / "y.npy"
    np.save(path, 1.5 * C)
    y = np.load(path, mmap_mode="r")
    fitted, losses = fit_to_data(
        key, Regression(), (y, C), max_epochs=60, max_patience=60, batch_size=100, **QUIET
    )  # fmt: skip
    np.testing.assert_allclose(fitted.weight, 1.5, atol=1e-2)
    assert len(losses["val"]) == 60


def test_weights_of_a_file_count_as_repeated_rows(key, file):
    # A whole file is one batch: no other order matters.
    counts = np.arange(58) % 4
    repeated = np.repeat(np.asarray(file), counts, axis=0)
    kwargs: dict[str, Any] = {**QUIET, "max_epochs": 4, "val_prop": 0, "standardise": True}
    # Not at the optimum, where the direction of a step is chance.
    start = gaussian((1.0, -1.0), (2.0, 0.5))
    weighted, losses = fit_to_data(key, start, file, weights=counts, batch_size=58, **kwargs)
    expected, expected_losses = fit_to_data(key, start, repeated, batch_size=len(repeated), **kwargs)
    np.testing.assert_allclose(losses["train"], expected_losses["train"], rtol=1e-5)
    x = jnp.asarray(X[:5], float)
    np.testing.assert_allclose(weighted.log_prob(x), expected.log_prob(x), rtol=1e-4)


def test_batches_of_a_weighted_file_are_unbiased(key, file):
    weights = np.linspace(0, 1, 58)
    values = -np.asarray(gaussian().log_prob(jnp.asarray(file, float)))
    kwargs = {**QUIET, "learning_rate": 0.0}
    _, losses = fit_to_data(
        key, gaussian(), file, weights=weights, batch_size=BATCH, val_prop=0, max_epochs=1, **kwargs
    )
    assert losses["train"][0] == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-5)


def test_a_row_of_a_file_that_is_not_finite_is_named_by_its_number(key, tmp_path):
    x = np.memmap(tmp_path / "rows.bin", np.float32, "w+", shape=(58, 2))
    x[:] = X
    x[37, 1] = np.nan
    with pytest.raises(NonFiniteDataError, match=r"In data: x expected finite numbers, got nan at row 37, column 1"):
        fit_to_data(key, gaussian(), x, batch_size=BATCH, **QUIET)


# --- what validation reads


def test_rows_of_ones_own_for_validation(key, file):
    val = X[:20] + 1
    expected = fit_to_data(key, gaussian(), lambda: iter(split(X)), val_data=val, max_epochs=3, batch_size=7, **QUIET)
    fitted, losses = expected
    best = int(np.argmin(losses["val"]))
    assert losses["val"][best] == pytest.approx(-fitted.log_prob(jnp.asarray(val, float)).mean(), rel=1e-5)
    loader = Loader([val[:7], val[7:14], val[14:]])
    for val_data in (loader, lambda: iter(loader), [(batch,) for batch in loader.batches]):
        fit = fit_to_data(key, gaussian(), Loader(split(X)), val_data=val_data, max_epochs=3, **QUIET)
        assert same(fit, expected)
    weights = np.arange(20.0)
    fitted, losses = fit_to_data(
        key, gaussian(), Loader(split(X)), val_data=val, val_weights=weights, max_epochs=1, batch_size=7, **QUIET
    )
    values = -np.asarray(fitted.log_prob(jnp.asarray(val, float)))
    assert losses["val"][0] == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-5)
    assert len(fit_to_data(key, gaussian(), file, val_data=val, max_epochs=1, **QUIET)[1]["val"]) == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val_data": iter(split(X))}, "val_data is read in every epoch: give a list, a loader, or a function"),
        ({"weights": np.ones(58)}, "weights need rows that are counted, in arrays or numpy.memmap"),
        ({"val_weights": np.ones(58)}, "val_weights belong to val_data: got no val_data"),
        ({"val_data": lambda: split(X), "val_weights": np.ones(58)}, "val_weights need rows that are counted"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer of at least 1, got 0"),
        ({"data": np.ones((4, 2)), "steps_per_epoch": 3}, "steps_per_epoch belongs to streams of batches"),
        ({"data": Loader([])}, "data expected batches with at least one row, got none"),
        ({"data": Loader([np.empty((0, 2))])}, "data expected batches with at least one row, got none"),
        ({"data": Loader([X[:, :1]])}, r"Transformed expected x of shape \(rows, 2\), got \(58, 1\)"),
        ({"data": Loader([X, X[:, :1]])}, r"In batch 1 of data .*: x expected rows of shape \(2,\).*got \(1,\)"),
        ({"data": Loader([X, (X, X)])}, "In batch 1 of data .*: expected 1 arrays as in the first batch"),
        ({"data": Loader([(X, X[:3])])}, "In batch 0 of data .*: condition expected as many rows as x"),
        ({"data": Loader([X] * 400 + [X[:, :1]])}, r"In batch 400 of data .*: x expected rows of shape \(2,\)"),
        ({"val_data": Loader([X, X[:, :1]])}, r"In batch 1 of val_data .*: x expected rows of shape \(2,\)"),
        ({"data": Loader([np.array([["a", "b"]])])}, "In batch 0 of data .*: x must hold real numbers, got dtype <U1"),
        ({"data": Loader([None])}, "data expected batches with at least one row"),
    ],
)  # fmt: skip
def test_bad_streams_are_named(key, kwargs, message):
    kwargs = {"data": lambda: iter(split(X)), "max_epochs": 2, **QUIET, **kwargs}
    with pytest.raises((ValueError, TypeError), match=message):
        fit_to_data(key, gaussian(), **kwargs)
    assert_no_thread()


@pytest.mark.parametrize("batch", [3, 403])
def test_a_row_that_is_not_finite_is_named_with_its_batch(key, batch):
    # Batch 3 is among the first ones that are looked at, batch 403 is not.
    batches = [np.array(part) for part in 101 * split(X)]
    batches[batch][7, 1] = np.inf
    message = rf"In batch {batch} of data \(counted from zero\): x expected finite numbers, got inf at row 7, column 1"
    with pytest.raises(NonFiniteDataError, match=message):
        fit_to_data(key, gaussian(), lambda: iter(batches), max_epochs=2, **QUIET)
    with pytest.raises(NonFiniteDataError, match=message.replace("data", "val_data")):
        fit_to_data(key, gaussian(), lambda: iter(split(X)), val_data=lambda: iter(batches), max_epochs=2, **QUIET)
    assert_no_thread()


@pytest.mark.parametrize("at", [0, 2, 700])
def test_an_exception_in_the_stream_is_the_users(key, at):
    class OutOfLuck(Exception):
        pass

    def broken():
        for number, batch in enumerate(endless()):
            if number == at:
                raise OutOfLuck("no batch today")
            yield batch

    with pytest.raises(OutOfLuck, match="no batch today"):
        fit_to_data(key, gaussian(), broken, max_epochs=2, **QUIET)
    assert_no_thread()


# --- standardisation


def test_location_and_scale_come_from_the_first_rows(key):
    x = np.random.default_rng(2).normal(size=(12_000, 2)) * [200.0, 0.01] + [5000.0, -3.0]
    batches = np.array_split(x, 24)
    seen = Recorder()

    def data():
        return iter(batches)

    fitted, _ = fit_to_data(
        key,
        with_support(gaussian()),
        data,
        loss_fn=seen,
        max_epochs=1,
        show_progress=False,
        learning_rate=0.0,
        return_best=False,
    )
    jax.effects_barrier()
    peeked = x[:10_000]
    np.testing.assert_allclose(location_of(fitted), peeked.mean(0), rtol=1e-5)
    z = fitted.to_base(jnp.asarray(peeked, float))
    np.testing.assert_allclose(z.mean(0), 0, atol=2e-2)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-2)
    # What was looked at is in the first epoch, in its place.
    assert len(seen.batches) == 24
    np.testing.assert_allclose(np.concatenate(seen.batches), x, rtol=1e-6)


# --- where a fit ends


def test_limits_hold_for_streams(key):
    def fit(**kwargs):
        return fit_to_data(key, gaussian(), lambda: iter(split(X)), **{**QUIET, **kwargs})

    fitted, losses = fit(max_steps=6, return_best=False)
    assert (losses.report.stopped, losses.report.steps, losses.report.epochs) == ("max_steps", 6, 2)
    assert_close(fitted, by_hand([split(X), split(X)[:2]], gaussian())[0])
    losses = fit(max_seconds=0)[1]
    # One dispatch, of a part of an epoch at least.
    assert (losses.report.stopped, losses.report.epochs) == ("max_seconds", 1)
    losses = fit(learning_rate=0.0, max_patience=2)[1]
    assert (losses.report.stopped, losses.report.epochs) == ("patience", 4)
    losses = fit(learning_rate=0.0, max_patience_steps=8, max_patience=np.inf)[1]
    assert (losses.report.stopped, losses.report.epochs) == ("patience", 4)


def test_callbacks_see_each_epoch_of_a_stream(key):
    seen, kept = [], []

    def note(snapshot):
        seen.append(snapshot.metrics)
        kept.append(snapshot.current())
        return len(seen) == 3

    _, losses = fit_to_data(key, gaussian(), lambda: iter(split(X)), callbacks=note, **QUIET)
    assert losses.report.stopped == "callback"
    assert [metrics["epoch"] for metrics in seen] == [1, 2, 3]
    assert [metrics["train"] for metrics in seen] == losses["train"]
    assert [metrics["step"] for metrics in seen] == [4, 8, 12]
    assert_close(kept[1], by_hand([split(X)] * 2, gaussian())[0])


class NanRow(eqx.Module):
    """A loss that is NaN where a batch holds the number 99, and else counts up."""

    def __call__(self, params, static, x, key):
        return jnp.where((x == 99).any(), jnp.nan, -eqx.combine(params, static).n)


def test_steps_of_a_stream_are_skipped(key):
    x = np.zeros(20)
    x[9] = 99
    batches = [x[i : i + 4] for i in range(0, 20, 4)]
    kwargs = {
        "optimizer": optax.sgd(1.0), "loss_fn": NanRow(), "max_epochs": 3, "show_progress": False, "return_best": False,
    }  # fmt: skip
    fitted, losses = fit_to_data(key, Counter(), Loader(batches), max_skipped=3, **kwargs)
    assert fitted.n == 12
    assert (losses.report.stopped, losses.report.skipped) == ("max_epochs", 3)
    # The means over the steps made.
    assert losses["train"] == [-1.5, -5.5, -9.5]
    with pytest.warns(UserWarning, match=re.escape("the loss became nan at step 12 of epoch 2")):
        fitted, losses = fit_to_data(key, Counter(), Loader(batches), max_skipped=2, **kwargs)
    assert fitted.n == 10
    assert (losses.report.stopped, losses.report.skipped) == ("non-finite", 2)


# --- going on


def test_a_resumed_stream_equals_one_that_was_never_stopped(key, tmp_path, file):
    def stop_at(epochs):
        return lambda snapshot: snapshot.metrics["epoch"] == epochs

    kwargs: dict[str, Any] = {"show_progress": False, "max_epochs": 7, "max_patience": 100, "batch_size": BATCH}
    for number, data in enumerate([lambda: iter(split(X)), Loader(split(X)), file]):
        whole = fit_to_data(key, gaussian(), data, **kwargs)
        directory = tmp_path / str(number)
        part = fit_to_data(key, gaussian(), data, checkpoint=directory, callbacks=stop_at(3), **kwargs)
        assert (part[1].report.epochs, part[1].report.resumed) == (3, False)
        rest = fit_to_data(key, gaussian(), data, checkpoint=directory, **kwargs)
        assert rest[1].report.resumed
        assert same(rest, whole)


def test_units_of_a_resumed_stream_are_those_it_began_with(key, tmp_path):
    # An endless stream cannot give its first rows again.
    kwargs: dict[str, Any] = {"show_progress": False, "checkpoint": tmp_path, "steps_per_epoch": 4}
    begun, _ = fit_to_data(key, with_support(gaussian()), endless(), max_epochs=2, **kwargs)
    fitted, losses = fit_to_data(key, with_support(gaussian()), endless(X + 0.3), max_epochs=2, **kwargs)
    assert eqx.tree_equal(begun, fitted)
    fitted, losses = fit_to_data(key, with_support(gaussian()), endless(), max_epochs=4, **kwargs)
    assert losses.report.epochs == 4
    np.testing.assert_array_equal(location_of(fitted), location_of(begun))


def test_the_end_of_a_stream_is_checkpointed(key, tmp_path):
    fitted, losses = fit_to_data(key, gaussian(), iter(split(X)), checkpoint=tmp_path, max_epochs=5, **QUIET)
    assert losses.report.stopped == "exhausted"
    (name,) = os.listdir(tmp_path)
    assert name == "fit-00000001.ckpt"
    resumed, losses = fit_to_data(key, gaussian(), iter(split(X)), checkpoint=tmp_path, max_epochs=1, **QUIET)
    assert losses.report.resumed
    assert eqx.tree_equal(resumed, fitted)


def test_a_second_stream_compiles_nothing(key, compiles, file):
    def fit(flow, data, **kwargs):
        return fit_to_data(key, flow, data, val_data=X[:20], show_progress=False, batch_size=BATCH, **kwargs)

    for data in (lambda: iter(split(X)), file):
        fit(gaussian(), data, max_epochs=2)
        flow = gaussian((2.0, 0.0))
        with compiles.expect_none():
            fit(flow, data, max_epochs=5, learning_rate=0.2, max_patience=7)


@pytest.mark.parametrize("how", ["between chunks", "while waiting"])
def test_an_interrupt_ends_a_long_epoch(key, tmp_path, how):
    epochs = []

    def data():
        # Epoch 0 has 4 batches, epoch 1 has no end; Ctrl-C comes in its midst.
        epochs.append(None)
        if len(epochs) == 1:
            yield from split(X)
            return
        for number, batch in enumerate(endless()):
            if number == 300:
                os.kill(os.getpid(), signal.SIGINT)
            if number > 300 and how == "while waiting":
                # Seconds for a chunk of 64.
                time.sleep(0.05)
            yield batch

    with pytest.warns(UserWarning, match="interrupted after 2 epochs"):
        fitted, losses = fit_to_data(
            key, gaussian(), data, checkpoint=tmp_path, checkpoint_every=1, max_epochs=5, **QUIET
        )
    assert (losses.report.stopped, losses.report.epochs) == ("interrupted", 2)
    assert losses.report.best_epoch == int(np.argmin(losses["train"]))
    assert os.listdir(tmp_path) == ["fit-00000001.ckpt"]
    assert np.isfinite(fitted.log_prob(jnp.asarray(X, float))).all()
    assert_no_thread()
    # What goes on is what would have been.
    resumed = fit_to_data(key, gaussian(), lambda: iter(split(X)), checkpoint=tmp_path, max_epochs=3, **QUIET)
    assert same(resumed, fit_to_data(key, gaussian(), lambda: iter(split(X)), max_epochs=3, **QUIET))


# --- the thread


def test_prefetching_keeps_order_and_stays_in_bounds():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    ready = prefetched(items(), lambda items: (2 * item for item in items), ahead=2)
    for i, made in enumerate(ready):
        assert made == 2 * i
        # Two wait, and one is being made.
        assert len(taken) <= i + 4
    assert i == 19
    assert_no_thread()


def test_closing_ends_the_thread_and_takes_no_item_more():
    taken = []

    def items():
        while True:
            taken.append(None)
            yield len(taken)

    def in_thousands(items):
        while chunk := list(itertools.islice(items, 1000)):
            yield chunk

    ready = prefetched(items(), in_thousands, ahead=1)
    next(ready)
    ready.close()
    assert_no_thread()
    before = len(taken)
    assert len(taken) == before


def test_what_is_made_has_the_settings_of_the_caller():
    with jax.enable_x64(not X64):
        (made,) = prefetched(iter([0.5]), lambda items: map(jnp.asarray, items))
    assert made is not None
    assert made.dtype == (np.float32 if X64 else np.float64)
