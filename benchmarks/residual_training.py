"""What a training step of a residual flow costs with the exact log-det, and with `RouletteLoss`.

A step is the gradient of the loss of a batch of 64, with random weights that are brought to their bound; "0.5" is the
paper's probability of ending after a term. Each loss is compiled and run in a new process; times are medians with
quartiles where there are several.

Usage: python benchmarks/residual_training.py [--short] [--layers 2] [--sizes 64,128 784,512]
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _report import arguments, machine, print_table, ratio, spread
from _timing import processes_in_turns, seconds
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


def with_random_weights(dim: int, width: int, layers: int) -> tuple[Any, Any]:
    flow = residual_flow(jr.key(0), base_dist=StandardNormal((dim,)), flow_layers=layers, nn_width=width)
    params, static = partition_trainable(flow)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + 0.3 * jnp.asarray(rng.standard_normal(a.shape), a.dtype), params), static


def once(name: str, dim: int, width: int, layers: int, repeats: int) -> dict[str, list[float]]:
    params, static = with_random_weights(dim, width, layers)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((BATCH, dim)), jnp.float32)

    def gradient(params, x, key):
        return eqx.filter_value_and_grad(lambda params: LOSSES[name](params, static, x, key=key))(params)

    start = time.perf_counter()
    step = jax.jit(gradient).lower(params, x, jr.key(2)).compile()
    compiling = time.perf_counter() - start
    steps = [seconds(lambda i=i: step(params, x, jr.key(i))) for i in range(repeats + 1)]
    return {"compiling": [compiling], "steps": [1e3 * value for value in steps[1:]]}


def measure(dim: int, width: int, layers: int, repeats: int, processes: int) -> list[dict[str, str]]:
    calls = {name: (name, dim, width, layers, repeats) for name in LOSSES}
    results = processes_in_turns(once, calls, processes)
    found = {
        name: {what: [value for one in results[name] for value in one[what]] for what in ("steps", "compiling")}
        for name in calls
    }
    exact = found["exact"]
    return [
        {
            "dim, width, layers": f"{dim}, {width}, {layers}",
            "loss": name,
            "step, ms": spread(this["steps"]),
            "exact / this": ratio(exact["steps"], this["steps"]),
            "compiling, s": spread(this["compiling"]),
        }
        for name, this in found.items()
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["64,128", "784,512"], help="dimension,width")
    parser.add_argument("--layers", type=int, default=2)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n")
    rows = []
    for size in options.sizes:
        dim, width = map(int, size.split(","))
        rows += measure(dim, width, options.layers, *((3, 1) if options.short else (5, 3)))
    print_table(rows)


if __name__ == "__main__":
    main()
