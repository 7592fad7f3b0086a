"""What building a flow costs in a new process, the import excluded.

python benchmarks/construct_cold.py [--short]
"""

import importlib

import jax
import jax.random as jr

from _flows import FLOWS, LIBRARIES, make
from _report import arguments, machine, print_table, side_by_side
from _timing import processes_in_turns, seconds


def once(library: str, name: str) -> float:
    importlib.import_module(f"{library}.flows")
    jax.block_until_ready(jr.key(0))  # the device is ready
    return seconds(lambda: make(library, name))


def main():
    options = arguments(__doc__)
    names, repeats = (("coupling RQS", "BNAF", "triangular spline"), 2) if options.short else (FLOWS, 5)
    print(f"{machine()}\nprocesses for each: {repeats}\n")
    rows = []
    for name in names:
        ours, theirs = processes_in_turns(once, {library: (library, name) for library in LIBRARIES}, repeats).values()
        rows.append({"flow": name, **side_by_side(ours, theirs, "s")})
    print_table(rows)


if __name__ == "__main__":
    main()
