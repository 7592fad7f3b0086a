"""What a checkpoint is bound to: nothing that makes another fit goes on from it without a word."""

import inspect

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib.errors import CheckpointMismatchError
from flowlib.train import fit_to_data
from flowlib.train._settings import DECISIONS, bound_settings
from train_tools import gaussian, halves

ROWS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
KWARGS = {"show_progress": False, "batch_size": 10, "max_patience": 99}


def fit(path, data, max_epochs, **kwargs):
    return fit_to_data(jr.key(0), gaussian(), data, checkpoint=path, max_epochs=max_epochs, **{**KWARGS, **kwargs})


def test_there_is_a_decision_about_every_argument():
    assert DECISIONS.keys() == inspect.signature(fit_to_data).parameters.keys()
    with pytest.raises(KeyError, match="a_new_one"):
        bound_settings({"key": 1, "a_new_one": 2})


def batches(rows, size=10):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def tuples(rows, size=10):
    return [(batch,) for batch in batches(rows, size)]


def function_of(made):
    def stream():
        yield from made

    return stream


VAL = ROWS[:20]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("steps_per_epoch", (function_of(batches(ROWS)), {"steps_per_epoch": 3}), (..., {"steps_per_epoch": 4})),
        ("rows of data", (function_of(batches(ROWS)), {}), (function_of(batches(ROWS, 12)), {})),
        ("rows of data", (tuples(ROWS), {}), (tuples(ROWS + 1), {})),
        ("other data: column 0", (function_of(batches(ROWS)), {}), (function_of(batches(ROWS + 3)), {})),
        ("val_data", (function_of(batches(ROWS)), {"val_data": VAL}), (..., {"val_data": VAL + 1})),
        ("rows of val_data", (tuples(ROWS), {"val_data": tuples(VAL)}), (..., {"val_data": tuples(1 - VAL)})),
        ("val_data", (function_of(batches(ROWS)), {"val_data": VAL}), (..., {})),
    ],
    ids=["steps", "sizes", "contents", "of a function", "val_data", "a stream of val_data", "no val_data"],
)  # fmt: skip
def test_another_stream_is_refused_by_name(tmp_path, name, first, second):
    (data, kwargs), (other, others) = first, second
    fit(tmp_path, data, 2, **kwargs)
    _, losses = fit(tmp_path, data, 3, **kwargs)
    assert losses.report.resumed
    with pytest.raises(CheckpointMismatchError, match=name):
        fit(tmp_path, data if other is ... else other, 4, **others)


def test_another_file_is_refused_by_name(tmp_path):
    file = np.memmap(tmp_path / "rows", dtype=np.float32, mode="w+", shape=ROWS.shape)
    file[:] = ROWS
    fit(tmp_path / "kept", file, 2)
    assert fit(tmp_path / "kept", file, 3)[1].report.resumed
    with pytest.raises(CheckpointMismatchError, match=r"val_prop is 0\.3 and was 0\.1"):
        fit(tmp_path / "kept", file, 3, val_prop=0.3)
    file[:] = ROWS[::-1]
    with pytest.raises(CheckpointMismatchError, match="rows of data"):
        fit(tmp_path / "kept", file, 3)


def loss_of_a_global(params, static, x, *, key):
    return (jnp.exp(SCALES[0]) + 1) * (x - jax.tree.leaves(params)[0]).std() + 0 * len(halves(static))


SCALES = [0.0]


def test_a_loss_far_from_where_the_fit_was_warns(tmp_path):
    fit(tmp_path, ROWS, 5, loss_fn=loss_of_a_global)
    SCALES[0] = 9.0
    jax.clear_caches()
    try:
        with pytest.warns(UserWarning, match="at the checkpoint and is"):
            fit(tmp_path, ROWS, 6, loss_fn=loss_of_a_global)
    finally:
        SCALES[0] = 0.0
