"""Block neural autoregressive flows."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, BlockAutoregressiveNetwork, Gradient, NumericalInverse
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def block_neural_autoregressive_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    nn_depth: int = 1,
    nn_block_dim: int = 8,
    flow_layers: int = 1,
    invert: bool = True,
    activation: AbstractBijection | Callable[[Array], Array] | None = None,
    inverter: Callable[..., Array] | None = None,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A block neural autoregressive flow: each layer is one monotone network (arXiv:1904.04676).

    One direction costs one network pass a layer; the other is a numerical inverse, in dim steps a
    layer. With `invert=True` `log_prob` is the cheap
    one, with `invert=False` `sample` is. Starts near the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        nn_depth: the number of hidden layers of each network.
        nn_block_dim: hidden units a coordinate.
        flow_layers: the number of networks.
        invert: True for a cheap `log_prob`, False for a cheap `sample`.
        activation: see `BlockAutoregressiveNetwork`. Defaults to `LeakyTanh(3)`.
        inverter: a function `(bijection, y, condition) -> x` with a first guess for the numerical
            inverse. Defaults to y.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size is out of range, `gradient` does not suit the layers or `base_dist` has no vectors
            as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)

    sizes = checked_sizes(cond_dim, depth=(nn_depth, 0), block_dim=(nn_block_dim, 1))
    make_layer = Partial(_make_layer, inverter, dim=dim, activation=activation, **sizes)
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


def _make_layer(inverter, key, **options):
    network = BlockAutoregressiveNetwork(key, **options)
    return network if inverter is None else NumericalInverse(network, inverter, triangular=True)
