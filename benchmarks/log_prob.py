"""What the density of many rows costs, compiled.

python benchmarks/log_prob.py [--short] [--rows 10000]
"""

import argparse
from functools import partial

import equinox as eqx

from _flows import DIM, LIBRARIES, data, make
from _report import arguments, machine, number, print_table, side_by_side
from _timing import in_turns


@eqx.filter_jit
def log_prob(flow, x):
    return flow.log_prob(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.rows:,} rows of {DIM}\n")
    x = data(options.rows)
    rows = []
    for name in ("coupling RQS", "MAF RQS", "BNAF", "triangular spline"):
        calls = {library: partial(log_prob, make(library, name), x) for library in LIBRARIES}
        ours, theirs = in_turns(calls, 7 if options.short else 25).values()
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
