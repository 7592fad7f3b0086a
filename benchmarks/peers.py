"""flowlib beside zuko, nflows and distrax: densities and draws of about the same spline flow.

zuko and nflows (on PyTorch) have autoregressive layers, distrax coupling layers. Bins, layers and widths are equal;
zuko's splines span (-5, 5) and not (-4, 4), a network of nflows has one linear map more, and a masked coupling of
distrax makes splines for all coordinates and uses half of them. What is not installed is skipped.

Usage: python benchmarks/peers.py [--short] [--rows 1000] [--dim 8]
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _flows import data, make
from _report import arguments, machine, print_table, ratio, spread
from _timing import in_turns

LAYERS, WIDTH, KNOTS, INTERVAL = 8, 50, 8, 4.0


class Calls(NamedTuple):
    """What is timed of a flow."""

    log_prob: Callable[[], Any]
    sample: Callable[[], Any]


def flowlib(family: str, x) -> Calls:
    flow = make("flowlib", f"{family} RQS", dim=x.shape[1], layers=LAYERS, width=WIDTH, knots=KNOTS)
    return Calls(partial(flow.log_prob, x), partial(flow.sample, jr.key(2), len(x)))


def zuko(x) -> Calls:
    import torch
    import zuko.flows

    flow = zuko.flows.NSF(x.shape[1], bins=KNOTS + 1, transforms=LAYERS, hidden_features=(WIDTH,), randperm=True)()
    rows = torch.tensor(np.asarray(x))
    return Calls(torch.no_grad()(partial(flow.log_prob, rows)), torch.no_grad()(partial(flow.sample, (len(x),))))


def nflows(x) -> Calls:
    import torch
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Layer
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import RandomPermutation

    dim = x.shape[1]
    layers = []
    for _ in range(LAYERS):
        settings = {"num_bins": KNOTS + 1, "tails": "linear", "tail_bound": INTERVAL}
        layers += [Layer(dim, WIDTH, num_blocks=1, use_residual_blocks=False, **settings), RandomPermutation(dim)]
    flow = Flow(CompositeTransform(layers), StandardNormal([dim])).eval()
    rows = torch.tensor(np.asarray(x))
    return Calls(torch.no_grad()(partial(flow.log_prob, rows)), torch.no_grad()(partial(flow.sample, len(x))))


def distrax(x) -> Calls:
    import distrax

    dim = x.shape[1]
    bins = KNOTS + 1

    def spline(params):
        return distrax.RationalQuadraticSpline(params, -INTERVAL, INTERVAL, boundary_slopes="identity")

    def layer(i, network):
        def conditioner(x):
            out = jnp.vectorize(network, signature="(d)->(p)")(x)
            return out.reshape(*x.shape, 3 * bins + 1)

        return distrax.MaskedCoupling((jnp.arange(dim) < dim // 2) == (i % 2 == 0), conditioner, spline)

    keys = jr.split(jr.key(1), LAYERS)
    networks = [eqx.nn.MLP(dim, dim * (3 * bins + 1), WIDTH, 1, key=key) for key in keys]
    base = distrax.MultivariateNormalDiag(jnp.zeros(dim), jnp.ones(dim))
    flow = distrax.Transformed(base, distrax.Inverse(distrax.Chain([layer(*each) for each in enumerate(networks)])))
    log_prob, sample = jax.jit(flow.log_prob), jax.jit(lambda key: flow.sample(seed=key, sample_shape=(len(x),)))
    return Calls(partial(log_prob, x), partial(sample, jr.key(2)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=8)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.rows:,} rows of {options.dim}\n")
    x = data(options.rows, options.dim)
    rows = []
    for family, peers in {"MAF": (zuko, nflows), "coupling": (distrax,)}.items():
        contestants = {"flowlib": flowlib(family, x)}
        for peer in peers:
            try:
                calls = peer(x)
                calls.log_prob(), calls.sample()
            # Whatever a peer fails with on this machine, the others are still of interest.
            except Exception as error:
                print(f"{peer.__name__} skipped: {type(error).__name__}: {error}\n")
            else:
                contestants[peer.__name__] = calls
        times = {}
        for task in ("log_prob", "sample"):
            calls = {name: getattr(contestant, task) for name, contestant in contestants.items()}
            times[task] = in_turns(calls, 5 if options.short else 15)
        for name in contestants:
            row = {"flow": f"{family} RQS", "library": name}
            for task, each in times.items():
                row[f"{task}, ms"] = spread(each[name].milliseconds)
                row[f"{task}, to flowlib"] = ratio(each[name].later, each["flowlib"].later)
            rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
