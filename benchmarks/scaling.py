"""How the cost of flowlib's `log_prob` and of its gradient grows with dimension, layers, batch and knots.

One of the four is varied at a time. The order is the slope of log time over log size from the row above: 0 where the
size costs nothing, 1 where the time is proportional to it. What needs more than a quarter of the memory is not run.

Usage: python benchmarks/scaling.py [--short]
"""

import functools
import math
import os
import statistics
import time
from typing import NamedTuple

import equinox as eqx
import jax

from _flows import data, make
from _report import arguments, machine, number, print_table, spread
from _timing import seconds
from flowlib.parameters import partition_trainable

FAMILIES = ("coupling RQS", "MAF RQS")


class Size(NamedTuple):
    """What is varied."""

    dim: int = 8
    layers: int = 8
    batch: int = 1000
    knots: int = 8


SHORT = {"dim": (2, 8, 128), "layers": (1, 8, 64), "batch": (1, 1000, 100_000), "knots": (4, 8, 32)}
LONG = {
    "dim": (2, 4, 8, 16, 32, 64, 128, 256, 512),
    "layers": (1, 2, 4, 8, 16, 32, 64),
    "batch": (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
    "knots": (2, 4, 8, 16, 32, 64),
}


def loss(params, static, x):
    return -eqx.combine(params, static).log_prob(x).mean()


class Cost(NamedTuple):
    """Seconds of compiling and of each run (none where the memory is too small), and bytes of scratch memory."""

    compiling: float
    runs: tuple[float, ...]
    memory: int


@functools.cache
def measure(family: str, size: Size, gradient: bool) -> Cost:
    flow = make("flowlib", family, dim=size.dim, layers=size.layers, knots=size.knots)
    params, static = partition_trainable(flow)
    function = functools.partial(jax.value_and_grad(loss) if gradient else loss, static=static)
    x = data(size.batch, size.dim)
    start = time.perf_counter()
    compiled = jax.jit(lambda params, x: function(params, x=x)).lower(params, x).compile()
    compiling = time.perf_counter() - start
    memory = compiled.memory_analysis().temp_size_in_bytes
    if memory > _device_memory() / 4:
        return Cost(compiling, (), memory)
    call = functools.partial(compiled, params, x)
    once = max(seconds(call), seconds(call))
    repeats = min(max(int(0.5 / once), 3), 30)
    return Cost(compiling, tuple(seconds(call) for _ in range(repeats)), memory)


def main():
    options = arguments(__doc__)
    print(f"{machine()}\nwhere not varied: {', '.join(f'{k} {v}' for k, v in Size()._asdict().items())}, width 50")
    for name, sizes in (SHORT if options.short else LONG).items():
        rows = []
        for family in FAMILIES:
            costs = {
                size: [measure(family, Size()._replace(**{name: size}), gradient) for gradient in (False, True)]
                for size in sizes
            }
            rows += [_row(family, name, size, costs) for size in sizes]
        print()
        print_table(rows)


def _row(family, name, size, costs):
    sizes = list(costs)
    before = sizes[max(sizes.index(size) - 1, 0)]
    row = {"flow": family, name: f"{size:,}"}
    for i, what in enumerate(("log_prob", "gradient")):
        cost = costs[size][i]
        row[f"{what}, ms"] = spread([1e3 * run for run in cost.runs]) if cost.runs else "too large"
        row[f"order of {what}"] = _order(before, size, costs[before][i], cost)
    row["scratch memory of gradient, MiB"] = number(costs[size][1].memory / 2**20)
    row["tracing and compiling both, s"] = number(sum(cost.compiling for cost in costs[size]))
    return row


def _order(before, size, cost_before, cost):
    if before == size or not cost_before.runs or not cost.runs:
        return ""
    growth = statistics.median(cost.runs) / statistics.median(cost_before.runs)
    return f"{math.log(growth) / math.log(size / before):.2f}"


def _device_memory() -> int:
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


if __name__ == "__main__":
    main()
