"""Density estimation on the red wine data: RealNVP, MAF and neural spline flows beside published figures.

The 11 chemical measurements of 1599 wines (UCI, Cortez et al. 2009), in ten-fold cross-validation: each fold is
standardised by the mean and standard deviation of its training rows, and the figure is the mean log density of the
test rows, in nats. Of each kind of flow an ensemble is fitted to the training rows alone; each member holds a tenth of
them out, by which its fit stops. A Gaussian with full covariance on the same folds checks the protocol: it must come
out near the published one.

Usage: python benchmarks/wine.py --data winequality-red.csv [--short] [--folds 10]
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from scipy.special import logsumexp

from _report import arguments, machine, print_table
from flowlib import flows
from flowlib.distributions import MultivariateNormal, StudentT
from flowlib.errors import DataWarning
from flowlib.train import decay_mask, fit_ensemble_to_data

DIM = 11
# Of Uria, Murray and Larochelle: RNADE (2013, arXiv:1306.0186) and Deep NADE (2014, arXiv:1310.1757), in nats.
PUBLISHED = {"Gaussian": -13.2, "mixture of factor analysers": -10.19, "RNADE": -9.36}
PUBLISHED_ENSEMBLE = -8.76


def student_t() -> StudentT:
    """A base with tails, whose degrees of freedom are trained: the data have outliers of ten deviations."""
    return StudentT(jnp.full(DIM, 8.0))


def realnvp(key: jax.Array):
    """Affine couplings."""
    return flows.realnvp(key, base_dist=student_t(), flow_layers=8, nn_width=64, nn_depth=1, mixing="linear")


def maf(key: jax.Array):
    """Affine autoregressive layers."""
    return flows.masked_autoregressive_flow(
        key, base_dist=student_t(), flow_layers=8, nn_width=128, nn_activation=jax.nn.tanh, mixing="linear"
    )


def spline_flow(key: jax.Array):
    """Spline couplings."""
    return flows.neural_spline_flow(
        key, base_dist=student_t(), knots=6, interval=5.0, flow_layers=8, nn_width=32, nn_depth=1
    )


MODELS = {"RealNVP": realnvp, "MAF": maf, "NSF": spline_flow}
OPTIMIZER = optax.adamw(2e-3, weight_decay=1.0, mask=decay_mask)


def folds(path: Path, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each of the first n of ten folds: standardised training and test rows, and which of these are new.

    One row in seven repeats another one exactly, so that many test rows are among the training rows too.
    """
    rows = np.loadtxt(path, delimiter=";", skiprows=1)[:, :-1]
    if rows.shape[1] != DIM:
        raise SystemExit(f"{path} has {rows.shape[1]} columns before the last, the quality; {DIM} were expected.")
    parts = np.array_split(np.random.default_rng(0).permutation(len(rows)), 10)
    for i in range(n):
        train, test = rows[np.concatenate([*parts[:i], *parts[i + 1 :]])], rows[parts[i]]
        seen = set(map(bytes, train))
        new = np.array([bytes(row) not in seen for row in test])
        mean, deviation = train.mean(0), train.std(0)
        yield (train - mean) / deviation, (test - mean) / deviation, new


def of_gaussian(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The log density of each test row under the Gaussian of the training rows."""
    return np.asarray(MultivariateNormal(train.mean(0), np.cov(train.T)).log_prob(test))


def of_members(
    key: jax.Array, make: Callable[[jax.Array], Any], train: np.ndarray, test: np.ndarray, **options: Any
) -> tuple[np.ndarray, float]:
    """The log density of each test row under each member of a fitted ensemble, and of their validation rows."""
    mixture, losses = fit_ensemble_to_data(
        key, make, train, optimizer=OPTIMIZER, max_patience=10, batch_size=100, ema=0.99, standardise=False,
        show_progress=False, **options,
    )  # fmt: skip
    log_probs = eqx.filter_vmap(lambda member: member.log_prob(test), in_axes=(eqx.if_array(0),))(mixture.dist)
    return np.asarray(log_probs), -statistics.mean(min(own["val"]) for own in losses)


def cell(means: list[float]) -> str:
    """The mean over folds and its standard error."""
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else float("nan")
    return f"{statistics.mean(means):.2f} ± {error:.2f}"


def measure(name: str, options: argparse.Namespace) -> dict[str, str]:
    """The row of one model."""
    single, ensemble, new_rows, validation = [], [], [], []
    start = time.monotonic()
    for i, (train, test, new) in enumerate(folds(options.data, options.folds)):
        if name == "Gaussian":
            log_probs, held_out = of_gaussian(train, test)[None], None
        else:
            limits = {"members": options.members, "max_epochs": options.epochs}
            log_probs, held_out = of_members(jr.key(i), MODELS[name], train, test, **limits)
            validation.append(held_out)
        mixed = logsumexp(log_probs, axis=0) - np.log(len(log_probs))
        single.append(float(log_probs.mean()))
        ensemble.append(float(mixed.mean()))
        new_rows.append(float(mixed[new].mean()))
    row = {
        "model": name,
        "single": cell(single),
        f"ensemble of {options.members}": cell(ensemble) if validation else "",
        "the same, new rows only": cell(new_rows),
        "validation, single": f"{statistics.mean(validation):.2f}" if validation else "",
        "seconds": f"{time.monotonic() - start:.0f}",
    }
    print(row, flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="winequality-red.csv")
    parser.add_argument("--folds", type=int, choices=range(1, 11), help="how many of the ten folds")
    parser.add_argument("--members", type=int, default=8, help="flows in an ensemble")
    parser.add_argument("--epochs", type=int, help="the most epochs of a fit")
    options = arguments(__doc__, parser)
    # Of each column a few values are further out than the splines reach.
    warnings.simplefilter("ignore", DataWarning)
    options.folds = options.folds or (2 if options.short else 10)
    options.epochs = options.epochs or (20 if options.short else 200)
    print(f"{machine()}\n{options.folds} of 10 folds; nats a row, and the standard error over folds\n")
    rows = [measure(name, options) for name in ("Gaussian", *MODELS)]
    blank, ensemble = dict.fromkeys(rows[0], ""), f"ensemble of {options.members}"
    rows += [{**blank, "model": f"{name}, published", "single": f"{value}"} for name, value in PUBLISHED.items()]
    rows.append({**blank, "model": "Deep NADE, published", ensemble: f"{PUBLISHED_ENSEMBLE}"})
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
