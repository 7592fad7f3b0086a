"""Flow matching beside maximum likelihood: what a continuous flow reaches on 2-D toys, and in what time.

The same `ffjord` is fitted by maximum likelihood, with the exact divergence and with Hutchinson's estimate, and by flow
matching with both couplings, all with the same optimiser; a running mean of the parameters is judged. In the fits by
likelihood the solver's tolerance is 1e-3, which makes them cheaper, and for judging the default one. The gap is the
mean of log p(x) - log q(x) over test rows, with the true density p. It is taken at several moments of each fit; "to the
mark" is the first of them at which it was within 0.05 nats of what the fit by the exact likelihood has at its end, of
the same seed. "Steps" is how many the solver takes for a test row at the end, on average. Rows and starts differ
between seeds; gaps are means with the extremes, times medians. Compiling is told apart: each method is first run for an
epoch.

Usage: python benchmarks/flow_matching.py [--short] [--toys checkerboard ...] [--methods ...] [--seeds 3]
"""

import argparse
import math
import statistics
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from _report import arguments, machine, number, print_table
from _toys import TOYS
from flowlib.bijections import continuous_part
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows import ffjord
from flowlib.train import AbstractRowLoss, FlowMatchingLoss, HutchinsonLoss, MaximumLikelihoodLoss, fit_to_data

# A program read from disk is not compiled.
jax.config.update("jax_enable_compilation_cache", False)

ROWS, TEST, BATCH = 8192, 1000, 128
MARK = 0.05
# Of the toys, whose coordinates run from about -4 to 4.
SCALE = 2.0
TOLERANCE = 1e-3


class Method(NamedTuple):
    """A loss, how many epochs it is given, and the tolerance of the solver in training, if there is one."""

    loss: AbstractRowLoss
    epochs: int
    tolerance: float | None = None


EXACT = "likelihood, exact"
METHODS = {
    EXACT: Method(MaximumLikelihoodLoss(), 24, TOLERANCE),
    "likelihood, Hutchinson": Method(HutchinsonLoss(), 24, TOLERANCE),
    "matching, independent": Method(FlowMatchingLoss(), 1800),
    "matching, optimal": Method(FlowMatchingLoss("optimal"), 16),
}


class Outcome(NamedTuple):
    """Of one fit: the gap at its end, its seconds, those to the mark if it was reached, and the solver's steps."""

    gap: float
    seconds: float
    to_mark: float | None
    steps: float


def rows_of(toy: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of about unit scale, and their true log densities."""
    x = TOYS[toy].draw(rng, n)
    return x / SCALE, TOYS[toy].log_density(x) + 2 * math.log(SCALE)


def flow_with(seed: int, tolerance: float | None = None) -> Transformed:
    return ffjord(jr.key(seed), base_dist=StandardNormal((2,)), nn_width=32, nn_depth=3, tolerance=tolerance)


def moments(method: Method, x: np.ndarray, epochs: int, seed: int) -> tuple[list[tuple[float, Any]], float]:
    """The flow at moments of a fit, by the seconds that it had run, and the seconds of all."""
    kept, aside = [], 0.0

    def keep(snapshot):
        nonlocal aside
        start = time.perf_counter()
        kept.append((snapshot.metrics["seconds"] - aside, snapshot.current()))
        aside += time.perf_counter() - start

    start = time.perf_counter()
    fit_to_data(
        jr.key(100 + seed), flow_with(seed, method.tolerance), x, loss_fn=method.loss, learning_rate=5e-3, ema=0.99,
        batch_size=BATCH, max_epochs=epochs, max_patience=math.inf, val_prop=0.0, standardise=False,
        show_progress=False, callbacks=keep,
    )  # fmt: skip
    return kept, time.perf_counter() - start - aside


@eqx.filter_jit
def judge(flow: Transformed, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean log density of rows, and how many steps the solver takes for one."""
    (layer,) = flow.layers
    found = continuous_part(layer)
    assert found is not None
    field, _, _ = found
    steps = jax.vmap(lambda row: field.follow(row, backwards=True).steps)(x)
    return flow.log_prob(x).mean(), steps.mean()


def measure(toy: str, epochs: dict[str, int], seed: int) -> dict[str, Outcome]:
    """What each method reaches on one toy."""
    rng = np.random.default_rng(seed)
    (train, _), (test, truth) = rows_of(toy, rng, ROWS), rows_of(toy, rng, TEST)
    outcomes, mark = {}, 0.0
    for name, n in epochs.items():
        kept, _ = moments(METHODS[name], train, n, seed)
        times = [at for at, _ in kept]
        # Some of them, evenly on a logarithmic scale, and the last.
        chosen = sorted({int(np.searchsorted(times, times[-1] * 1.5**-i)) for i in range(9)})
        curve, steps = [], 0.0
        for i in chosen:
            at_default = jax.tree.unflatten(jax.tree.structure(flow_with(seed)), jax.tree.leaves(kept[i][1]))
            nats, steps = map(float, judge(at_default, jax.numpy.asarray(test)))
            curve.append((times[i], truth.mean() - nats))
        seconds, reached = curve[-1]
        mark = reached + MARK if name == EXACT else mark
        there = next((at for at, gap in curve if gap <= mark), None)
        outcomes[name] = Outcome(reached, seconds, there, steps)
        told = ", ".join(f"{gap:.3f} at {number(at)} s" for at, gap in curve)
        print(f"{toy}, seed {seed}, {name}: {told}", flush=True)
    return outcomes


def row(toy: str, name: str, outcomes: list[Outcome], compiling: float) -> dict[str, str]:
    """The outcomes of all seeds in one row."""
    gaps = [outcome.gap for outcome in outcomes]
    there = [math.inf if outcome.to_mark is None else outcome.to_mark for outcome in outcomes]
    middle = statistics.median(there)
    return {
        "data": toy,
        "fit": name,
        "gap": f"{np.mean(gaps):.3f}" + (f" ({min(gaps):.3f} to {max(gaps):.3f})" if len(gaps) > 1 else ""),
        "seconds": number(statistics.median(outcome.seconds for outcome in outcomes)),
        "to the mark, s": number(middle) if math.isfinite(middle) else "not reached",
        "steps": f"{np.mean([outcome.steps for outcome in outcomes]):.0f}",
        "compiling, s": number(compiling),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--toys", nargs="+", choices=list(TOYS), default=list(TOYS))
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="the exact one first"
    )
    parser.add_argument("--seeds", type=int, default=1)
    options = arguments(__doc__, parser)
    toys, seeds = (options.toys[:1], 1) if options.short else (options.toys, options.seeds)
    names = [EXACT, *(name for name in options.methods if name != EXACT)]
    epochs = {name: -(-METHODS[name].epochs // (5 if options.short else 1)) for name in names}
    print(f"{machine()}\n{ROWS} rows in batches of {BATCH}; gaps are means over {TEST} other rows\n")
    (x, _), compiling = rows_of(toys[0], np.random.default_rng(0), ROWS), {}
    for name in names:
        (_, first), (_, again) = (moments(METHODS[name], x, 1, 0) for _ in range(2))
        compiling[name] = first - again
    rows = []
    for toy in toys:
        outcomes = [measure(toy, epochs, seed) for seed in range(seeds)]
        rows += [row(toy, name, [found[name] for found in outcomes], compiling[name]) for name in names]
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
