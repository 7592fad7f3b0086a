"""Every premade flow of vectors on the same data: what it reaches, and what it costs.

Widths (or, of flows without networks, numbers of layers) are chosen so that all have about as many parameters, as far
as they can; all are trained by the same optimiser on the same rows. "Gap" is the mean of log p(x) - log q(x) over test
rows, with the true density p, in nats, and its standard error, of test rows and of seeds: a gap below zero by more than
that would be a wrong log-det. Flows on a set (a torus, a sphere, the simplex, increasing vectors) have toys of their
own, and the uniform distribution beside them. On the wines the figure is the mean log density of the test rows of the
first of ten folds, as in `wine.py`; on the 8 x 8 digits, with uniform noise added to their whole numbers, likewise.
Fits are timed without compiling, and draws of 1,000 rows after a first time.

With `--compile`: the first fit of one epoch, compiling included, of each flow and of each of FlowJAX's, in processes of
their own.

Usage: python benchmarks/families.py [--short] [--data moons wine digits ...] [--wine winequality-red.csv]
           [--flows nice ...] [--seeds 3] [--results families.json] [--report] [--compile] [--picture families.svg]
"""

import argparse
import functools
import importlib
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from _report import arguments, machine, number, print_table
from _timing import in_new_process, seconds
from _toys import TOYS
from _toys_on_sets import TOYS_ON_SETS, UNIFORM
from flowlib import flows
from flowlib.distributions import MultivariateNormal, StandardNormal
from flowlib.errors import DataWarning
from flowlib.parameters import count_parameters
from flowlib.train import FlowMatchingLoss, fit_to_data

DRAWS = 1000
TABLES = ("wine", "digits")


class Family(NamedTuple):
    """A constructor, what it is given, what sets its size and up to where, and how many times as long it is trained.

    `on` is the set, a key of `TOYS_ON_SETS`, to which its rows belong; elsewhere they are any vectors.
    """

    make: Callable[..., Any]
    options: dict[str, Any]
    size: str = "nn_width"
    most: int = 512
    loss: Any = None
    epochs: int = 1
    on: str | None = None


def _family(make: Callable, size: str = "nn_width", most: int = 512, **options: Any) -> Family:
    own = {name: options.pop(name) for name in ("loss", "epochs", "on") if name in options}
    return Family(make, options, size, most, **own)


ON_A_SET = {"knots": 7, "flow_layers": 4, "nn_depth": 1}
SPLINE = {**ON_A_SET, "interval": 4.0}
FAMILIES = {
    "nice": _family(flows.nice, flow_layers=8, nn_depth=1),
    "coupling": _family(flows.coupling_flow, flow_layers=8),
    "realnvp": _family(flows.realnvp, flow_layers=8, nn_depth=1),
    "coupling, logistic mixtures": _family(flows.logistic_mixture_flow, flow_layers=4),
    "coupling, linear splines": _family(flows.neural_spline_flow, spline="linear", **SPLINE),
    "coupling, quadratic splines": _family(flows.neural_spline_flow, spline="quadratic", **SPLINE),
    "coupling, cubic splines": _family(flows.neural_spline_flow, spline="cubic", **SPLINE),
    "coupling, RQ splines": _family(flows.neural_spline_flow, **SPLINE),
    "masked autoregressive": _family(flows.masked_autoregressive_flow, flow_layers=8),
    "inverse autoregressive, for densities": _family(flows.inverse_autoregressive_flow, flow_layers=8, invert=True),
    "autoregressive, RQ splines": _family(flows.neural_spline_flow, kind="autoregressive", **SPLINE),
    "Bernstein": _family(flows.bernstein_flow, flow_layers=4, nn_depth=1),
    "sum of squares": _family(flows.sum_of_squares_flow, flow_layers=4, nn_depth=1),
    "neural autoregressive": _family(flows.neural_autoregressive_flow, flow_layers=4, nn_depth=1, units=8, depth=1),
    "unconstrained monotonic": _family(flows.unconstrained_monotonic_flow, flow_layers=3, nn_depth=1, units=8),
    "block neural autoregressive": _family(flows.block_neural_autoregressive_flow, "nn_block_dim", 64, nn_depth=2),
    "heavy tailed": _family(flows.heavy_tailed_flow, **SPLINE),
    "triangular spline": _family(flows.triangular_spline_flow, "flow_layers", 32),
    "Gaussianization": _family(flows.gaussianization_flow, "flow_layers", 12),
    "planar": _family(flows.planar_flow, "flow_layers", 64),
    "radial": _family(flows.radial_flow, "flow_layers", 64),
    "Sylvester": _family(flows.sylvester_flow, "flow_layers", 64),
    "residual": _family(flows.residual_flow, flow_layers=8),
    # Its steps solve no equation, so that it is given more of them.
    "continuous, flow matching": _family(flows.ffjord, nn_depth=3, loss=FlowMatchingLoss(), epochs=10),
    "circular splines": _family(flows.circular_spline_flow, on="torus", **ON_A_SET),
    "RQ splines on the sphere": _family(flows.sphere_flow, on="sphere", **ON_A_SET),
    "RQ splines on the simplex": _family(flows.simplex_flow, on="simplex", **SPLINE),
    "RQ splines, ordered": _family(flows.ordered_flow, on="increasing", **SPLINE),
}


