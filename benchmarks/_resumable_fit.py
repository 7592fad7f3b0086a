"""The fit that `kill_and_resume.py` kills: `_resumable_fit.py <result> <epochs> [<directory of checkpoints>]`."""

import sys

import jax
import jax.random as jr
import numpy as np

from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data


def main(result: str, epochs: str, directory: str | None = None) -> None:
    """Fit a small coupling flow to made-up rows, and write losses and parameters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 4)).astype(np.float32)
    x[:, 1] += np.sin(2 * x[:, 0])
    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((4,)), flow_layers=4, nn_width=32)
    fitted, losses = fit_to_data(
        jr.key(1), flow, x, max_epochs=int(epochs), max_patience=int(epochs), checkpoint=directory, checkpoint_every=1,
        show_progress=False,
    )  # fmt: skip
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(fitted) if isinstance(leaf, jax.Array)]
    np.savez(result, *leaves, train=losses["train"], val=losses["val"])


if __name__ == "__main__":
    main(*sys.argv[1:])
