"""A fit on all devices of a cluster: start the same command once on each machine, or run it on one, in seconds.

    python examples/cluster_fit.py                                          # one process, all its devices
    srun --ntasks-per-node=1 python examples/cluster_fit.py --cluster       # Slurm, Open MPI, Kubernetes, TPU pods
    python examples/cluster_fit.py --cluster HOST:PORT PROCESSES NUMBER     # anywhere else, NUMBER counted from 0

The checkpoints must be in a directory that all machines share: after a failure the same command goes on from there.
"""

import argparse

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data

STEPS, BATCH_PER_DEVICE = 40, 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", nargs="*", metavar="HOST:PORT PROCESSES NUMBER")
    parser.add_argument("--checkpoint", help="a directory that all machines share")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.cluster is not None:
        # Before anything else that uses JAX. Without arguments, the cluster's own scheduler is asked.
        if arguments.cluster:
            address, processes, number = arguments.cluster
            jax.distributed.initialize(address, int(processes), int(number))
        else:
            jax.distributed.initialize()

    # One axis: every device works on a part of each batch. A second axis "model" would divide wide parameters, as in
    # jax.make_mesh((jax.device_count() // 4, 4), ("data", "model")).
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    # The same key, and so the same initial flow, in every process; rows of its own in each.
    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=4, nn_width=32)
    own_rows = BATCH_PER_DEVICE * jax.local_device_count()

    fitted, losses = fit_to_data(
        jr.key(1),
        flow,
        lambda: own_batches(jax.process_index(), STEPS, own_rows),
        val_data=list(own_batches(10_000 + jax.process_index(), 5, own_rows)),
        mesh=mesh,
        learning_rate=3e-3,
        max_epochs=arguments.epochs,
        checkpoint=arguments.checkpoint,
        checkpoint_every=1,
        show_progress=False,
    )
    # Every process has the whole result; one of them tells, and would save it with flowlib.save.
    if jax.process_index() == 0:
        print(f"{jax.process_count()} processes, {jax.device_count()} devices: {losses.report}")
        print("validation losses:", *(f"{loss:.4f}" for loss in losses["val"]))
        print(f"log density at (1, 1): {float(fitted.log_prob(jnp.ones(2))):.3f}")


def own_batches(seed, steps, rows):
    """Batches of two half circles with noise; with files, read those of `files[jax.process_index() :: processes]`.

    As many batches of as many rows in every process.
    """
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        angle, upper = rng.uniform(0, np.pi, rows), rng.integers(0, 2, rows)
        sign = 1 - 2 * upper
        x = np.stack([upper + sign * np.cos(angle), 0.5 * upper + sign * np.sin(angle)], axis=-1)
        yield (x + 0.1 * rng.normal(size=x.shape),)


if __name__ == "__main__":
    main()