class Data(NamedTuple):
    """Rows to train on and to test on, and how; `truth` is the log density of the test rows, if it is known."""

    train: np.ndarray
    test: np.ndarray
    parameters: int
    epochs: int
    batch: int = 200
    rate: float = 5e-3
    support: Any = None
    truth: np.ndarray | None = None


def toy(name: str, epochs: int) -> Data:
    found, rng = {**TOYS, **TOYS_ON_SETS}[name], np.random.default_rng(0)
    train, test = found.draw(rng, 10_000), found.draw(rng, 10_000)
    truth = found.log_density(test)
    off = 0.0 if found.entropy is None else -truth.mean() - found.entropy
    # Of a published entropy the last digit is rounded.
    assert abs(off) < 5e-4 + 4 * truth.std() / len(truth) ** 0.5, f"{name}: the entropy is off by {off:.3f}"
    return Data(train, test, 5_000, epochs, truth=truth)


def wine(path: Path, epochs: int) -> Data:
    from wine import folds

    train, test, _ = next(folds(path, 1))
    return Data(train, test, 30_000, epochs, batch=100, rate=2e-3)


def digits(epochs: int) -> Data:
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    rows = rng.permutation(load_digits().data)
    train, test = np.tile(rows[:1500], (4, 1)), rows[1500:]
    noisy = (values + rng.uniform(1e-3, 1 - 1e-3, values.shape) for values in (train, test))
    return Data(*noisy, parameters=200_000, epochs=epochs, rate=2e-3, support=(0.0, 17.0))


def load(name: str, options: argparse.Namespace) -> Data:
    if name == "wine":
        return wine(options.wine, 10 if options.short else 100)
    return digits(2 if options.short else 20) if name == "digits" else toy(name, 3 if options.short else 30)


def belongs(name: str, source: str) -> bool:
    """Whether a flow's events are rows of such data."""
    return FAMILIES[name].on == (source if source in TOYS_ON_SETS else None)


def sized(family: Family, dim: int, parameters: int) -> Callable[[jax.Array], Any]:
    """The family at the size whose number of parameters is nearest to the one given."""

    def make(size: int) -> Callable[[jax.Array], Any]:
        space = {"dim": dim} if family.on else {"base_dist": StandardNormal((dim,))}
        return functools.partial(family.make, **space, **family.options, **{family.size: size})

    @functools.cache
    def too_many(size: int) -> int:
        shapes = eqx.filter_eval_shape(make(size), jr.key(0))
        # Nothing is compiled, and no program run.
        flow = jax.tree.map(
            lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)) if _is_shape(leaf) else leaf, shapes
        )
        return count_parameters(flow) - parameters

    low, high = 1, family.most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if too_many(middle) > 0 else (middle, high)
    return make(min((low, high), key=lambda size: abs(too_many(size))))


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def measure(family: Family, data: Data, seeds: int) -> dict[str, float]:
    """What fits of several seeds reach, and the least of their times; "error" is that of test rows and seeds."""
    make = sized(family, data.train.shape[1], data.parameters)
    fits = [measure_once(make, family, data, seed) for seed in range(seeds)]
    found = {name: min(fit[name] for fit in fits) for name in ("parameters", "fit", "draw")}
    of_rows, of_seeds = (statistics.mean(fit["error"] for fit in fits), statistics.pstdev(fit["value"] for fit in fits))
    return found | {
        "value": statistics.mean(fit["value"] for fit in fits),
        "error": math.hypot(of_rows, of_seeds / max(seeds - 1, 1) ** 0.5),
        "lost draws": sum(fit["lost draws"] for fit in fits),
    }


