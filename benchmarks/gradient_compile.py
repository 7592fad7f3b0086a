"""What compiling the gradient of a wide flow costs: an RQS coupling flow of 100 columns, in a new process.

python benchmarks/gradient_compile.py [--short] [--dim 100] [--layers 8]
"""

import argparse
import time

import equinox as eqx
import jax

from _flows import LIBRARIES, data, make
from _report import arguments, machine, print_table, side_by_side
from _timing import processes_in_turns
from flowlib.parameters import partition_trainable

ROWS = 100


def once(library: str, dim: int, layers: int) -> dict[str, float]:
    params, static = partition_trainable(make(library, "coupling RQS", dim=dim, layers=layers))

    def loss(params, x):
        return -eqx.combine(params, static).log_prob(x).mean()

    x = jax.block_until_ready(data(ROWS, dim))
    start = time.perf_counter()
    lowered = jax.jit(jax.value_and_grad(loss)).lower(params, x)
    traced = time.perf_counter()
    lowered.compile()
    compiled = time.perf_counter()
    return {"tracing": traced - start, "compiling": compiled - traced, "both": compiled - start}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--layers", type=int, default=8)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{ROWS} rows of {options.dim}, {options.layers} layers\n")
    calls = {library: (library, options.dim, options.layers) for library in LIBRARIES}
    results = processes_in_turns(once, calls, 2 if options.short else 5)
    rows = []
    for what in ("tracing", "compiling", "both"):
        ours, theirs = ([once[what] for once in results[library]] for library in LIBRARIES)
        rows.append({"": what, **side_by_side(ours, theirs, "s")})
    print_table(rows)


if __name__ == "__main__":
    main()
