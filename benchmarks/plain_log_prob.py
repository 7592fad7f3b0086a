"""What `flow.log_prob(x)` costs as one types it, without a `jit` of one's own, beside the same call inside one.

python benchmarks/plain_log_prob.py [--short]
"""

from functools import partial

import equinox as eqx

from _flows import DIM, FLOWS, LIBRARIES, data, make
from _report import arguments, machine, number, print_table, side_by_side, spread
from _timing import in_turns

ROWS = 256


def plain(flow, x):
    return flow.log_prob(x)


def main():
    options = arguments(__doc__)
    names, repeats = (("coupling RQS", "MAF affine"), 3) if options.short else (FLOWS, 15)
    print(f"{machine()}\n{ROWS} rows of {DIM}\n")
    x = data(ROWS)
    rows = []
    for name in names:
        flows = {library: make(library, name) for library in LIBRARIES}
        calls = {f"{library} plain": partial(plain, flow, x) for library, flow in flows.items()}
        calls |= {f"{library} jitted": partial(eqx.filter_jit(plain), flow, x) for library, flow in flows.items()}
        times = in_turns(calls, repeats)
        rows.append(
            {
                "flow": name,
                **side_by_side(times["flowlib plain"].milliseconds, times["flowjax plain"].milliseconds, "plain, ms"),
                "flowlib, jitted, ms": spread(times["flowlib jitted"].milliseconds),
                "FlowJAX, jitted, ms": spread(times["flowjax jitted"].milliseconds),
                "first plain call flowlib, s": number(times["flowlib plain"].first),
                "first plain call FlowJAX, s": number(times["flowjax plain"].first),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
