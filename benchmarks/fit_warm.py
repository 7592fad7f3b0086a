"""What a step of a fit costs once all is compiled: flowlib, FlowJAX, and a scan by hand over flowlib's `log_prob`.

A step is the time of a fit divided by its training steps; validation and all else that a fit does is in it.

Usage: python benchmarks/fit_warm.py [--short] [--rows 9000]
"""

import argparse
from functools import partial

import jax.random as jr

import _by_hand
from _fits import BATCH, VAL_PROP, fit_by_hand, fit_of, fit_plain_jax
from _flows import DIM, FLOWS, LIBRARIES, data, make
from _report import arguments, machine, number, print_table, ratio, side_by_side, spread
from _timing import in_turns


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=9000, help="a multiple of 1000: then all batches are full")
    options = arguments(__doc__, parser)
    epochs, repeats = (4, 3) if options.short else (20, 5)
    print(f"{machine()}\n{options.rows} rows of {DIM}, batches of {BATCH}, {epochs} epochs a fit\n")
    x, key = data(options.rows), jr.key(2)
    steps = epochs * (options.rows - round(VAL_PROP * options.rows)) // BATCH
    rows = []
    for name in FLOWS:
        flows = {library: make(library, name) for library in LIBRARIES}
        calls = {library: partial(fit_of(library, epochs), key, flows[library], x) for library in LIBRARIES}
        calls["by hand"] = partial(fit_by_hand, key, flows["flowlib"], x, epochs)
        if name in _by_hand.FLOWS:
            params, log_prob = _by_hand.make(name, jr.key(1))
            calls["plain JAX"] = partial(fit_plain_jax, key, params, log_prob, x, epochs)
        times = in_turns(calls, repeats)
        ours, theirs, hand, *plain = (times[who].scaled(1e3 / steps) for who in calls)
        rows.append(
            {
                "flow": name,
                "plain JAX, ms a step": spread(plain[0]) if plain else "",
                "loop by hand, ms a step": spread(hand),
                **side_by_side(ours, theirs, "ms a step"),
                "flowlib / plain JAX": ratio(ours, plain[0]) if plain else "",
                "flowlib / loop by hand": ratio(ours, hand),
                "first fit flowlib, s": number(times["flowlib"].first),
                "first fit FlowJAX, s": number(times["flowjax"].first),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
