"""NICE: additive couplings and one scaling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import Coupling, Gradient, Loc, Scale
from flowlib.distributions import AbstractDistribution
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def nice(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 4,
    nn_width: int = 50,
    nn_depth: int = 2,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "reverse",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """NICE: z = s h with s > 0 for each coordinate, h = x after additive couplings y_B = x_B + m(x_A).

    A coupling preserves volume, so that s alone changes densities: log |det dz/dx| = sum log s. Both directions cost
    one network pass a layer. The halves A and B change places from layer to layer; in an odd dimension the coordinate
    in the middle is in every B. In one dimension what is left is the scaling and a shift, by the condition if there is
    one. Starts as the identity.

    The paper has a logistic base for most data, `flowlib.distributions.Logistic(jnp.zeros(dim))`, and a normal one for
    some; networks of 4 or 5 hidden layers of 1000 to 5000 units.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors, such as `StandardNormal` or `Logistic`.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of couplings. Defaults to 4, as in the paper.
        nn_width: the width of each network m.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mixing: what stands between layers, see `coupling_flow`. Defaults to "reverse", which alternates the halves.
        invert: True to go from data to base as written above, False from base to data.
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
        Dinh, Krueger and Bengio 2015, NICE: non-linear independent components estimation (arXiv:1410.8516).
    """
    dim = vector_dim(base_dist)

    make_layer = Partial(
        Coupling,
        transformer=Loc(0.0),
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
        last=Scale(jnp.ones(dim)),
    )
