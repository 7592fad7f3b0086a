"""Coupling flows."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, Coupling, Gradient
from flowlib.distributions import AbstractDistribution
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, build_flow, checked_sizes, default_transformer, vector_dim


def coupling_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    transformer: AbstractBijection | Sequence[AbstractBijection] | None = None,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    nn_width: int = 50,
    nn_depth: int = 1,
    nn_activation: Callable = jax.nn.relu,
    conditioner: Callable[[PRNGKeyArray, int, int], Callable[[Array], Array]] | None = None,
    mixing: Mixing = "permutation",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A coupling flow: each layer changes one half of the coordinates given the other (arXiv:1605.08803).

    Both directions are cheap: one network pass a layer for `log_prob` and for `sample`. `invert`
    decides only which of them uses the transformer's own `transform`. Starts as the identity
    if the transformer does.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        transformer: the scalar bijection whose parameters the conditioner makes; or a sequence, one for
            each transformed coordinate. Defaults to an affine map with its scale in (1/100, 100).
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of each conditioner, a `flowlib.nn.MLP`.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        conditioner: a function `(key, in_size, out_size) -> network` that makes the conditioner of each layer instead,
            such as `jax.tree_util.Partial(flowlib.nn.ResidualMLP, width=64, depth=2)`. Defaults to None.
        mixing: what stands between layers, and is undone all together at the end. "permutation", a random one each (in
            two dimensions the reverse); "reverse", which alternates the halves; "linear", an invertible matrix that
            starts as a random rotation and is trained (`flowlib.bijections.InvertibleLinear`), O(dim^2) a layer; or the
            permutations and a trained matrix that starts as the identity: "lu", "qr" or "svd" by these factors of it
            (`InvertibleLinear`, `QRLinear`, `SVDLinear`), "householder" or "rotation" (`HouseholderProduct`,
            `Rotation`), which stays orthogonal. "rotation" is O(dim^3) a batch, the others O(dim^2) a row.
        invert: True to use the transformers' `transform` in `log_prob`, False to use it in `sample`.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store", "recompute" or "rebuild"; see `Scan`.
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
        *((Coupling,) if conditioner is None else (with_conditioner, conditioner)),
        transformer=transformer,
        untransformed_dim=dim // 2,
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


def with_conditioner(conditioner, key, **options):
    """A layer whose network is made when its sizes are known."""
    layer = Coupling(key, **options)
    in_size = layer.untransformed_dim + (options["cond_dim"] or 0)
    network = conditioner(key, in_size, max(layer.n_parameters, 1))
    return eqx.tree_at(lambda layer: layer.conditioner, layer, network)
