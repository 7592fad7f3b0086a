"""RealNVP for vectors."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, ActNorm, Chain, Gradient, TanhAffine
from flowlib.distributions import AbstractDistribution
from flowlib.flows._coupling import with_conditioner
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim
from flowlib.nn import ResidualMLP


def realnvp(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    nn_width: int = 50,
    nn_depth: int = 2,
    nn_activation: Callable = jax.nn.relu,
    act_norm: bool = True,
    mixing: Mixing = "reverse",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """RealNVP: couplings y_B = (x_B + m(x_A)) exp(s(x_A)) with s = b tanh(...), b > 0 trained for each coordinate.

    Both directions cost one network pass a layer. The halves A and B change places from layer to layer; in an odd
    dimension the coordinate in the middle is in every B. m and s come from one residual network with weight
    normalisation. Starts as the identity.

    Before each coupling stands a shift and scale of each coordinate, `flowlib.bijections.ActNorm`, in place of the
    paper's batch normalisation, so that a density does not depend on other rows. It starts as the identity;
    `flowlib.init_from_data` sets it from data. For images, the paper's subject, there is `realnvp_image`; the paper's
    residual networks have 2 to 8 blocks of 32 or 64 channels.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of couplings.
        nn_width: the width of each conditioner, a `flowlib.nn.ResidualMLP`.
        nn_depth: its number of residual blocks.
        nn_activation: its activation.
        act_norm: whether there is activation normalisation.
        mixing: what stands between layers, see `coupling_flow`. Defaults to "reverse", which alternates the halves.
        invert: True to go through the couplings as written from data to base, False from base to data.
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

    References:
        Dinh, Sohl-Dickstein and Bengio 2017, Density estimation using Real NVP (arXiv:1605.08803), equations 7 and 8.
    """
    dim = vector_dim(base_dist)
    sizes = checked_sizes(cond_dim, nn_width=(nn_width, 1), nn_depth=(nn_depth, 0))

    make_layer = Partial(
        _make_layer,
        Partial(ResidualMLP, width=sizes["nn_width"], depth=sizes["nn_depth"], activation=nn_activation),
        act_norm=bool(act_norm),
        dim=dim,
        cond_dim=sizes["cond_dim"],
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


def _make_layer(conditioner, key, *, act_norm, dim, cond_dim) -> AbstractBijection:
    options = {"transformer": TanhAffine(), "untransformed_dim": dim // 2, "dim": dim, "cond_dim": cond_dim}
    coupling = with_conditioner(conditioner, key, **options)
    return Chain([ActNorm((dim,)), coupling]) if act_norm else coupling
