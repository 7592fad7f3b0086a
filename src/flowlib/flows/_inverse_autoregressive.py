"""Inverse autoregressive flows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import AbstractBijection, Gradient
from flowlib.distributions import AbstractDistribution
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow


def inverse_autoregressive_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    transformer: AbstractBijection | Sequence[AbstractBijection] | None = None,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    nn_width: int = 50,
    nn_depth: int = 1,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "reverse",
    invert: bool = False,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """An inverse autoregressive flow: x_i = t(z_i; parameters made from the z_j before i), layer after layer.

    `sample` and `sample_and_log_prob` cost one network pass a layer, and `log_prob` the arithmetic of a pass in dim
    steps. So it is for variational fits, which draw at every step; for fits to data take
    `masked_autoregressive_flow`, which has these costs exchanged and is the same but for `invert` and `mixing`. Starts
    as the identity if the transformer does.

    The paper's layer is x_i = s_i z_i + (1 - s_i) m_i with s_i = sigmoid(...) below 1; here t may be anything, an
    affine map if nothing is given. The paper has 2 to 16 layers of networks 320 to 1920 wide.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        transformer: t, the scalar bijection whose parameters the network makes; or a sequence, one for each
            coordinate. Defaults to an affine map with its scale in (1/100, 100).
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of each conditioner.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mixing: what changes the order between layers, see `masked_autoregressive_flow`. Defaults to "reverse".
        invert: False for a cheap `sample`; True for a cheap `log_prob`, which is a masked autoregressive flow.
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
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling 2016, Improving variational inference with inverse
        autoregressive flow (arXiv:1606.04934), equations 9 to 11.
    """
    return masked_autoregressive_flow(
        key,
        base_dist=base_dist,
        transformer=transformer,
        cond_dim=cond_dim,
        flow_layers=flow_layers,
        nn_width=nn_width,
        nn_depth=nn_depth,
        nn_activation=nn_activation,
        mixing=mixing,
        invert=invert,
        embedding=embedding,
        raw_cond_shape=raw_cond_shape,
        gradient=gradient,
        support=support,
    )
