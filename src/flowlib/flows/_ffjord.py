"""Continuous normalizing flows."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import ContinuousFlow, Gradient
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim
from flowlib.nn import TimeMLP


def ffjord(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 1,
    nn_width: int = 64,
    nn_depth: int = 2,
    nn_activation: Callable[[Array], Array] = jnp.tanh,
    tolerance: float | None = None,
    max_steps: int = 1024,
    adjoint: Literal["checkpoint", "backsolve", "direct"] = "checkpoint",
    throw: bool = False,
    invert: bool = False,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """FFJORD: events follow a differential equation whose right-hand side is a network (arXiv:1810.01367).

    Fit it by maximum likelihood as any flow, with `HutchinsonLoss` in many dimensions, or with `FlowMatchingLoss`,
    which solves no equation in training and is the fastest by far. `log_prob` and `sample` are a solve a
    layer, with some tens of passes through the network; in `log_prob` each has dim forward-mode passes besides (see
    `ContinuousFlow`). `sample_and_log_prob` is both. Starts as the identity. Needs diffrax: `pip install flowlib[ode]`.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of equations, each with a network of its own. Flow matching takes one.
        nn_width: the size of each hidden layer of each network.
        nn_depth: the number of hidden layers.
        nn_activation: a smooth module or module-level function of one array.
        tolerance: see `ContinuousFlow`; and so for the next three.
        max_steps: the most steps of a solve.
        adjoint: how the gradient is found.
        throw: raise where the solver fails, instead of NaN.
        invert: False for an equation that runs from the base at time 0 to the data at time 1, True for the reverse.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size is out of range, an option is unknown or `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
        ImportError: without diffrax.
    """
    dim = vector_dim(base_dist)
    sizes = checked_sizes(cond_dim, nn_width=(nn_width, 1), nn_depth=(nn_depth, 0), max_steps=(max_steps, 1))
    solver = {"tolerance": tolerance, "adjoint": adjoint, "throw": throw}
    make_layer = Partial(_make_layer, dim=dim, activation=nn_activation, **solver, **sizes)
    return build_flow(
        key,
        make_layer,
        base_dist=base_dist,
        flow_layers=flow_layers,
        invert=invert,
        cond_dim=cond_dim,
        embedding=embedding,
        raw_cond_shape=raw_cond_shape,
        gradient=gradient,
        support=support,
        mixing=None,
    )


def _make_layer(key, *, dim, cond_dim, nn_width, nn_depth, activation, **solver):
    field = TimeMLP(key, dim, cond_dim, width=nn_width, depth=nn_depth, activation=activation)
    return ContinuousFlow(field, (dim,), cond_shape=None if cond_dim is None else (cond_dim,), **solver)
