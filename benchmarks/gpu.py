"""Fits and throughput on an accelerator: epochs beside FlowJAX's, draws and densities beside the memory bandwidth.

The limit is the rate at which a copy moves the bytes that must move: events read and log densities written, or events
written. No flow reaches it, for its layers compute; the share says how far that is away.

On a CPU it runs small, to be checked. `run_all.py` puts what is in `benchmarks/gpu_results.md` into the page.

Usage: python -u benchmarks/gpu.py [--short] [--rows 262144] | tee benchmarks/gpu_results.md
"""

import argparse
import datetime as dt
import statistics
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from _fits import fit_of
from _flows import LIBRARIES, data, make
from _report import arguments, machine, number, print_table, side_by_side
from _timing import in_turns, seconds

FLOW, EPOCHS, BATCHES_AN_EPOCH = "coupling RQS", 3, 100


@eqx.filter_jit
def log_prob(flow, x):
    return flow.log_prob(x)


@eqx.filter_jit
def sample(flow, key, rows):
    return flow.sample(key, (rows,))


def copied_bytes_a_second(size: int) -> float:
    """The best of ten: what an elementwise operation reads and writes."""
    x = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / min(seconds(partial(add, x)) for _ in range(10))


def epochs(batches: tuple[int, ...], dims: tuple[int, ...], repeats: int) -> None:
    """An epoch is 90 batches of training and 10 of validation."""
    rows = []
    for dim in dims:
        flows = {library: make(library, FLOW, dim=dim) for library in LIBRARIES}
        for batch in batches:
            x = data(BATCHES_AN_EPOCH * batch, dim)
            fits = {library: fit_of(library, EPOCHS, batch) for library in LIBRARIES}
            calls = {library: partial(fits[library], jr.key(2), flow, x) for library, flow in flows.items()}
            ours, theirs = (times.scaled(1e3 / EPOCHS) for times in in_turns(calls, repeats).values())
            rows.append({"D": str(dim), "batch": f"{batch:,}", **side_by_side(ours, theirs, "ms an epoch")})
    print_table(rows)


def throughput(rows: int, dims: tuple[int, ...], bandwidth: float, repeats: int) -> None:
    table = []
    for dim in dims:
        x = data(rows, dim)
        flows = {library: make(library, FLOW, dim=dim) for library in LIBRARIES}
        tasks = {
            "log_prob": ({library: partial(log_prob, flow, x) for library, flow in flows.items()}, 4 * (dim + 1)),
            "sample": ({library: partial(sample, flow, jr.key(2), rows) for library, flow in flows.items()}, 4 * dim),
        }
        for name, (calls, row_bytes) in tasks.items():
            ours, theirs = (times.milliseconds for times in in_turns(calls, repeats).values())
            median = statistics.median(ours)
            limit = 1e3 * rows * row_bytes / bandwidth
            table.append(
                {
                    "": name,
                    "D": str(dim),
                    **side_by_side(ours, theirs, "ms"),
                    "flowlib, rows a second": number(1e3 * rows / median),
                    "at the bandwidth, ms": number(limit),
                    "share of it": f"{100 * limit / median:.2g}%",
                }
            )
    print_table(table)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2**18, help="for the throughput")
    options = arguments(__doc__, parser)
    on_cpu = jax.devices()[0].platform == "cpu"
    dims, batches = ((8,), (100,)) if on_cpu else ((8, 64), (100, 1024, 16_384))
    rows = min(options.rows, 10_000) if on_cpu else options.rows
    repeats = 3 if options.short else 9
    print(f"{dt.date.today()}, {machine()}; {FLOW}, 8 layers, width 50\n")
    epochs(batches, dims, repeats)
    bandwidth = copied_bytes_a_second(2**27 if on_cpu else 2**30)
    print(f"\n{rows:,} rows; a copy moves {number(bandwidth / 1e9)} GB/s\n")
    throughput(rows, dims, bandwidth, repeats)


if __name__ == "__main__":
    main()
