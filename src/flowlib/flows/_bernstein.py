"""Bernstein polynomial flows."""

from collections.abc import Callable

import jax
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import BernsteinPolynomial, Gradient
from flowlib.distributions import AbstractDistribution, Transformed
from flowlib.flows._kind import Kind, flow_of_kind
from flowlib.flows._mixing import Mixing


def bernstein_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "autoregressive",
    degree: int = 16,
    interval: float | tuple[float, float] = 5.0,
    cond_dim: int | None = None,
    flow_layers: int = 5,
    nn_width: int = 50,
    nn_depth: int = 2,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "permutation",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
) -> Transformed:
    """A Bernstein polynomial flow: each coordinate goes through an increasing polynomial made by a network.

    A sum of positive terms on the interval, exact to rounding at every degree, and straight lines outside. One
    direction is a network pass a layer; the other solves for each polynomial, and with kind="autoregressive" for one
    coordinate after another. Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "autoregressive", where each coordinate is transformed given all before it, or "coupling", where one half
            is given the other and both directions cost one network pass a layer, besides the solves.
        degree: of the polynomials, at least 4.
        interval: (lower, upper), or one number b for (-b, b), on which they act; values and slopes at its ends are
            trained.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of each conditioner.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mixing: what stands between layers, see `coupling_flow`.
        invert: True to use the transformers' `transform` in `log_prob`, False to use it in `sample`. With
            kind="autoregressive" that direction is the cheap one.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store" or "recompute"; see `Scan`.

    Raises:
        ValueError: if a size or the interval is out of range, `kind` or `mixing` is no name of one,
            `gradient` does not suit the layers or `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Ramasinghe, Fernando, Khan and Barnes 2021, Robust normalizing flows using Bernstein-type polynomials
        (arXiv:2102.03509).
    """
    return flow_of_kind(
        kind,
        key,
        base_dist=base_dist,
        transformer=BernsteinPolynomial(degree=degree, interval=interval, edges="free"),
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
    )
