"""Does memory grow with the number of fits? Fits of all kinds, again and again, and the private memory in use.

python benchmarks/soak.py [--short] [--minutes 30]

Linux only. Each round fits rows, a stream, a file, a target without data and a flow built anew, some with checkpoints.
The exit status is 1 if memory grew by 2 % or more over the last two thirds of the time.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _memory import mib
from _report import arguments, machine, number, print_table
from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data, fit_to_variational_target

TOLERATED = 0.02
DIM = 4
X = np.random.default_rng(0).normal(size=(2000, DIM)).astype(np.float32)
# Of as many rows each, but one: both ways to go through a stream.
BATCHES = np.array_split(X, range(128, len(X), 128))


def build(number: int):
    return coupling_flow(jr.key(number), base_dist=StandardNormal((DIM,)), flow_layers=2, nn_width=16)


def target(x):
    return -0.5 * ((x - 1) ** 2).sum() - 0.1 * jnp.square(jnp.square(x)).sum()


def kinds(file: Path) -> dict[str, Callable[..., object]]:
    """Functions of a number and of where checkpoints go, or None."""
    flow = build(0)
    quiet = {"show_progress": False, "max_epochs": 5, "checkpoint_every": 2}

    def rows(number, place):
        return fit_to_data(jr.key(number), flow, X, checkpoint=place, callbacks=lambda s: s.best(), **quiet)

    def new_flow(number, place):
        return fit_to_data(jr.key(number), build(number), X, weights=np.arange(1, 2001), checkpoint=place, **quiet)

    def stream(number, place):
        return fit_to_data(jr.key(number), flow, lambda: iter(BATCHES), val_data=X[:200], checkpoint=place, **quiet)

    def cut_stream(number, place):
        return fit_to_data(jr.key(number), flow, lambda: iter(BATCHES), max_steps=20, checkpoint=place, **quiet)

    def mapped(number, place):
        x = np.memmap(file, np.float32, "r").reshape(-1, DIM)
        return fit_to_data(jr.key(number), flow, x, checkpoint=place, **quiet)

    def variational(number, place):
        return fit_to_variational_target(
            jr.key(number), flow, target, steps=200, show_progress=False, return_best=True, checkpoint=place,
            checkpoint_every=50,
        )  # fmt: skip

    return {each.__name__: each for each in (rows, new_flow, stream, cut_stream, mapped, variational)}


def fits(seconds: float, done: dict[str, int]) -> Iterator[tuple[float, float]]:
    """Minutes since the start, and the memory in use, after each round."""
    with tempfile.TemporaryDirectory() as folder:
        X.tofile(Path(folder) / "rows.bin")
        calls, start, number = kinds(Path(folder) / "rows.bin"), time.monotonic(), 0
        while time.monotonic() - start < seconds:
            for name, call in calls.items():
                for checkpointed in (False, True):
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        call(number, place if checkpointed else None)
                    done[name] = done.get(name, 0) + 1
            number += 1
            gc.collect()
            yield (time.monotonic() - start) / 60, mib("RssAnon")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, help="30, or 2 with --short")
    options = arguments(__doc__, parser)
    minutes = options.minutes or (2 if options.short else 30)
    print(f"{machine()}\n{minutes:g} minutes\n", flush=True)
    done: dict[str, int] = {}
    samples = list(fits(60 * minutes, done))
    rows, last = [], int(samples[-1][0])
    for minute in range(last + 1):
        values = [value for at, value in samples if int(at) == minute]
        if values:
            rows.append(
                {
                    "minute": str(minute + 1),
                    "rounds": str(len(values)),
                    "median, MiB": f"{statistics.median(values):.1f}",
                    "most, MiB": f"{max(values):.1f}",
                }
            )
    print_table(rows)
    counts = ", ".join(f"{count} {name}" for name, count in done.items())
    print(f"\nfits: {counts}; {len(jax.live_arrays())} arrays live")
    # The middle third beside the last one: the first is that of compiling.
    middle = [value for at, value in samples if minutes / 3 <= at < 2 * minutes / 3]
    end = [value for at, value in samples if at >= 2 * minutes / 3]
    if not middle or not end:
        sys.exit("too few rounds for a verdict: give it more --minutes.")
    growth = statistics.median(end) / statistics.median(middle) - 1
    verdict = "grows" if growth >= TOLERATED else "does not grow"
    tolerated = number(100 * TOLERATED)
    print(f"Memory {verdict}: {100 * growth:+.1f} % from the middle third to the last; less than {tolerated} may be.")
    sys.exit(growth >= TOLERATED)


if __name__ == "__main__":
    main()
