"""Where the time of a first fit goes: tracing, lowering and XLA for each program, and the rest, which is running them.

It tells why `fit_cold.py` prints what it prints, and is no part of the page of benchmarks.

Usage: python benchmarks/compile_profile.py [--short]
"""

from collections import defaultdict

import jax
import jax.random as jr

from _fits import fit_of
from _flows import FLOWS, data, make
from _report import arguments, machine, number, print_table
from _timing import in_new_process, seconds

EPOCHS, LEAST = 20, 0.05
PARTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing, s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering, s",
    "/jax/core/compile/backend_compile_duration": "XLA, s",
}


def profile(name: str) -> dict[str, dict[str, float]]:
    """Seconds of each part by the name of the program, and of all and of a second fit under "" and "again"."""
    x, key = data(9000).block_until_ready(), jr.key(2)
    found: dict[str, dict[str, float]] = defaultdict(dict)

    def listen(event: str, duration: float, fun_name: str = "", **_) -> None:
        if event in PARTS and fun_name:
            of = found[fun_name.removeprefix("jit(").removesuffix(")")]
            of[PARTS[event]] = of.get(PARTS[event], 0.0) + duration

    jax.monitoring.register_event_duration_secs_listener(listen)
    flow, fit = None, fit_of("flowlib", EPOCHS)

    def first():
        nonlocal flow
        flow = make("flowlib", name)
        return fit(key, flow, x)

    whole = seconds(first)
    jax.monitoring.clear_event_listeners()
    return {**found, "": {"all": whole}, "again": {"all": seconds(lambda: fit(key, flow, x))}}


def main():
    options = arguments(__doc__)
    print(f"{machine()}\n9000 rows, {EPOCHS} epochs\n")
    rows = []
    for name in ("coupling RQS", "BNAF") if options.short else FLOWS:
        found = in_new_process(profile, name)
        whole, again = found.pop("")["all"], found.pop("again")["all"]
        programs = {program: parts for program, parts in found.items() if sum(parts.values()) > LEAST}
        for program, parts in programs.items():
            cells = {part: number(parts.get(part, 0.0)) for part in PARTS.values()}
            rows.append({"flow": name, "program": program, **cells, "all, s": number(sum(parts.values()))})
        blank = dict.fromkeys(PARTS.values(), "")
        rows.append({"flow": name, "program": "(a second fit: running)", **blank, "all, s": number(again)})
        rows.append({"flow": name, "program": "(all of the first)", **blank, "all, s": number(whole)})
    print_table(rows)


if __name__ == "__main__":
    main()
