"""Residual flows."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import Gradient, Residual
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def residual_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    invert: bool = True,
    nn_width: int = 50,
    nn_depth: int = 2,
    lipschitz: float = 0.9,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A residual flow: each layer adds to the identity a network whose slopes are below 1 (arXiv:1906.02735).

    Every layer changes all coordinates at once. One direction is a network pass a layer; the other iterates some tens
    of passes: `sample` with `invert=True` and `log_prob` with `invert=False`. The log-dets are exact, by a determinant
    as large as the dimension or the width, whichever is less; where that is large, fit with
    `flowlib.train.RouletteLoss`, which estimates them in training. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        invert: True for a cheap `log_prob`, False for a cheap `sample`.
        nn_width: the width of each network, a `flowlib.nn.LipschitzMLP`.
        nn_depth: its number of hidden layers.
        lipschitz: the bound of its slopes, in (0, 1). Near 1 a layer can bend more, and its inverse takes more steps.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size or the bound is out of range, `gradient` does not suit the layers or `base_dist` has no
            vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)
    sizes = checked_sizes(cond_dim, nn_width=(nn_width, 1), nn_depth=(nn_depth, 1))
    make_layer = Partial(Residual, dim=dim, lipschitz=float(lipschitz), **sizes)
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
        mixing="reverse",
    )
