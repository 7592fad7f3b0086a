"""Gaussianization flows."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import Coupling, Gradient, NormalMixture
from flowlib.distributions import AbstractDistribution
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def gaussianization_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    components: int = 8,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    nn_width: int = 50,
    nn_depth: int = 1,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "linear",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A Gaussianization flow: each layer rotates, and makes every coordinate normal by itself.

    A layer is a trained matrix, and for each coordinate the distribution function of a mixture of normal distributions
    followed by the normal quantile. No coordinate is transformed given others: all dependence goes through the
    matrices, as in projection pursuit. There is no network without a condition, and parameters are few:
    dim (dim + 3 components) a layer. One direction is O(dim^2 + dim components) a layer, the other solves for
    all coordinates at once. Starts near the identity: with eight components each layer changes the log density of a
    standard normal variable by less than 0.01 a coordinate, on average.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        components: the number of normal distributions in each mixture.
        cond_dim: the size of the condition the flow sees, from which a network makes the mixtures. Defaults to None, an
            unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of that network.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mixing: the matrices between layers, see `coupling_flow`. Defaults to "linear", which start as random rotations;
            the paper's are products of reflections, as "householder".
        invert: True for a direct `log_prob`, False for a direct `sample`.
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

    References:
        Meng, Song, Song and Ermon 2020, Gaussianization flows (arXiv:2003.01941), there with logistic components.
    """
    make_layer = Partial(
        Coupling,
        transformer=NormalMixture(components),
        # No coordinate is seen by the network.
        untransformed_dim=0,
        dim=vector_dim(base_dist),
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
