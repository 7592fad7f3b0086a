"""What `fit_to_data` costs beyond the work itself: 50 epochs of a small flow beside a `lax.scan` of the same steps.

python benchmarks/fit_overhead.py [--short] [--rows 1000] [--dim 2]
"""

import argparse
from functools import partial

import jax.random as jr

from _fits import fit_by_hand, fit_of
from _flows import data, make
from _report import arguments, machine, number, print_table, ratio, spread
from _timing import in_turns
from flowlib.parameters import count_parameters

EPOCHS = 50


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000, help="a multiple of 1000: then all batches are full")
    parser.add_argument("--dim", type=int, default=2)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.rows} rows of {options.dim}, {EPOCHS} epochs\n")
    x = data(options.rows, options.dim)
    rows = []
    for name in ("coupling affine", "MAF affine"):
        flow = make("flowlib", name, dim=options.dim)
        calls = {
            "by hand": partial(fit_by_hand, jr.key(2), flow, x, EPOCHS),
            "flowlib": partial(fit_of("flowlib", EPOCHS), jr.key(2), flow, x),
        }
        hand, ours = in_turns(calls, 3 if options.short else 9).values()
        rows.append(
            {
                "flow": f"{name}, {count_parameters(flow)} parameters",
                "by hand, s": spread(hand.later),
                "flowlib, s": spread(ours.later),
                "flowlib / by hand": ratio(ours.later, hand.later),
                "first call by hand, s": number(hand.first),
                "first call flowlib, s": number(ours.first),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
