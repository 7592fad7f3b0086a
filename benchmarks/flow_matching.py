"""Flow matching beside maximum likelihood: what a continuous flow reaches on 2-D toys, and in what time.

The same `ffjord` is fitted by maximum likelihood, with the exact divergence and with Hutchinson's estimate, and by flow
matching with both couplings, all with the same optimiser; a running mean of the parameters is judged. In the fits by
likelihood the solver's tolerance is 1e-3, which makes them cheaper, and for judging the default one. The exact mean log
density of test rows is taken at several moments of each fit; "to the mark" is the first of them at which it was within
0.05 nats of what the fit by the exact likelihood has at its end. "Steps" is how many the solver takes for a test row
at the end, on average. Compiling is told apart: each method is first run for an epoch.

Usage: python benchmarks/flow_matching.py [--short] [--toys checkerboard ...]
"""

import argparse
import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

import flowlib.tasks
from _report import arguments, machine, number, print_table
from flowlib.bijections import continuous_part
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows import ffjord
from flowlib.train import AbstractRowLoss, FlowMatchingLoss, HutchinsonLoss, MaximumLikelihoodLoss, fit_to_data

# A program read from disk is not compiled.
jax.config.update("jax_enable_compilation_cache", False)

ROWS, TEST, BATCH = 8192, 1000, 128
MARK = 0.05
TOLERANCE = 1e-3


class Method(NamedTuple):
    """A loss, how many epochs it is given, and the tolerance of the solver in training, if there is one."""

    loss: AbstractRowLoss
    epochs: int
    tolerance: float | None = None


EXACT = "likelihood, exact"
METHODS = {
    EXACT: Method(MaximumLikelihoodLoss(), 16, TOLERANCE),
    "likelihood, Hutchinson": Method(HutchinsonLoss(), 16, TOLERANCE),
    "matching, independent": Method(FlowMatchingLoss(), 600),
    "matching, optimal": Method(FlowMatchingLoss("optimal"), 16),
}


def two_moons(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.asarray(flowlib.tasks.two_moons(jr.key(int(rng.integers(1 << 30))), n))


def eight_gaussians(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = np.pi / 4 * rng.integers(8, size=n)
    return 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * rng.standard_normal((n, 2))


def checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    column, row = rng.integers(4, size=n), rng.integers(2, size=n)
    return np.stack([column, 2 * row + column % 2], axis=1) - 2 + rng.random((n, 2))


TOYS = {"two moons": two_moons, "eight Gaussians": eight_gaussians, "checkerboard": checkerboard}


def flow_with(tolerance: float | None = None) -> Transformed:
    return ffjord(jr.key(0), base_dist=StandardNormal((2,)), nn_width=32, nn_depth=3, tolerance=tolerance)


def moments(method: Method, x: np.ndarray, epochs: int) -> tuple[list[tuple[float, Any]], float]:
    """The flow at moments of a fit, by the seconds that it had run, and the seconds of all."""
    kept, aside = [], 0.0

    def keep(snapshot):
        nonlocal aside
        start = time.perf_counter()
        kept.append((snapshot.metrics["seconds"] - aside, snapshot.current()))
        aside += time.perf_counter() - start

    start = time.perf_counter()
    fit_to_data(
        jr.key(1), flow_with(method.tolerance), x, loss_fn=method.loss, learning_rate=5e-3, ema=0.99, batch_size=BATCH,
        max_epochs=epochs, max_patience=math.inf, val_prop=0.0, standardise=False, show_progress=False, callbacks=keep,
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


def measure(toy: str, epochs: dict[str, int], compiling: dict[str, float]) -> list[dict[str, str]]:
    """The rows of one toy."""
    rng = np.random.default_rng(0)
    train, test = TOYS[toy](rng, ROWS), TOYS[toy](rng, TEST)
    rows, mark = [], 0.0
    for name, method in METHODS.items():
        kept, _ = moments(method, train, epochs[name])
        times = [at for at, _ in kept]
        # Some of them, evenly on a logarithmic scale, and the last.
        chosen = sorted({int(np.searchsorted(times, times[-1] * 1.5**-i)) for i in range(9)})
        curve, steps = [], 0.0
        for i in chosen:
            at_default = jax.tree.unflatten(jax.tree.structure(flow_with()), jax.tree.leaves(kept[i][1]))
            nats, steps = map(float, judge(at_default, jax.numpy.asarray(test)))
            curve.append((times[i], nats))
        seconds, reached = curve[-1]
        mark = reached - MARK if name == EXACT else mark
        there = next((at for at, nats in curve if nats >= mark), None)
        print(f"{toy}, {name}:", ", ".join(f"{nats:.2f} at {number(at)} s" for at, nats in curve), flush=True)
        rows.append({
            "data": toy,
            "fit": name,
            "nats a row": f"{reached:.2f}",
            "seconds": number(seconds),
            "to the mark, s": "not reached" if there is None else number(there),
            "steps": f"{steps:.0f}",
            "compiling, s": number(compiling[name]),
        })  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--toys", nargs="+", choices=list(TOYS), default=list(TOYS))
    options = arguments(__doc__, parser)
    toys = options.toys[:1] if options.short else options.toys
    epochs = {name: -(-method.epochs // (5 if options.short else 1)) for name, method in METHODS.items()}
    print(f"{machine()}\n{ROWS} rows in batches of {BATCH}; nats are a mean over {TEST} other rows\n")
    x, compiling = TOYS[toys[0]](np.random.default_rng(0), ROWS), {}
    for name, method in METHODS.items():
        (_, first), (_, again) = (moments(method, x, 1) for _ in range(2))
        compiling[name] = first - again
    rows = [row for toy in toys for row in measure(toy, epochs, compiling)]
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