def measure_once(make: Callable, family: Family, data: Data, seed: int) -> dict[str, float]:
    """Fit, judge and draw."""
    flow = make(jr.key(seed))
    epochs = family.epochs * data.epochs
    steps = epochs * math.ceil(0.9 * len(data.train) / data.batch)
    fit = functools.partial(
        fit_to_data, jr.key(100 + seed), flow, data.train, optimizer=_optimizer(data.rate, steps),
        batch_size=data.batch, max_patience=math.inf, loss_fn=family.loss, support=data.support, show_progress=False,
    )  # fmt: skip
    # What is compiled is not timed here.
    fit(max_epochs=1)
    start = time.perf_counter()
    fitted, _ = fit(max_epochs=epochs)
    fitting = time.perf_counter() - start
    log_prob = np.concatenate([np.asarray(fitted.log_prob(rows)) for rows in np.array_split(data.test, 10)])
    values = log_prob.astype(np.float64) if data.truth is None else data.truth - log_prob

    def draw() -> Any:
        return fitted.sample(jr.key(2), DRAWS)

    draws = np.asarray(draw())
    return {
        "parameters": count_parameters(flow),
        "value": float(values.mean()),
        "error": float(values.std() / len(values) ** 0.5),
        "fit": fitting,
        # The least of many, for a call of a millisecond is disturbed by anything.
        "draw": min(seconds(draw) for _ in range(40)),
        "lost draws": int((~np.isfinite(draws)).any(1).sum()),
    }


@functools.cache
def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))


def references(source: str, data: Data) -> dict[str, dict[str, float]]:
    """What a Gaussian with full covariance reaches on the same rows, or of a bounded set the uniform distribution."""
    if source in UNIFORM:
        name, log_prob = "uniform", np.full(len(data.test), UNIFORM[source])
    elif source not in TOYS_ON_SETS:
        fitted = MultivariateNormal(data.train.mean(0), np.cov(data.train.T))
        name, log_prob = "Gaussian", np.asarray(fitted.log_prob(data.test), np.float64)
    else:
        return {}
    values = log_prob if data.truth is None else data.truth - log_prob
    return {f"{source}/{name}": {"value": float(values.mean()), "error": float(values.std() / len(values) ** 0.5)}}


def first_fit(library: str, name: str) -> float:
    """Seconds of building a flow and of its first epoch on the moons, in a process that has compiled nothing."""
    x, key = TOYS["moons"].draw(np.random.default_rng(0), 10_000).astype(np.float32), jr.key(1)
    if library == "flowlib":
        family = FAMILIES[name]
        # What is found out about the size compiles nothing.
        make, loss = sized(family, 2, 5_000), {"loss_fn": family.loss}
        if family.on:
            x = toy(family.on, 1).train.astype(np.float32)
            make = sized(family, x.shape[1], 5_000)
    else:
        # As it comes: its constructors' defaults.
        constructor = getattr(importlib.import_module("flowjax.flows"), name)
        base_dist = importlib.import_module("flowjax.distributions").StandardNormal((2,))
        make, loss = functools.partial(constructor, base_dist=base_dist), {}
    fit = importlib.import_module(f"{library}.train").fit_to_data
    return seconds(
        lambda: fit(key, make(key), jnp.asarray(x), max_epochs=1, batch_size=200, show_progress=False, **loss)[0]
    )


FLOWJAX = (
    *("coupling_flow", "masked_autoregressive_flow", "block_neural_autoregressive_flow"),
    *("planar_flow", "triangular_spline_flow"),
)


def compare_compiling(names: list[str]) -> None:
    calls = [("flowlib", name) for name in names] + [("flowjax", name) for name in FLOWJAX]
    rows = []
    for library, name in calls:
        try:
            taken = f"{in_new_process(first_fit, library, name):.1f}"
        # Whatever one fails with, the others are still of interest.
        except Exception as error:
            taken = type(error).__name__
        rows.append({"library": library, "flow": name, "first fit, s": taken})
        print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)


def cells(results: dict[str, dict], data: list[str]) -> list[dict[str, str]]:
    """The table: a row is a flow."""
    rows = []
    for name in [*FAMILIES, "Gaussian", "uniform"]:
        row = {"flow": name}
        for source in data:
            found = results.get(f"{source}/{name}", {})
            value = f"{found['value']:.3f} ± {found['error']:.3f}" if found else ""
            row[f"{source}, {'nats' if source in TABLES else 'gap'}"] = value
        if any(cell for key, cell in row.items() if key != "flow"):
            rows.append(row)
    return rows


def least(results: dict[str, dict], sources: list[str], name: str, key: str) -> float:
    """The least of a flow's times on several data sets of one shape: the one that was disturbed least."""
    return min(results[f"{source}/{name}"][key] for source in sources)


