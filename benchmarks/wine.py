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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from _report import arguments, machine, print_table
from flowlib import flows
from flowlib.distributions import MultivariateNormal, StudentT
from flowlib.train import decay_mask, fit_ensemble_to_data

DIM = 11
# Of Uria, Murray and Larochelle (2013, arXiv:1306.0186) and Uria et al. (2016, arXiv:1605.02226), in nats.
PUBLISHED = {"Gaussian": -13.2, "mixture of factor analysers": -10.19, "RNADE": -9.36, "Deep NADE, ensemble": -8.76}


class Model(NamedTuple):
    """How the members of an ensemble are made and fitted."""

    make: Callable[[jax.Array], Any]
    learning_rate: float
    epochs: int


def student_t() -> StudentT:
    """A base with tails, whose degrees of freedom are trained: the data have outliers of ten deviations."""
    return StudentT(jnp.full(DIM, 8.0))


def realnvp(key: jax.Array):
    """Affine couplings."""
    return flows.realnvp(key, base_dist=student_t(), flow_layers=8, nn_width=32, nn_depth=1, mixing="linear")


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


MODELS = {"RealNVP": Model(realnvp, 2e-3, 100), "MAF": Model(maf, 2e-3, 200), "NSF": Model(spline_flow, 2e-3, 100)}


def folds(path: Path, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Standardised training and test rows of each of the first n of ten folds."""
    rows = np.loadtxt(path, delimiter=";", skiprows=1)[:, :-1]
    if rows.shape[1] != DIM:
        raise SystemExit(f"{path} has {rows.shape[1]} columns beside the last, the quality; {DIM} were expected.")
    parts = np.array_split(np.random.default_rng(0).permutation(len(rows)), 10)
    for i in range(n):
        test, train = rows[parts[i]], rows[np.concatenate([part for j, part in enumerate(parts) if j != i])]
        yield (train - train.mean(0)) / train.std(0), (test - train.mean(0)) / train.std(0)


def gaussian(train: np.ndarray, test: np.ndarray) -> float:
    """The mean log density of the test rows under the Gaussian of the training rows."""
    normal = MultivariateNormal(train.mean(0), np.cov(train.T))
    return float(normal.log_prob(test).mean())


def fit(model: Model, key: jax.Array, members: int, train: np.ndarray) -> tuple[Any, float]:
    """The ensemble, and the mean of its members' validation log densities."""
    mixture, losses = fit_ensemble_to_data(
        key, model.make, train, members=members, optimizer=optimizer(model.learning_rate), max_epochs=model.epochs,
        max_patience=20, batch_size=100, ema=0.99, standardise=False, show_progress=False,
    )  # fmt: skip
    return mixture, -statistics.mean(min(own["val"]) for own in losses)


def of_members(mixture: Any, x: np.ndarray) -> np.ndarray:
    """The log density of each row under each member."""
    return np.asarray(eqx.filter_vmap(lambda member: member.log_prob(x), in_axes=(eqx.if_array(0),))(mixture.dist))
