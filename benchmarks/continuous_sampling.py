"""What draws from a continuous flow cost, solved for without the divergence, and as they would with it.

"With divergence" is one solve for event and log-det together, as `log_prob` does it. Networks have random weights, so
that the solver takes some steps.

Usage: python benchmarks/continuous_sampling.py [--short] [--dims 2 16 64] [--draws 500]
"""

import argparse
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _report import arguments, machine, number, print_table, ratio, spread
from _timing import in_turns
from flowlib.bijections import forward_batch
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows import ffjord


@eqx.filter_jit
def without_divergence(flow, key, draws):
    return flow.sample(key, draws)


@eqx.filter_jit
def with_divergence(flow, key, draws):
    return forward_batch(flow.bijection, flow.base_dist.sample(key, draws))


def random_flow(dim: int) -> Transformed:
    rng = np.random.default_rng(0)
    flow = ffjord(jr.key(0), base_dist=StandardNormal((dim,)), nn_width=64, nn_depth=2)
    arrays, rest = eqx.partition(flow, eqx.is_inexact_array)
    moved = jax.tree.map(lambda a: a + 0.2 * jnp.asarray(rng.standard_normal(a.shape), a.dtype), arrays)
    return eqx.combine(moved, rest)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 16, 64])
    parser.add_argument("--draws", type=int, default=500)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.draws:,} draws, networks of two hidden layers of 64\n")
    rows = []
    for dim in options.dims:
        flow = random_flow(dim)
        ways = {"without": without_divergence, "with": with_divergence}
        calls = {name: partial(way, flow, jr.key(1), options.draws) for name, way in ways.items()}
        times = in_turns(calls, 3 if options.short else 11)
        rows.append(
            {
                "dimension": str(dim),
                "sample, ms": spread(times["without"].milliseconds),
                "with divergence, ms": spread(times["with"].milliseconds),
                "with / without": ratio(times["with"].later, times["without"].later),
                "first calls, s": f"{number(times['without'].first)} and {number(times['with'].first)}",
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
