"""Masked autoregressive flows, and inverse autoregressive ones."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, Gradient, MaskedAutoregressive
from flowlib.distributions import AbstractDistribution
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, build_flow, checked_sizes, default_transformer, vector_dim


def masked_autoregressive_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    transformer: AbstractBijection | Sequence[AbstractBijection] | None = None,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    nn_width: int = 50,
    nn_depth: int = 1,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "permutation",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A masked autoregressive flow: each coordinate is transformed given those before it (arXiv:1705.07057).

    One direction costs one network pass a layer, and the other the arithmetic of a pass in dim
    steps. With `invert=True` (MAF) `log_prob` is the direct one: for fits to data. With
    `invert=False` (IAF, arXiv:1606.04934) `sample` and `sample_and_log_prob` are: for
    variational fits. Starts as the identity if the transformer does.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        transformer: the scalar bijection whose parameters the network makes; or a sequence, one for each
            coordinate. Defaults to an affine map with its scale in (1/100, 100).
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of each conditioner.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mixing: what changes the order between layers: "permutation", a random one each (in two dimensions the
            reverse); "reverse"; or a trained matrix, "linear" and others, see `coupling_flow`.
        invert: True for a cheap `log_prob`, False for a cheap `sample`.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size is out of range, `mixing` is no name of one, `gradient` does not suit the layers or
            `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)
    transformer = default_transformer() if transformer is None else transformer

    make_layer = Partial(
        MaskedAutoregressive,
        transformer=transformer,
        dim=dim,
        nn_activation=nn_activation,
        **checked_sizes(cond_dim, nn_width=(nn_width, 1), nn_depth=(nn_depth, 0)),
    )
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
        mixing=mixing,
    )
