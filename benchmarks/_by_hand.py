"""Flows written out in plain JAX, without flowlib: what the same mathematics costs with nothing around it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _flows import DIM

LAYERS, WIDTH, KNOTS, BOUND, LEAST = 8, 50, 8, 4.0, 1e-3
# The flows that are written here, and the numbers a transformer takes.
SIZES = {"affine": 2, "RQS": 3 * KNOTS + 2}
FLOWS = ("coupling affine", "coupling RQS", "MAF affine", "MAF RQS", "planar")


def make(name: str, key: jax.Array) -> tuple[Any, Callable[[Any, jax.Array], jax.Array]]:
    """The parameters of one of `FLOWS`, layers on the leading axis, and its log density of rows given them."""
    if name == "planar":
        return {"wu": 0.1 * jr.normal(key, (LAYERS, 2, DIM)), "b": jnp.zeros(LAYERS)}, _log_prob(_planar)
    family, transformer = name.split()
    n_out = DIM if family == "MAF" else DIM - DIM // 2
    n_in, n_out = DIM if family == "MAF" else DIM // 2, SIZES[transformer] * n_out
    params = {
        "w0": jr.normal(key, (LAYERS, WIDTH, n_in)) / math.sqrt(n_in),
        "b0": jnp.zeros((LAYERS, WIDTH)),
        "w1": jnp.zeros((LAYERS, n_out, WIDTH)),
        "b1": jnp.zeros((LAYERS, n_out)),
    }
    transform = {"affine": _affine, "RQS": _spline}[transformer]
    return params, _log_prob(_masked_layer(transform) if family == "MAF" else _coupling_layer(transform))


def _log_prob(layer):
    order = np.asarray(jr.permutation(jr.key(3), DIM))

    def log_prob(params, x):
        def apply(carry, params):
            x, total = carry
            x, log_det = layer(params, x)
            return (x[order], total + log_det), None

        (z, log_det), _ = jax.lax.scan(apply, (x.T, jnp.zeros(len(x))), params)
        return log_det - 0.5 * (z**2).sum(0) - DIM / 2 * math.log(2 * math.pi)

    return log_prob


def _coupling_layer(transform):
    def layer(params, x):
        kept, changed = x[: DIM // 2], x[DIM // 2 :]
        h = jax.nn.relu(params["w0"] @ kept + params["b0"][:, None])
        out = params["w1"] @ h + params["b1"][:, None]
        y, log_slope = transform(out.reshape(len(changed), -1, x.shape[1]), changed)
        return jnp.concatenate([kept, y]), log_slope.sum(0)

    return layer


def _masked_layer(transform):
    ranks = np.arange(DIM)
    unit_ranks = np.arange(WIDTH) * (DIM - 1) // WIDTH

    def layer(params, x):
        out_ranks = np.repeat(ranks, params["w1"].shape[0] // DIM)
        first = jnp.where(unit_ranks[:, None] >= ranks, params["w0"], 0)
        last = jnp.where(out_ranks[:, None] > unit_ranks, params["w1"], 0)
        out = last @ jax.nn.relu(first @ x + params["b0"][:, None]) + params["b1"][:, None]
        y, log_slope = transform(out.reshape(DIM, -1, x.shape[1]), x)
        return y, log_slope.sum(0)

    return layer


def _affine(params, x):
    log_scale = 4.6 * jnp.tanh(params[:, 1])
    return jnp.exp(log_scale) * x + params[:, 0], log_scale


def _spline(params, x):
    """A rational-quadratic spline for each column and coordinate, its bin found by sums over a mask."""
    bins = KNOTS + 1
    sizes = LEAST + (2 * BOUND - bins * LEAST) * jax.nn.softmax(params[:, : 2 * bins].reshape(len(x), 2, bins, -1), 2)
    slopes = LEAST + jax.nn.softplus(params[:, 2 * bins :] + math.log(math.expm1(1 - LEAST)))
    slopes = jnp.pad(slopes, ((0, 0), (1, 1), (0, 0)), constant_values=1.0)
    inside = jnp.clip(x, -BOUND, BOUND)
    ends = jnp.cumsum(jax.lax.stop_gradient(sizes[:, 0]), axis=1)[:, :-1] - BOUND
    reached = inside[:, None] >= ends
    edge = jnp.ones_like(reached[:, :1])
    before = jnp.concatenate([reached, ~edge], axis=1)
    here = jnp.concatenate([edge, reached], axis=1) & ~before

    def chosen(mask, values):
        return jnp.where(mask, values, 0).sum(axis=1)

    width, height = chosen(here, sizes[:, 0]), chosen(here, sizes[:, 1])
    d0, d1 = chosen(here, slopes[:, :-1]), chosen(here, slopes[:, 1:])
    t = (inside + BOUND - chosen(before, sizes[:, 0])) / width
    s, parabola = height / width, t * (1 - t)
    denominator = s + (d0 + d1 - 2 * s) * parabola
    y = chosen(before, sizes[:, 1]) - BOUND + height * (s * t**2 + d0 * parabola) / denominator
    log_slope = jnp.log(d1 * t**2 + 2 * s * parabola + d0 * (1 - t) ** 2) + 2 * jnp.log(s / denominator)
    return jnp.where(x == inside, y, x), jnp.where(x == inside, log_slope, 0)


def _planar(params, x):
    w, u = params["wu"]
    overlap = jax.nn.softplus(w @ u) - 1
    u = u + (overlap - w @ u) * w / (w @ w)
    a = w @ x + params["b"]
    slope = jnp.where(a < 0, 0.1, 1.0)
    return x + u[:, None] * slope * a, jnp.log1p(slope * overlap)
