"""What `fit_to_data` costs beyond the work itself: 50 epochs beside a hand-written `lax.scan` of the same steps.

The loop by hand shuffles, trains, validates and keeps the best parameters, as one compiled scan over all epochs. It
draws the same number of batches of the same sizes; it has no bar, no patience and no guard against NaN.

    python benchmarks/fit_overhead.py [--rows 1000] [--dim 2] [--repeats 7]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow, masked_autoregressive_flow
from flowlib.parameters import count_parameters, partition_trainable
from flowlib.train import MaximumLikelihoodLoss, fit_to_data

EPOCHS, BATCH, VAL_PROP, RATE = 50, 100, 0.1, 1e-3


@eqx.filter_jit
def fit_by_hand(key, flow, x):
    """The same work, with nothing around it."""
    params, static = partition_trainable(flow)
    loss_fn, optimizer = MaximumLikelihoodLoss(), optax.adam(RATE)
    n_train = len(x) - round(VAL_PROP * len(x))
    key, split_key = jr.split(key)
    order = jr.permutation(split_key, len(x))
    train, val = order[:n_train], order[n_train:].reshape(-1, BATCH)

    def step(carry, rows):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, static, x[rows])
        updates, state = optimizer.update(grads, state)
        return (eqx.apply_updates(params, updates), state), loss

    def epoch(carry, key):
        params, state, best, best_loss = carry
        (params, state), losses = jax.lax.scan(step, (params, state), jr.permutation(key, train).reshape(-1, BATCH))
        val_loss = jax.lax.map(lambda rows: loss_fn(params, static, x[rows]), val).mean()
        better = val_loss < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
        return (params, state, best, jnp.minimum(val_loss, best_loss)), (losses.mean(), val_loss)

    start = (params, optimizer.init(params), params, jnp.asarray(jnp.inf))
    (_, _, best, _), losses = jax.lax.scan(epoch, start, jr.split(key, EPOCHS))
    return eqx.combine(best, static), losses


def fit_by_flowlib(key, flow, x):
    return fit_to_data(
        key, flow, x, learning_rate=RATE, max_epochs=EPOCHS, max_patience=EPOCHS, batch_size=BATCH, val_prop=VAL_PROP,
        show_progress=False,
    )  # fmt: skip


def seconds(fit: Callable, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(eqx.filter(fit(*arguments), eqx.is_array))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description="What `fit_to_data` costs beyond the work itself.")
    parser.add_argument("--rows", type=int, default=1000, help="a multiple of 1000: then all batches are full")
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    x = jr.normal(jr.key(0), (arguments.rows, arguments.dim))
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}; {arguments.rows} rows of {arguments.dim}, {EPOCHS} epochs")
    for make in (coupling_flow, masked_autoregressive_flow):
        flow = make(jr.key(1), base_dist=StandardNormal((arguments.dim,)))
        first = {fit: seconds(fit, jr.key(2), flow, x) for fit in (fit_by_hand, fit_by_flowlib)}
        times = {fit: [] for fit in first}
        # In turns, so that whatever else the machine does falls on both.
        for _ in range(arguments.repeats):
            for fit in times:
                times[fit].append(seconds(fit, jr.key(2), flow, x))
        hand, ours = (statistics.median(times[fit]) for fit in (fit_by_hand, fit_by_flowlib))
        print(
            f"{make.__name__} ({count_parameters(flow)} parameters): by hand {hand:.3f} s, flowlib {ours:.3f} s, "
            f"ratio {ours / hand:.2f}; first calls {first[fit_by_hand]:.1f} s and {first[fit_by_flowlib]:.1f} s"
        )


if __name__ == "__main__":
    main()
