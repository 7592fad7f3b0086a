"""What draws from a block neural autoregressive flow cost, and how exact they are.

Each library's flow is first fitted to the same data, for where a network starts decides how hard it is to invert. The
error of an inverse x is the maximum of |x - x_ref| / (1 + |x_ref|) over rows and columns; the reference is x after
Newton's method in float64.

Usage: python benchmarks/bnaf_sampling.py [--short] [--dims 8 64] [--draws 1000]
"""

import argparse
import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import paramax

from _fits import fit_of
from _flows import LIBRARIES, data, make
from _report import arguments, machine, print_table, side_by_side
from _timing import in_turns

ROWS, EPOCHS = 2000, 5


@eqx.filter_jit
def sample(flow, key, draws):
    return flow.sample(key, (draws,))


@eqx.filter_jit
def from_base(flow, z):
    """The events of base points by each library's own inverse; FlowJAX has no batched name for it."""
    if hasattr(flow, "from_base"):
        return flow.from_base(z)
    return jax.vmap(paramax.unwrap(flow).bijection.transform)(z)


@eqx.filter_jit
def newton_step(flow, x, z):
    to_base = paramax.unwrap(flow).bijection.inverse

    def step(x, z):
        return jnp.linalg.solve(jax.jacfwd(to_base)(x), to_base(x) - z)

    return jax.lax.map(lambda row: step(*row), (x, z), batch_size=100)


def largest_error(flow, z) -> float:
    x = from_base(flow, z)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, (flow, x, z))
        flow, x, z = wide
        reference = x
        for _ in range(6):
            change = newton_step(flow, reference, z)
            reference = reference - change
        # Of a row that failed, or that is too far off for Newton's method, there is no error to tell.
        if not float(jnp.abs(change).max()) < 1e-9:
            return math.nan
        return float((jnp.abs(x - reference) / (1 + jnp.abs(reference))).max())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--draws", type=int, default=1000)
    options = arguments(__doc__, parser)
    print(f"{machine()}\n{options.draws:,} draws, flows fitted for {EPOCHS} epochs to {ROWS} rows\n")
    rows = []
    for dim in options.dims:
        x, z = data(ROWS, dim), jr.normal(jr.key(3), (options.draws, dim))
        starts = {library: make(library, "BNAF", dim=dim) for library in LIBRARIES}
        flows = {library: fit_of(library, EPOCHS)(jr.key(2), flow, x)[0] for library, flow in starts.items()}
        calls = {library: partial(sample, flow, jr.key(4), options.draws) for library, flow in flows.items()}
        ours, theirs = in_turns(calls, 3 if options.short else 11).values()
        rows.append(
            {
                "D": str(dim),
                **side_by_side(ours.milliseconds, theirs.milliseconds, "ms"),
                "error flowlib": f"{largest_error(flows['flowlib'], z):.1e}",
                "error FlowJAX": f"{largest_error(flows['flowjax'], z):.1e}",
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
