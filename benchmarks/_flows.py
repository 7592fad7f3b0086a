"""The same flow in flowlib and in FlowJAX, which have the same names for it; and data to fit it to."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

DIM = 8
LIBRARIES = ("flowlib", "flowjax")
FLOWS = ("coupling affine", "coupling RQS", "MAF affine", "MAF RQS", "BNAF", "planar", "triangular spline")


def make(
    library: str, name: str, *, dim: int = DIM, layers: int = 8, width: int = 50, knots: int = 8, **options: Any
) -> Any:
    """One of `FLOWS`; options go to its constructor.

    The base has no parameters; BNAF is one layer, as both libraries have it by default.
    """
    flows, bijections, distributions = (
        importlib.import_module(f"{library}.{part}") for part in ("flows", "bijections", "distributions")
    )
    key, base = jr.key(1), distributions.StandardNormal((dim,))
    match name:
        case "BNAF":
            return flows.block_neural_autoregressive_flow(key, base_dist=base, **options)
        case "planar":
            return flows.planar_flow(key, base_dist=base, flow_layers=layers, negative_slope=0.1, **options)
        case "triangular spline":
            return flows.triangular_spline_flow(key, base_dist=base, flow_layers=layers, knots=knots, **options)
    family, transformer = name.split()
    build = {"coupling": flows.coupling_flow, "MAF": flows.masked_autoregressive_flow}[family]
    spline = bijections.RationalQuadraticSpline(knots=knots, interval=4) if transformer == "RQS" else None
    return build(key, base_dist=base, transformer=spline, flow_layers=layers, nn_width=width, **options)


def data(rows: int, dim: int = DIM) -> jax.Array:
    """Rows of about zero mean and unit variance, whose neighbouring columns depend on each other."""
    x = jr.normal(jr.key(0), (rows, dim))
    return (x + jnp.sin(2 * jnp.roll(x, 1, axis=1))) / 1.2