def costs(results: dict[str, dict], sources: list[str]) -> list[dict[str, str]]:
    """What each flow costs on data sets of one shape, with times as ratios to those of the first flow."""
    names = [name for name in FAMILIES if all(f"{source}/{name}" in results for source in sources)]
    rows = []
    for name in names:
        row = {"flow": name, "parameters": f"{results[f'{sources[0]}/{name}']['parameters']:,}"}
        for key in ("fit", "draw"):
            taken = least(results, sources, name, key) / least(results, sources, names[0], key)
            row[f"{key}, to {names[0]}"] = f"{number(taken)}x"
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=[*TOYS, *TOYS_ON_SETS, *TABLES], help="only these")
    parser.add_argument("--flows", nargs="+", choices=list(FAMILIES), help="only these")
    parser.add_argument("--seeds", type=int, default=1, help="how many fits of each flow to each data")
    parser.add_argument("--wine", type=Path, help="winequality-red.csv; without it wine is left out")
    parser.add_argument("--results", type=Path, help="a file that collects what was measured, also by other runs")
    parser.add_argument("--picture", type=Path, help="where to draw gaps against the time of a fit")
    parser.add_argument("--compile", action="store_true", help="first fits in new processes instead, beside FlowJAX's")
    parser.add_argument("--report", action="store_true", help="measure nothing: print what the file of results has")
    options = arguments(__doc__, parser)
    # Of each toy and table a few values are further out than the splines reach.
    warnings.simplefilter("ignore", DataWarning)
    print(f"{machine()}\n")
    names = options.flows or (["coupling", "coupling, RQ splines"] if options.short else list(FAMILIES))
    if options.compile:
        compare_compiling(names)
        return
    results: dict[str, dict] = {}
    if options.results and options.results.exists():
        results = json.loads(options.results.read_text())
    sources = options.data or [*TOYS, *TOYS_ON_SETS, *(["wine"] if options.wine else []), "digits"]
    loaded = {} if options.report else {source: load(source, options) for source in sources}
    for source, data in loaded.items():
        results |= references(source, data)
    # Toys have one shape: a flow is compiled for the first of them only.
    for name in names if loaded else []:
        for source, data in loaded.items():
            if not belongs(name, source):
                continue
            try:
                results[f"{source}/{name}"] = found = measure(FAMILIES[name], data, options.seeds)
            # Whatever one fails with, the others are still of interest.
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            print(source, name, found, file=sys.stderr, flush=True)
            if options.results:
                options.results.write_text(json.dumps(results, indent=1))
    toys = [source for source in sources if source in TOYS]
    on_sets = [source for source in sources if source in TOYS_ON_SETS]
    tables = [source for source in sources if source in TABLES]
    for alike in filter(None, (toys, on_sets, tables)):
        print(f"\nReached on {', '.join(alike)}\n")
        print_table(cells(results, alike))
    for alike in filter(None, (toys, *([source] for source in tables))):
        print(f"\nCosts on {', '.join(alike)}\n")
        print_table(costs(results, alike))
    if options.picture:
        draw_picture(results, toys, options.picture)


def draw_picture(results: dict[str, dict], toys: list[str], path: Path) -> None:
    """Each flow's gap, the mean over toys, against the time of its fit."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    names = [name for name in FAMILIES if all(f"{toy}/{name}" in results for toy in toys)]
    gaps = {name: np.mean([results[f"{toy}/{name}"]["value"] for toy in toys]) for name in names}
    times = {name: least(results, toys, name, "fit") for name in names}
    fastest, slowest = min(times.values()), max(times.values())
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    for i, name in enumerate(names):
        if gaps[name] in [gaps[other] for other in names[:i]]:
            # The same flow by another name.
            continue
        near = [times[other] / times[name] for other in names if abs(math.log(gaps[other] / gaps[name])) < 0.05]
        # A name is on the left where on the right there is no room for it.
        left = times[name] > slowest / 2 or any(1.0 < ratio < 1.6 for ratio in near)
        x = times[name] / fastest
        axis.scatter(x, gaps[name], s=14, color="C0")
        offset, side = ((-4, 2), "right") if left else ((4, 2), "left")
        axis.annotate(name, (x, gaps[name]), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    axis.set(xscale="log", yscale="log", xlabel="time of a fit, relative to the fastest", xlim=(0.6, None))
    axis.set_ylabel("gap to the true density, nats (mean over toys)")
    for ticks, places in ((axis.xaxis, (1, 2, 5, 10)), (axis.yaxis, (0.05, 0.1, 0.2, 0.3))):
        ticks.set_major_locator(FixedLocator(places))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_locator(NullLocator())
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
