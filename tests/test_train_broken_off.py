"""Fits that an exception ends in their midst, and directories that two fits want: nothing that was reached is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import optax
import pytest

from flowlib.errors import CheckpointError, NonFiniteDataError
from flowlib.train import fit_ensemble_to_data, fit_to_data, fit_to_key_based_loss
from train_tools import Counter, gaussian

DATA = np.random.default_rng(0).normal(size=(40, 2))
KWARGS = {"max_epochs": 12, "max_patience": 99, "show_progress": False, "val_data": DATA[:10], "batch_size": 10}


class Stream:
    """Four batches an epoch; in epoch `at`, the third one goes wrong."""

    def __init__(self, at, error=None):
        self.at, self.error, self.epoch = at, error, -1

    def __call__(self):
        self.epoch += 1
        for i in range(4):
            batch = DATA[10 * i : 10 * i + 10]
            if self.epoch == self.at and i == 2:
                if self.error is not None:
                    raise self.error
                batch = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, batch)
            yield batch


def fit(key, data, **kwargs):
    return fit_to_data(key, gaussian(), data, **{**KWARGS, **kwargs})


def reached(caught) -> Any:
    """The exception, with what the fit had reached."""
    return caught.value


@pytest.mark.parametrize("error", [OSError("the disk is gone"), None, KeyboardInterrupt()], ids=["disk", "nan", "^C"])
@pytest.mark.parametrize("keeps", [True, False], ids=["checkpoint", "none"])
def test_a_stream_that_raises_loses_no_epoch(key, tmp_path, error, keeps):
    kwargs = {"checkpoint": tmp_path} if keeps else {}
    with pytest.raises(NonFiniteDataError if error is None else type(error)) as caught:
        fit(key, Stream(9, error), **kwargs)
    if isinstance(error, OSError):
        assert str(caught.value) == "the disk is gone"
    whole, losses = fit(key, Stream(99))
    assert reached(caught).losses["val"] == losses["val"][:9]
    assert reached(caught).losses.report.stopped == "error"
    nine, _ = fit(key, Stream(99), max_epochs=9)
    np.testing.assert_array_equal(reached(caught).fitted.log_prob(DATA), nine.log_prob(DATA))
    if keeps:
        resumed, again = fit(key, Stream(99), **kwargs)
        assert again.report.resumed
        assert again["train"] == losses["train"]
        np.testing.assert_array_equal(resumed.log_prob(DATA), whole.log_prob(DATA))


def test_a_stream_that_raises_in_the_first_epoch_leaves_the_steps_made(key):
    with pytest.raises(OSError, match="gone") as caught:
        fit(key, growing, learning_rate=0.1)
    assert reached(caught).losses == {"train": [], "val": []}
    assert (reached(caught).fitted.log_prob(DATA) != gaussian().log_prob(DATA)).any()


def growing():
    """A batch that is looked at before the fit, and one too large to go to the device with it, then an error."""
    yield np.tile(DATA, (250, 1))
    yield np.tile(DATA, (251, 1))
    raise OSError("gone")


def test_validation_that_raises_loses_nothing(key, tmp_path):
    with pytest.raises(OSError, match="gone") as caught:
        fit(key, Stream(99), val_data=Stream(7, OSError("gone")), checkpoint=tmp_path)
    assert len(reached(caught).losses["val"]) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["fit-00000007.ckpt"]


def leave(snapshot):
    if snapshot.metrics.get("epoch", 0) >= 3 or snapshot.metrics["step"] >= 30:
        raise SystemExit(3)


def falling(params, static, key):
    return -params.n


@pytest.mark.parametrize("kind", ["rows", "stream", "ensemble", "steps"])
def test_a_callback_that_ends_the_program_loses_nothing(key, tmp_path, kind):
    kwargs = {"callbacks": leave, "checkpoint": tmp_path, "show_progress": False}
    with pytest.raises(SystemExit) as caught:  # noqa: PT012
        if kind == "rows":
            fit(key, DATA, **kwargs)
        elif kind == "stream":
            fit(key, Stream(99), **kwargs)
        elif kind == "ensemble":
            fit_ensemble_to_data(key, lambda key: gaussian(), DATA, members=2, max_epochs=12, max_patience=99, **kwargs)
        else:
            fit_to_key_based_loss(key, Counter(), loss_fn=falling, steps=500, optimizer=optax.sgd(1.0), **kwargs)
    assert caught.value.code == 3
    assert reached(caught).fitted is not None
    assert len(reached(caught).losses) > 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".ckpt"]


@pytest.mark.parametrize("which", ["data", "val_data"])
def test_a_stream_that_blocks_does_not_hold_up_an_interrupt(key, tmp_path, which):
    blocked = threading.Event()

    def blocks():
        yield DATA[:10]
        if count[0] >= 3:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
            blocked.wait(25)
        count[0] += 1
        yield DATA[10:20]

    count, start = [0], time.monotonic()
    kwargs = {"val_data": blocks} if which == "val_data" else {}
    with pytest.warns(UserWarning, match="interrupted"):
        _, losses = fit(key, Stream(99) if kwargs else blocks, checkpoint=tmp_path, max_epochs=50, **kwargs)
    seconds = time.monotonic() - start
    blocked.set()
    assert seconds < 12
    assert losses.report.stopped == "interrupted"
    assert list(tmp_path.glob("*.ckpt"))


def test_an_empty_name_is_no_directory(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must name a directory"):
        fit(key, DATA, checkpoint="")
    assert not list(tmp_path.iterdir())


def test_a_second_fit_in_one_directory_is_refused_while_the_first_lives(key, tmp_path):
    seen = []

    def second(snapshot):
        with pytest.raises(CheckpointError, match=f"Another fit .process {os.getpid()} on .* keeps") as caught:
            fit(key, DATA, checkpoint=tmp_path)
        seen.append(caught.value)
        return True

    fit(key, DATA, checkpoint=tmp_path, callbacks=second)
    assert len(seen) == 1
    _, losses = fit(key, DATA, checkpoint=tmp_path)
    assert losses.report.resumed


HOLD = """
import sys, time
from flowlib.train._lock import DirectoryLock
lock = DirectoryLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("locks", [True, False], ids=["with locks of files", "without"])
def test_a_lock_of_a_dead_process_is_none(tmp_path, locks, monkeypatch):
    from flowlib.train import _lock

    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    if not locks:
        monkeypatch.setattr(_lock, "fcntl", None)
    with pytest.raises(CheckpointError, match=f"process {process.pid} "):
        _lock.DirectoryLock(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".fit-lock").exists()
    lock = _lock.DirectoryLock(tmp_path)
    with pytest.raises(CheckpointError, match=f"process {os.getpid()} "):
        _lock.DirectoryLock(tmp_path)
    lock.release()
    assert not list(tmp_path.iterdir())
