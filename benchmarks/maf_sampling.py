"""What draws from a masked autoregressive flow cost, the direction that goes coordinate by coordinate.

python benchmarks/maf_sampling.py [--short] [--dim 64] [--draws 1000]
"""

import argparse
from functools import partial

import equinox as eqx
import jax.random as jr

from _flows import LIBRARIES, make
from _report import arguments, machine, number, print_table, side_by_side
from _timing import in_turns

WIDTH = 128


@eqx.filter_jit
def sample(flow, key, draws):
    return flow.sample(key, (draws,))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1000)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.draws:,} draws of {options.dim}, width {WIDTH}\n")
    rows = []
    for name in ("MAF affine", "MAF RQS"):
        flows = {library: make(library, name, dim=options.dim, width=WIDTH) for library in LIBRARIES}
        calls = {library: partial(sample, flow, jr.key(2), options.draws) for library, flow in flows.items()}
        ours, theirs = in_turns(calls, 3 if options.short else 11).values()
        rows.append(
            {
                "flow": name,
                **side_by_side(ours.milliseconds, theirs.milliseconds, "ms"),
                "first call flowlib, s": number(ours.first),
                "first call FlowJAX, s": number(theirs.first),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
