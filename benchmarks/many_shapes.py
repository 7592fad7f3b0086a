"""Fits of ever other shapes in one process: memory maps and memory stay bounded, and refits compile nothing.

Each fit compiles programs of its own, and a process has only so many memory maps for them: without releases, some fifty
fits of a default coupling flow end it.

Usage: python benchmarks/many_shapes.py [--fits 200]
"""

import argparse
import resource
from pathlib import Path

import jax.random as jr
import numpy as np

from _compilations import count_compilations
from _report import arguments, machine, print_table
from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data


def count_maps() -> int:
    """The memory maps of this process."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def fit(rows: int) -> None:
    """A fit whose programs depend on the number of rows."""
    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((3,)))
    x = np.random.default_rng(rows).normal(size=(rows, 3))
    fit_to_data(jr.key(1), flow, x, max_epochs=2, show_progress=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fits", type=int, default=200)
    options = arguments(__doc__, parser)
    print(f"{machine()}\na process may have {Path('/proc/sys/vm/max_map_count').read_text().strip()} memory maps\n")
    rows, most = [], 0
    for i in range(1, options.fits + 1):
        fit(200 + i)
        most = max(most, count_maps())
        if i % 20 == 0 or i == options.fits:
            refits = [count_compilations(lambda n=200 + i - again: fit(n))[1] for again in range(3)]
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rows.append(
                {
                    "fits": str(i),
                    "memory maps": str(count_maps()),
                    "most so far": str(most),
                    "peak memory, MB": f"{memory:.0f}",
                    "compiled by three refits": str(sum(refits)),
                }
            )
            print(rows[-1], flush=True)
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
