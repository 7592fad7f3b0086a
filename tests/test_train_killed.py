"""A fit that is killed with SIGKILL, and run again, ends with the bits of one that never was."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import killed_fit


def run(*arguments):
    """The exit status of such a fit, and what it said."""
    command = [sys.executable, killed_fit.__file__, *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="has no SIGKILL")
def test_a_killed_fit_run_again_ends_with_the_same_bits(tmp_path):
    checkpoints, reached = tmp_path / "checkpoints", []
    # In the midst of the writing of different checkpoints, and before and after a file has its name.
    for call in (19, 12):
        status, message = run(tmp_path / "killed.npz", checkpoints, call)
        assert status == -signal.SIGKILL, message
        reached.append(max(path.name for path in checkpoints.glob("fit-*.ckpt")))
    assert reached == sorted(set(reached))
    for arguments in [("killed.npz", checkpoints), ("whole.npz",)]:
        status, message = run(tmp_path / arguments[0], *arguments[1:])
        assert status == 0, message
    killed, whole = np.load(tmp_path / "killed.npz"), np.load(tmp_path / "whole.npz")
    assert killed["resumed"]
    assert not whole["resumed"]
    assert len(whole["val"]) == killed_fit.EPOCHS
    assert set(killed.files) == set(whole.files)
    for name in set(whole.files) - {"resumed"}:
        assert killed[name].tobytes() == whole[name].tobytes()
    # What the killed ones left is gone.
    assert all(name.endswith(".ckpt") for name in os.listdir(checkpoints))
