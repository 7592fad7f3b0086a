"""Radial flows."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import Gradient, Radial
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def radial_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
    **mlp_kwargs: Any,
) -> Flow:
    """A radial flow: each layer draws space to a point, or pushes it away (arXiv:1505.05770).

    Both directions are O(dim) a layer and analytic. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        invert: True to use the layers' `transform` in `log_prob`, False to use it in `sample`.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store", "recompute" or "rebuild"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.
        **mlp_kwargs: `width_size`, `depth` and `activation` of the networks that make the parameters
            from the condition; ignored without one. Default to 50, 1 and `jax.nn.relu`.

    Raises:
        ValueError: if a size is out of range, `gradient` does not suit the layers or `base_dist` has no vectors
            as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)
    make_layer = Partial(Radial, dim=dim, **checked_sizes(cond_dim), **mlp_kwargs)
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
    )
