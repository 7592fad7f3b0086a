"""One fit in three ways: by each library's `fit_to_data`, and by hand."""

import functools
import importlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from flowlib.parameters import partition_trainable
from flowlib.train import MaximumLikelihoodLoss

BATCH, VAL_PROP, RATE = 100, 0.1, 1e-3


def fit_of(library: str, epochs: int, batch: int = BATCH) -> Callable:
    """A library's `fit_to_data` as a function of key, flow and rows.

    FlowJAX compiles again for every new loss and optimiser, and by default makes new ones in every fit. Here it gets
    the same ones in every call: what is timed is its loop.
    """
    settings = {"learning_rate": RATE}
    if library == "flowjax":
        losses = importlib.import_module("flowjax.train.losses")
        settings = {"loss_fn": losses.MaximumLikelihoodLoss(), "optimizer": optax.adam(RATE)}
    return functools.partial(
        importlib.import_module(f"{library}.train").fit_to_data,
        max_epochs=epochs, max_patience=epochs, batch_size=batch, val_prop=VAL_PROP, show_progress=False, **settings,
    )  # fmt: skip


def fit_plain_jax(key, params, log_prob, x, epochs):
    """The same work on a density written out in plain JAX."""
    return fit_density_by_hand(key, params, _negative_mean, log_prob, x, epochs)


def _negative_mean(params, log_prob, x):
    return -log_prob(params, x).mean()


def fit_by_hand(key, flow, x, epochs, batch=BATCH):
    """The same work on flowlib's `log_prob`, with nothing around it: one compiled scan over all epochs."""
    params, static = partition_trainable(flow)
    best, losses = fit_density_by_hand(key, params, MaximumLikelihoodLoss(), static, x, epochs, batch)
    return eqx.combine(best, static), losses


@eqx.filter_jit
def fit_density_by_hand(key, params, loss_fn, static, x, epochs, batch=BATCH):
    """Minimise `loss_fn(params, static, rows)`.

    It shuffles, trains, validates and keeps the best parameters. It has no bar, no patience and no guard against NaN,
    and takes only rows that make full batches.
    """
    optimizer = optax.adam(RATE)
    n_train = len(x) - round(VAL_PROP * len(x))
    key, split_key = jr.split(key)
    order = jr.permutation(split_key, len(x))
    train, val = order[:n_train], order[n_train:].reshape(-1, batch)

    def step(carry, rows):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, static, x[rows])
        updates, state = optimizer.update(grads, state)
        return (eqx.apply_updates(params, updates), state), loss

    def epoch(carry, key):
        params, state, best, best_loss = carry
        (params, state), losses = jax.lax.scan(step, (params, state), jr.permutation(key, train).reshape(-1, batch))
        val_loss = jax.lax.map(lambda rows: loss_fn(params, static, x[rows]), val).mean()
        better = val_loss < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
        return (params, state, best, jnp.minimum(val_loss, best_loss)), (losses.mean(), val_loss)

    start = (params, optimizer.init(params), params, jnp.asarray(jnp.inf))
    (_, _, best, _), losses = jax.lax.scan(epoch, start, jr.split(key, epochs))
    return best, losses
