"""Triangular spline flows."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray
from paramax import Parameterize

from flowlib.bijections import (
    AdditiveCondition,
    Chain,
    Gradient,
    LeakyTanh,
    RationalQuadraticSpline,
    Sandwich,
    TriangularAffine,
    Vmap,
)
from flowlib.constraints import inverse_softplus, normalised_lower_triangular
from flowlib.distributions import AbstractDistribution
from flowlib.flows._tail import Flow, build_flow, checked_sizes, vector_dim


def triangular_spline_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    cond_dim: int | None = None,
    flow_layers: int = 8,
    knots: int = 8,
    tanh_max_val: float = 3.0,
    invert: bool = True,
    init: Callable[[PRNGKeyArray, tuple[int, int]], Array] | None = None,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A triangular spline flow: splines for each coordinate, mixed by triangular affine maps.

    A layer is a rational-quadratic spline on tanh-squashed coordinates, undone after it, then a
    lower triangular matrix with normalised rows and a shift, and a linear shift by the
    condition. It has no network, few parameters, and two cheap directions, O(dim^2) a layer
    (one of them a triangular solve). Starts as the identity.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        knots: inner knots of each spline.
        tanh_max_val: where the squashing tanh becomes linear, in (0, 8].
        invert: True to use each layer's `transform` in `log_prob`, False to use it in `sample`.
        init: a function of a key and a shape for the entries below the diagonal, such as
            `jax.nn.initializers.glorot_uniform()`; make it once, for each new function compiles anew.
            It must be traceable. Defaults to zeros, which starts at the identity.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store", "recompute" or "rebuild"; see `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size is out of range, `gradient` does not suit the layers or `base_dist` has no vectors
            as events.
        TypeError: if `key` or `base_dist` is of the wrong type.
    """
    dim = vector_dim(base_dist)

    sizes = checked_sizes(cond_dim, knots=(knots, 1))
    make_layer = Partial(_make_layer, dim=dim, tanh_max_val=float(tanh_max_val), init=init, **sizes)
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


def _make_layer(key, *, dim, cond_dim, knots, tanh_max_val, init):
    matrix_key, condition_key = jr.split(key)
    spline = RationalQuadraticSpline(knots=knots, interval=1.0)
    splines = Vmap(eqx.filter_vmap(lambda: spline, axis_size=dim)(), in_axes=eqx.if_array(0))
    below = jnp.zeros((dim, dim)) if init is None else init(matrix_key, (dim, dim))
    matrix = jnp.where(jnp.eye(dim, dtype=bool), 1, below)
    parts = [Sandwich(splines, LeakyTanh(tanh_max_val, (dim,))), _with_normalised_rows(matrix)]
    if cond_dim is not None:
        linear = eqx.nn.Linear(cond_dim, dim, use_bias=False, key=condition_key)
        linear = eqx.tree_at(lambda layer: layer.weight, linear, replace_fn=jnp.zeros_like)
        parts.append(AdditiveCondition(linear, (dim,), (cond_dim,)))
    return Chain(parts)


def _with_normalised_rows(matrix: Array) -> TriangularAffine:
    affine = TriangularAffine(jnp.zeros(len(matrix)), matrix)
    raw_scale = inverse_softplus(jnp.linalg.norm(jnp.tril(matrix), axis=1))
    return eqx.tree_at(
        lambda a: a.triangular,
        affine,
        replace_fn=lambda raw: Parameterize(normalised_lower_triangular, *raw.args, raw_scale),
    )
