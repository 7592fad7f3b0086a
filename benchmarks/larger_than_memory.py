"""A fit to a file ten times larger than the memory that the process may use.

python benchmarks/larger_than_memory.py [--short] [--cap 512] [--columns 64] [--steps 4000] [--folder /tmp]

Linux only: RLIMIT_DATA bounds private memory and does not count pages of files, which the system takes back at will.
The limit is set after a fit to the first few rows, `--cap` MiB above what Python, JAX and what they compiled use by
then. That it holds is shown by reading the file as a whole. The file is removed at the end.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from _memory import Peak, mib
from _report import arguments, machine, number, print_table

TIMES = 10
BATCH = 1000


def write(path: Path, rows: int, columns: int) -> None:
    """Rows of normal numbers, the odd columns of which depend on the even ones; none of it stays in memory."""
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, rows, 100_000):
            x = rng.standard_normal((min(100_000, rows - start), columns), np.float32)
            x[:, 1::2] += np.sin(2 * x[:, ::2])
            x.tofile(file)
        file.flush()
        os.fsync(file.fileno())
        # So that the fit reads from the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def train(path: str, columns: int, cap: int, steps: int) -> dict:
    """The fit, in a process of its own."""
    import jax.random as jr

    from flowlib.distributions import StandardNormal
    from flowlib.flows import coupling_flow
    from flowlib.train import fit_to_data

    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((columns,)), flow_layers=4, nn_width=64)
    x = np.memmap(path, np.float32, "r").reshape(-1, columns)

    def fit(x, steps):
        return fit_to_data(
            jr.key(1), flow, x, batch_size=BATCH, max_steps=steps, max_epochs=100, val_prop=0.1 if steps == 1 else 1e-3,
            show_progress=False,
        )[1]  # fmt: skip

    fit(x[: 10 * BATCH], 1)
    before = mib("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (int((before + cap) * 2**20),) * 2)
    try:
        np.array(x)
        refused = False
    except MemoryError:
        refused = True
    in_use, start = mib("RssAnon"), time.monotonic()

    with Peak() as peak:
        losses = fit(x, steps)
    return {
        "refused": refused,
        "before": in_use,
        "peak": peak.mib,
        "file": mib("RssFile"),
        "steps": losses.report.steps,
        "epochs": losses.report.epochs,
        "seconds": losses.report.seconds,
        "to begin": time.monotonic() - start - losses.report.seconds,
        "losses": losses["val"],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cap", type=int, help="MiB that the fit may use; 512, or 256 with --short")
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--steps", type=int, help=f"of {BATCH} rows; 4000, or 500 with --short")
    parser.add_argument("--folder", help="where the file goes; defaults to the system's for temporary files")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = arguments(__doc__, parser)
    cap = options.cap or (256 if options.short else 512)
    steps = options.steps or (500 if options.short else 4000)
    if options.train:
        print(json.dumps(train(options.train, options.columns, cap, steps)))
        return
    rows = TIMES * cap * 2**20 // (4 * options.columns)
    print(f"{machine()}\n{rows:,} rows of {options.columns} float32, {TIMES * cap:,} MiB; a cap of {cap} MiB\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.2 * TIMES * cap * 2**20:
            sys.exit(f"{TIMES * cap:,} MiB expected on the disk, got {free // 2**20:,} free: try a smaller --cap.")
        path = Path(folder) / "rows.bin"
        write(path, rows, options.columns)
        own = ["--cap", str(cap), "--columns", str(options.columns), "--steps", str(steps), "--train", str(path)]
        done = subprocess.run([sys.executable, __file__, *own], stdout=subprocess.PIPE, text=True, check=True)
    got = json.loads(done.stdout.splitlines()[-1])
    refused = "refused" if got["refused"] else "NOT REFUSED"
    print_table(
        [
            {
                "the whole file in memory": refused,
                "private memory before, MiB": number(got["before"]),
                "peak during the fit, MiB": number(got["peak"]),
                "more than before, MiB": number(got["peak"] - got["before"]),
                "pages of files, MiB": number(got["file"]),
                "steps": str(got["steps"]),
                "s until the first": number(got["to begin"]),
                "s of fitting": number(got["seconds"]),
                "rows a s": number(got["steps"] * BATCH / got["seconds"]),
                "validation loss": ", ".join(map(number, got["losses"])),
            }
        ]
    )
    sys.exit(not got["refused"])


if __name__ == "__main__":
    main()
