"""A process that fits flows of ever other shapes lives on, and one whose shapes recur compiles nothing."""

import jax.random as jr
import numpy as np
import pytest

from flowlib import _programs
from flowlib.train import fit_ensemble_to_data, fit_to_data, fit_to_key_based_loss
from train_tools import Counter, gaussian

KWARGS = {"max_epochs": 1, "show_progress": False}


def falling(params, static, key):
    return -params.n


def fit(kind, rows):
    data = np.random.default_rng(0).normal(size=(rows, 2))
    if kind == "rows":
        fit_to_data(jr.key(0), gaussian(), data, **KWARGS)
    elif kind == "stream":
        fit_to_data(jr.key(0), gaussian(), [(data,)], **KWARGS)
    elif kind == "ensemble":
        fit_ensemble_to_data(jr.key(0), lambda key: gaussian(), data, members=2, **KWARGS)
    else:
        fit_to_key_based_loss(jr.key(0), Counter(), loss_fn=falling, steps=2, show_progress=False)


@pytest.mark.skipif(not _programs.count_maps(), reason="this system does not count memory maps")
@pytest.mark.parametrize("kind", ["rows", "stream", "ensemble", "steps"])
def test_programs_are_released_when_maps_are_many(kind, monkeypatch, compiles):
    fit(kind, 31)
    count = _programs.count_maps()
    monkeypatch.setattr(_programs, "PROGRAMS", programs := _programs.Programs())
    for module in ("_fit", "_ensemble", "_key_based"):
        monkeypatch.setattr(f"flowlib.train.{module}.PROGRAMS", programs)
    # Below the bound nothing is lost.
    with compiles.expect_none():
        fit(kind, 31)
    monkeypatch.setattr(_programs, "most_maps", lambda: count - 50)
    programs.__init__()
    before = compiles.compiled
    fit(kind, 31)
    assert compiles.compiled > before
    assert _programs.count_maps() < count + 1000


@pytest.mark.skipif(not _programs.count_maps(), reason="this system does not count memory maps")
def test_fits_of_many_shapes_stay_below_the_bound(monkeypatch):
    programs, most = _programs.Programs(), _programs.count_maps() + 100
    monkeypatch.setattr("flowlib.train._fit.PROGRAMS", programs)
    monkeypatch.setattr(_programs, "most_maps", lambda: most)
    counts = []
    for rows in range(40, 45):
        fit("rows", rows)
        counts.append(_programs.count_maps())
    # A fit begins below the bound, and these take fewer than a thousand maps each.
    assert max(counts) < most + 1000


def test_maps_are_counted_seldom(monkeypatch):
    counted = []
    monkeypatch.setattr(_programs, "count_maps", lambda: counted.append(1) or 600)
    programs = _programs.Programs()
    assert not any(programs.release() for _ in range(80))
    assert len(counted) <= 10
    # And the bound leaves room for what is compiled between two counts.
    assert _programs.most_maps() < int(_programs._LIMIT.read_text() if _programs._LIMIT.exists() else 65_530)
