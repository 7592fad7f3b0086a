"""What `Scan(gradient=...)` costs in memory and time: the gradient of a coupling flow's mean `log_prob`.

The difference is that of the gradients from the stored one, leaf by leaf, relative to the leaf's norm: the largest.

Usage: python benchmarks/gradient_memory.py [--short] [--rows 10000]
"""

import argparse
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from _flows import DIM, data, make
from _report import arguments, machine, number, print_table, spread
from _timing import in_turns
from flowlib.parameters import partition_trainable

GRADIENTS = ("store", "recompute", "rebuild")


def compiled_gradient(flow, x):
    params, static = partition_trainable(flow)

    def loss(params, x):
        return -eqx.combine(params, static).log_prob(x).mean()

    program = jax.jit(jax.grad(loss)).lower(params, x).compile()
    return partial(program, params, x), program.memory_analysis().temp_size_in_bytes


def difference(found, wanted):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) + 1e-12)) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    options = arguments(__doc__, parser)
    names = ("coupling RQS",) if options.short else ("coupling affine", "coupling RQS", "triangular spline")
    print(f"{machine()}\n{options.rows:,} rows of {DIM}\n")
    x = data(options.rows)
    rows = []
    for name in names:
        for layers in (8, 64):
            flows = {gradient: make("flowlib", name, layers=layers, gradient=gradient) for gradient in GRADIENTS}
            programs = {gradient: compiled_gradient(flow, x) for gradient, flow in flows.items()}
            times = in_turns({gradient: call for gradient, (call, _) in programs.items()}, 3 if options.short else 9)
            stored = programs["store"][0]()
            for gradient, (call, memory) in programs.items():
                rows.append(
                    {
                        "flow": name,
                        "layers": str(layers),
                        "gradient": gradient,
                        "scratch memory, MiB": number(memory / 2**20),
                        "time, ms": spread(times[gradient].milliseconds),
                        "difference": f"{difference(call(), stored):.0e}",
                    }
                )
    print_table(rows)


if __name__ == "__main__":
    main()
