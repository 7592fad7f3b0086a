"""What the first fit costs in a new process: building a flow and 20 epochs, all compiling included.

Imports and the making of the data are not. "Kept" is flowlib with `flowlib.keep_compiled` in a process that is not the
first with this fit.

Usage: python benchmarks/fit_cold.py [--short] [--rows 9000]
"""

import argparse
import importlib
import tempfile

import jax.random as jr

from _flows import DIM, FLOWS, LIBRARIES, data, make
from _report import arguments, machine, print_table, ratio, side_by_side, spread
from _timing import in_new_process, processes_in_turns, seconds

EPOCHS = 20


def once(library: str, name: str, rows: int, kept: str | None = None) -> float:
    if kept is not None:
        importlib.import_module("flowlib").keep_compiled(kept)
    fit_to_data = importlib.import_module(f"{library}.train").fit_to_data
    x, key = data(rows).block_until_ready(), jr.key(2)
    importlib.import_module(f"{library}.flows")
    return seconds(
        lambda: fit_to_data(key, make(library, name), x, max_epochs=EPOCHS, max_patience=EPOCHS, show_progress=False)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=9000)
    options = arguments(__doc__, parser)
    names, repeats = (("coupling RQS", "BNAF"), 1) if options.short else (FLOWS, 5)
    print(f"{machine()}\n{options.rows} rows of {DIM}, {EPOCHS} epochs, processes for each: {repeats}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            calls: dict[str, tuple] = {library: (library, name, options.rows) for library in LIBRARIES}
            calls["kept"] = ("flowlib", name, options.rows, folder)
            in_new_process(once, *calls["kept"])
            ours, theirs, kept = processes_in_turns(once, calls, repeats).values()
            row = {"flow": name, **side_by_side(ours, theirs, "s")}
            rows.append(row | {"kept, s": spread(kept), "FlowJAX / kept": ratio(theirs, kept)})
    print_table(rows)


if __name__ == "__main__":
    main()
