"""The bar of a fit."""

import numpy as np

from flowlib.train import fit_to_data
from flowlib.train._progress import Progress
from train_tools import gaussian


def test_the_bar_says_compiling_until_the_first_dispatch_is_done(key, capsys):
    x = np.random.default_rng(0).normal(size=(50, 2))
    fit_to_data(key, gaussian(), x, max_epochs=3)
    first, *later = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.strip()]
    assert first.startswith("compiling:")
    assert later
    assert not any("compiling" in line for line in later)
    assert "3/3" in later[-1]


def test_speed_and_time_left_leave_the_compiler_out(capsys):
    with Progress(100, "epoch", show=True, done=10) as progress:
        # As if the first dispatch had taken a quarter of an hour.
        progress._bar.start_t -= 1000
        progress._bar.last_print_t -= 1000
        progress.show(20, train=1.0)
        after_first = progress._bar.format_dict
        progress.show(30, train=1.0)
        later = progress._bar.format_dict
    assert after_first["elapsed"] < 10
    assert (after_first["n"], after_first["initial"]) == (20, 20)
    assert later["n"] == 30
    assert later["rate"] is None or later["rate"] > 1
    with Progress(10, "epoch", show=False) as progress:
        progress.show(5)
