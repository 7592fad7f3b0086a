"""Spline flows on circles and tori."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.random as jr
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import (
    AbstractBijection,
    Chain,
    CircularShift,
    Gradient,
    InDataUnits,
    Indexed,
    RationalQuadraticSpline,
)
from flowlib.distributions import Joint, Normal, Transformed, UniformCircle
from flowlib.flows._coupling import with_conditioner
from flowlib.flows._tail import build_flow, checked_sizes, default_transformer, without_units
from flowlib.nn import MLP, CircularInputs

_CIRCLE = (-math.pi, math.pi)


def circular_spline_flow(
    key: PRNGKeyArray,
    *,
    dim: int,
    circular: Sequence[bool] | None = None,
    knots: int = 8,
    interval: float | tuple[float, float] = 4.0,
    cond_dim: int | None = None,
    flow_layers: int = 4,
    nn_width: int = 50,
    nn_depth: int = 2,
    nn_activation: Callable = jax.nn.relu,
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
) -> Transformed:
    """A spline flow on circles, tori, and products of them with real columns; draws of angles are in [-pi, pi].

    A layer is two couplings: one half of the columns is transformed given the other, then the other given the one. An
    angle goes through a rational-quadratic spline whose two ends are one point of a circle, after a rotation that
    moves this point; a real column through a spline with straight tails and an affine map. Networks see the cosine and
    sine of each angle, so that the density has no jump anywhere. Both directions cost two network passes a layer. The
    base is uniform on circles and standard normal on the real line, and the flow starts as that.

    `fit_to_data` standardises the real columns and leaves angles as they are.

    Args:
        key: a PRNG key.
        dim: the number of columns.
        circular: whether each of them is an angle. Defaults to all.
        knots: the inner knots of each spline; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b), on which the splines of real columns act.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of layers.
        nn_width: the width of each conditioner, a `flowlib.nn.MLP`.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        invert: True to use the splines' `transform` in `log_prob`, False to use it in `sample`.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store", "recompute" or "rebuild"; see `Scan`.

    Raises:
        ValueError: if a size is out of range, `circular` has not one entry for each column or no True, or `gradient`
            does not suit the layers.
        TypeError: if `key` is of the wrong type.

    References:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer 2020, Normalizing flows on tori and
        spheres (arXiv:2002.02428), sections 2.1 and 2.2.
    """
    dim = check_count(dim, "dim")
    angles = np.ones(dim, bool) if circular is None else np.asarray(circular)
    if angles.dtype != bool or angles.shape != (dim,) or not angles.any():
        raise ValueError(f"circular expected {dim} booleans, at least one True, got {circular}.")
    on_circle = [CircularShift(_CIRCLE), RationalQuadraticSpline(knots=knots, interval=_CIRCLE, edges="circular")]
    on_line = [RationalQuadraticSpline(knots=knots, interval=interval), default_transformer()]
    make_layer = Partial(
        _make_layer,
        circular=tuple(angles.tolist()),
        on_circle=Chain(on_circle),
        on_line=Chain(on_line),
        activation=nn_activation,
        **checked_sizes(cond_dim, width=(nn_width, 1), depth=(nn_depth, 0)),
    )
    flow = build_flow(
        key,
        make_layer,
        base_dist=_base(angles),
        flow_layers=flow_layers,
        invert=invert,
        cond_dim=cond_dim,
        embedding=embedding,
        raw_cond_shape=raw_cond_shape,
        gradient=gradient,
        mixing=(tuple(np.flatnonzero(angles).tolist()), tuple(np.flatnonzero(~angles).tolist())),
    )
    units = InDataUnits.unset(without_units(flow), to_data=_turn(angles), columns=(~angles).tolist())
    return Transformed(flow.base_dist, units)


def _base(angles):
    if angles.all():
        return UniformCircle(angles.shape)
    return Joint([UniformCircle() if angle else Normal() for angle in angles])


def _turn(angles) -> AbstractBijection:
    """A last rotation of all angles, which also tells which columns are."""
    return Indexed(CircularShift(_CIRCLE, (int(angles.sum()),)), np.flatnonzero(angles), angles.shape)


def _make_layer(key, *, circular, on_circle, on_line, cond_dim, **sizes):
    dim, angles = len(circular), np.asarray(circular)
    # Every other one of the circles and of the lines.
    order = [*np.flatnonzero(angles), *np.flatnonzero(~angles)]
    first = np.isin(np.arange(dim), order[1::2])

    def coupling(key, kept):
        made = [on_circle if angle else on_line for angle in angles[~kept]]
        network = Partial(_network, circular=tuple(angles[kept].tolist()), **sizes)
        return with_conditioner(network, key, transformer=made, mask=kept, dim=dim, cond_dim=cond_dim)

    halves = [first] if dim == 1 else [first, ~first]
    return Chain([coupling(one, half) for one, half in zip(jr.split(key, len(halves)), halves, strict=True)])


def _network(key, in_size, out_size, *, circular, **sizes):
    return CircularInputs(MLP(key, in_size + sum(circular), out_size, **sizes), circular, _CIRCLE)
