"""What a training step of a residual flow costs with the exact log-det, and with `RouletteLoss`.

A step is the gradient of the loss of a batch, with weights at their bounds: they are drawn at random, and as in a
trained flow many terms of the series count. "Compiling" is the first call without the time of a later one; the later
calls are in turns, and medians with quartiles. The spread is that of the loss of a batch of 64 over keys, in nats.

Usage: python benchmarks/residual_training.py [--short] [--sizes 64,128 784,512]
"""

import argparse
import statistics
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _report import arguments, machine, number, print_table, ratio, spread
from _timing import in_turns
from flowlib.distributions import StandardNormal
from flowlib.flows import residual_flow
from flowlib.parameters import partition_trainable
from flowlib.train import MaximumLikelihoodLoss, RouletteLoss

BATCH = 64
LOSSES = {
    "exact": MaximumLikelihoodLoss(),
    "roulette": RouletteLoss(),
    "roulette, 0.5": RouletteLoss(stop_probability=0.5),
}


def trained_like(dim: int, width: int, layers: int):
    """A flow with random weights in all matrices, whose scale does not matter: they are brought to their bounds."""
    flow = residual_flow(jr.key(0), base_dist=StandardNormal((dim,)), flow_layers=layers, nn_width=width)
    params, static = partition_trainable(flow)
    rng = np.random.default_rng(0)
    moved = [leaf + 0.3 * jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), moved), static


@eqx.filter_jit
def gradient(params, static, loss, x, key):
    return eqx.filter_value_and_grad(lambda params: loss(params, static, x, key=key))(params)


def measure(dim: int, width: int, layers: int, repeats: int) -> list[dict[str, str]]:
    params, static = trained_like(dim, width, layers)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((BATCH, dim)), jnp.float32)
    calls = {name: partial(gradient, params, static, loss, x, jr.key(2)) for name, loss in LOSSES.items()}
    times = in_turns(calls, repeats)
    rows = []
    for name, loss in LOSSES.items():
        later = times[name].milliseconds
        values = [float(gradient(params, static, loss, x, jr.key(i))[0]) for i in range(3 if name == "exact" else 10)]
        rows.append(
            {
                "dim, width, layers": f"{dim}, {width}, {layers}",
                "loss": name,
                "step, ms": spread(later),
                "exact / this": ratio(times["exact"].later, times[name].later),
                "compiling, s": number(times[name].first - statistics.median(times[name].later)),
                "mean loss": number(statistics.mean(values)),
                "spread": number(statistics.stdev(values)),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["64,128", "784,512"], help="dimension,width")
    parser.add_argument("--layers", type=int, default=8)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n")
    rows = []
    for size in options.sizes:
        dim, width = map(int, size.split(","))
        rows += measure(dim, width, options.layers, 3 if options.short else 7)
    print_table(rows)


if __name__ == "__main__":
    main()
