"""Sylvester flows."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import Gradient, Sylvester, SylvesterKind
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def sylvester_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 4,
    invert: bool = True,
    kind: SylvesterKind = "householder",
    rank: int | None = None,
    reflections: int | None = None,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
    **mlp_kwargs: Any,
) -> Flow:
    """A Sylvester flow: each layer adds up to as many tanh units as dimensions to the identity (arXiv:1803.05649).

    Every direction is O(dim units) a layer; one of them solves as many scalar equations numerically, one after the
    other: `sample` with `invert=True` and `log_prob` with `invert=False`. Between layers the coordinates
    are reversed, which the triangular kind needs. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        invert: True for `log_prob` without a solve, False for `sample` without one.
        kind: "orthogonal", "householder" or "triangular"; see `flowlib.bijections.Sylvester`.
        rank: the units of a layer of kind "orthogonal". Defaults to the dimension.
        reflections: of a layer of kind "householder". Defaults to 8, or the dimension if that is less.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.
        **mlp_kwargs: `width_size`, `depth` and `activation` of the networks that make the parameters
            from the condition; ignored without one. Default to 50, 1 and `jax.nn.relu`.

    Raises:
        ValueError: if a size is out of range or belongs to another kind, `kind` is unknown, `gradient` does not suit
            the layers or `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)
    make_layer = Partial(
        Sylvester, dim=dim, kind=kind, rank=rank, reflections=reflections, **checked_sizes(cond_dim), **mlp_kwargs
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
        mixing="reverse",
    )
