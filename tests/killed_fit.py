"""One fit, in a process of its own, that can kill itself: `killed_fit.py <file for the result> [<directory> <call>]`.

It has checkpoints in the directory. With a number `call` above 0 it ends by SIGKILL instead of the call of that number
to `os.fsync` or `os.replace`, two or three of which write a checkpoint.
"""

import os
import signal
import sys

import jax
import jax.random as jr
import numpy as np

from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data

EPOCHS = 40


def main(result: str, directory: str | None = None, call: str = "0") -> None:
    """Fit, and write losses and parameters."""
    count = 0

    def deadly(function):
        def counted(*args):
            nonlocal count
            count += 1
            if count == int(call):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return counted

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    data = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=2, nn_width=8)
    fitted, losses = fit_to_data(
        jr.key(1), flow, data, max_epochs=EPOCHS, max_patience=EPOCHS, checkpoint=directory, checkpoint_every=1,
        show_progress=False,
    )  # fmt: skip
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(fitted) if isinstance(leaf, jax.Array)]
    np.savez(result, *leaves, train=losses["train"], val=losses["val"], resumed=losses.report.resumed)


if __name__ == "__main__":
    main(*sys.argv[1:])
