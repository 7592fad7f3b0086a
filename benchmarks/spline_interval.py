"""On which interval the splines of a default `neural_spline_flow` serve best, in held-out nats a row.

Default fits. A third of the rows is held out. The uniform columns have `support=(0, 1)`, so that splines see logits.

Usage: python benchmarks/spline_interval.py [--seeds 2]
"""

import argparse
import statistics

import jax
import jax.random as jr
import numpy as np

from _report import arguments, machine, print_table
from fit_defaults import tables
from flowlib.distributions import StandardNormal
from flowlib.flows import neural_spline_flow
from flowlib.train import fit_to_data

INTERVALS = (3.0, 4.0, 5.0)


def sets() -> dict[str, tuple[np.ndarray, object]]:
    """Rows and support by name."""
    rng = np.random.default_rng(0)
    real = {name: (x, None) for name, x in tables().items() if name in ("iris", "diabetes", "two moons", "swiss roll")}
    student = rng.standard_t(4, (2000, 2))
    return real | {
        "normal": (rng.normal(size=(2000, 4)), None),
        "uniform": (rng.uniform(size=(2000, 2)), (0, 1)),
        "Student t of 4": (student, None),
    }


def held_out(x: np.ndarray, support: object, interval: float, seed: int) -> float:
    """Mean log density of held-out rows."""
    x = x[np.random.default_rng(seed).permutation(len(x))]
    test, train = x[: len(x) // 3], x[len(x) // 3 :]
    base = StandardNormal((x.shape[1],))
    flow = neural_spline_flow(jr.key(seed), base_dist=base, interval=interval, support=support)
    flow, _ = fit_to_data(jr.key(seed + 100), flow, train, show_progress=False)
    return float(flow.log_prob(test).mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.seeds} seeds; held-out nats a row, and what other intervals gain\n")
    rows = []
    for name, (x, support) in sets().items():
        cells = [
            statistics.mean(held_out(x, support, interval, seed) for seed in range(options.seeds))
            for interval in INTERVALS
        ]
        gains = [f"{cells[0]:.3f}", *(f"{cell - cells[0]:+.3f}" for cell in cells[1:])]
        rows.append({"set": name, **dict(zip(map(str, INTERVALS), gains, strict=True))})
        print(rows[-1], flush=True)
        jax.clear_caches()
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
