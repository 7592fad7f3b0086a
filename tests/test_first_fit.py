"""How many programs a first fit of each kind compiles: what loops, once, on every JAX admitted."""

import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib.distributions import Normal, StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import ElboLoss, fit_ensemble_to_data, fit_to_data, fit_to_key_based_loss, fit_to_variational_target

X = np.random.default_rng(0).normal(size=(90, 2))
QUIET: dict[str, Any] = {"show_progress": False}
TARGET = Normal(jnp.zeros(2)).log_prob
STREAM = [(X[:45],), (X[45:],)]


def flow(key):
    return coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=2, nn_width=5)


def one_mesh():
    return jax.make_mesh((1,), ("data",))


# Of each kind of fit, with several dispatches, the programs that run steps, and how many others there may be: to build
# the flow, to begin, to cast and check arrays, and for the keys (12 to 25, fewest on the oldest JAX).
FITS = {
    "arrays": (lambda key, folder: fit_to_data(key, flow(key), X, max_epochs=8, **QUIET), ["run_epochs"], 16),
    "memory map": (
        lambda key, folder: fit_to_data(key, flow(key), mapped(folder), max_epochs=3, **QUIET),
        ["run_chunk", "validate_chunk", "finish_epoch"],
        16,
    ),
    "stream": (
        lambda key, folder: fit_to_data(key, flow(key), STREAM, val_data=X, max_epochs=3, **QUIET),
        ["run_chunk", "validate_chunk", "finish_epoch"],
        16,
    ),
    "ensemble": (
        lambda key, folder: fit_ensemble_to_data(key, flow, X, members=2, max_epochs=8, **QUIET),
        ["run_ensemble"],
        28,
    ),
    "variational": (
        lambda key, folder: fit_to_variational_target(key, flow(key), TARGET, steps=1500, num_samples=2, **QUIET),
        ["run_steps"],
        16,
    ),
    "key-based, best": (
        lambda key, folder: fit_to_key_based_loss(
            key, flow(key), loss_fn=ElboLoss(TARGET, 2), steps=1500, return_best=True, **QUIET
        ),
        ["run_steps"],
        16,
    ),
    "mesh": (
        lambda key, folder: fit_to_data(key, flow(key), X, max_epochs=8, mesh=one_mesh(), **QUIET),
        ["run_epochs"],
        16,
    ),
    "skips and mean": (
        lambda key, folder: fit_to_data(key, flow(key), X, max_epochs=8, max_skipped=2, ema=0.9, **QUIET),
        ["run_epochs"],
        16,
    ),
}


def mapped(folder):
    file = np.memmap(folder / "rows", X.dtype, "w+", shape=X.shape)
    file[:] = X
    return file


@pytest.mark.parametrize("kind", FITS)
def test_a_first_fit_compiles_its_loop_once(kind, caplog, tmp_path):
    fit, loops, others = FITS[kind]
    jax.clear_caches()
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING, logger="jax"):
            fit(jr.key(3), tmp_path)
    finally:
        jax.config.update("jax_log_compiles", False)
    names = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    found = [name for name in names if name.startswith(("run_", "validate_", "finish_"))]
    assert sorted(found) == sorted(loops)
    assert len(names) - len(found) <= others, names
