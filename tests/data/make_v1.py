"""Writes the files of format version 1 that every later version of flowlib must read.

    python tests/data/make_v1.py

They were made once. Made again they would only show that a version reads its own files: when the format
changes, write new files beside these.
"""

import functools
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax

import flowlib
from flowlib import bijections as bij
from flowlib import distributions as dist
from flowlib import flows

FOLDER = Path(__file__).parent
POINTS = [[0.25, -0.5], [1.5, 0.75], [-2.0, 1.0]]
CONDITIONS = [[0.5, -1.0], [0.0, 0.25], [2.0, 1.5]]


def make_flows() -> dict[str, dist.AbstractDistribution]:
    """One flow of each family, small."""
    base = dist.StandardNormal((2,))
    keys = iter(jr.split(jr.key(0), 9))
    net: dict[str, Any] = {"nn_width": 3, "flow_layers": 2}
    spline = bij.RationalQuadraticSpline(knots=4, interval=3.0)
    embedding = eqx.nn.MLP(2, 1, 3, 1, jnp.tanh, key=next(keys))
    options = {"cond_dim": 1, "embedding": embedding, "raw_cond_shape": (2,)}
    scale_and_shift = bij.Chain([bij.Sigmoid((2,)), bij.Invert(bij.Sigmoid((2,))), bij.Affine(jnp.ones(2), 2.0)])
    normals = eqx.filter_vmap(dist.Normal)(jnp.array([[0.0, 1.0], [2.0, -1.0]]))
    return {
        "coupling": flows.coupling_flow(next(keys), base_dist=base, transformer=spline, **net, **options),
        "autoregressive": flows.masked_autoregressive_flow(next(keys), base_dist=base, invert=False, cond_dim=2, **net),
        "block_autoregressive": flows.block_neural_autoregressive_flow(next(keys), base_dist=base, nn_block_dim=2),
        "planar": flows.planar_flow(next(keys), base_dist=base, flow_layers=2),
        "triangular_spline": flows.triangular_spline_flow(next(keys), base_dist=base, flow_layers=2, knots=4),
        "frozen": dist.Transformed(dist.StudentT(jnp.array([3.0, 4.0])), paramax.non_trainable(scale_and_shift)),
        "mixture": dist.VmapMixture(normals, jnp.array([1.0, 3.0])),
    }


def shaken(tree, seed: int):
    """The tree with noise on its parameters, so that no layer is the identity."""
    draw = np.random.default_rng(seed)

    def add_noise(leaf):
        noise = draw.normal(0, 0.3, leaf.shape) if eqx.is_inexact_array(leaf) else 0
        return jnp.asarray(leaf + noise, leaf.dtype) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(add_noise, tree)


def make_values() -> dict:
    """Every kind of value that a file can hold; the test has them again."""
    return {
        "plain": [None, True, 3, -1.5, "text"],
        "odd": ((float("inf"), -float("inf")), ..., slice(1, None), np.float16(0.5)),
        "types": (jnp.float32, np.int8, float, np.dtype("int16"), jax.ShapeDtypeStruct((2,), jnp.float32)),
        "functions": (jax.nn.relu, jnp.tanh, functools.partial(jnp.clip, min=0.0), jax.tree_util.Partial(jnp.exp)),
        "arrays": (
            jnp.array([1.5, 2.5], jnp.bfloat16),
            jnp.array([True]),
            jnp.zeros((0, 2)),
            np.arange(3, dtype=np.int8),
        ),
        "weak": jnp.asarray(2.0),
        "key": jr.key(7),
        "layers": eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, "batch", mode="batch"),
    }


def main() -> None:
    flowlib.save(FOLDER / "v1_values.flow", make_values())
    numbers = {}
    for seed, (name, flow) in enumerate(make_flows().items()):
        flow = shaken(flow, seed)
        flowlib.save(FOLDER / f"v1_{name}.flow", flow)
        condition = None if flow.cond_shape is None else np.array(CONDITIONS, np.float32)
        numbers[name] = flow.log_prob(np.array(POINTS, np.float32), condition).tolist()
    expected = {"points": POINTS, "conditions": CONDITIONS, "log_prob": numbers}
    (FOLDER / "v1.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
