"""Neural spline flows."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib.bijections import CubicSpline, Gradient, LinearSpline, QuadraticSpline, RationalQuadraticSpline
from flowlib.distributions import AbstractDistribution
from flowlib.flows._coupling import coupling_flow
from flowlib.flows._kind import Kind, LayerOptions, check_kind
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow
from flowlib.flows._mixing import Mixing
from flowlib.flows._tail import Flow, checked_sizes
from flowlib.nn import ResidualMLP

Spline = Literal["rational_quadratic", "cubic", "quadratic", "linear"]
SPLINES = {
    "rational_quadratic": RationalQuadraticSpline,
    "cubic": CubicSpline,
    "quadratic": QuadraticSpline,
    "linear": LinearSpline,
}


class SplineOptions(LayerOptions, total=False):
    """The arguments of `neural_spline_flow` but for the base."""

    kind: Kind
    spline: Spline
    knots: int
    interval: float | tuple[float, float]


def neural_spline_flow(
    key: PRNGKeyArray,
    *,
    base_dist: AbstractDistribution,
    kind: Kind = "coupling",
    spline: Spline = "rational_quadratic",
    knots: int = 8,
    interval: float | tuple[float, float] = 4.0,
    cond_dim: int | None = None,
    flow_layers: int = 10,
    nn_width: int = 50,
    nn_depth: int = 2,
    nn_activation: Callable = jax.nn.relu,
    mixing: Mixing = "linear",
    invert: bool = True,
    embedding: Callable[[Array], Array] | None = None,
    raw_cond_shape: tuple[int, ...] | None = None,
    gradient: Gradient = "store",
    support: Any = None,
) -> Flow:
    """A neural spline flow: each step is a trained matrix and a layer of splines made by a network.

    With kind="coupling", (C) in the paper, one half of the coordinates goes through splines made from the other, and
    both directions cost one network pass a step. With kind="autoregressive", (AR), each coordinate goes through a
    spline made from those before it: one direction costs a pass a step and the other the arithmetic of a pass in dim
    steps, as in `masked_autoregressive_flow`. One more matrix after the last step makes the flow start as the identity.

    Splines act within the interval and are the identity outside, so standardise the data, as `fit_to_data` does. Few
    rows are fitted too closely by many narrow bins: take fewer knots, a smaller width and fewer steps.

    The paper has K = 8 bins, that is `knots=7`, on (-3, 3), 10 or 20 steps, and networks of 2 residual blocks up to 256
    wide.

    Args:
        key: a PRNG key.
        base_dist: a distribution of vectors.
        kind: "coupling" or "autoregressive".
        spline: "rational_quadratic"; or "cubic", whose inverse is solved for, "quadratic", or "linear", whose density
            is a histogram in each coordinate, and whose layers may train badly (see `LinearSpline`).
        knots: the inner knots of each spline; there is one bin more.
        interval: (lower, upper), or one number b for (-b, b), on which splines act.
        cond_dim: the size of the condition the flow sees. Defaults to None, an unconditional flow.
        flow_layers: the number of steps.
        nn_width: the width of each conditioner.
        nn_depth: the residual blocks of the conditioner of a coupling, a `flowlib.nn.ResidualMLP`; the hidden
            layers of an autoregressive one, a `flowlib.nn.MaskedMLP`, which has no residual connections.
        nn_activation: its activation.
        mixing: what stands between steps, see `coupling_flow`. Defaults to "linear", a matrix in PLU form.
        invert: True to use the splines' `transform` in `log_prob`, False to use it in `sample`. With
            kind="autoregressive" that direction is the cheap one.
        embedding: a module from one raw condition (integer labels, an image, ...) to `cond_dim` values; it
            is trained with the flow. Defaults to None.
        raw_cond_shape: the shape of one raw condition, () for a label. Needed with `embedding`.
        gradient: what the gradient keeps of each layer, "store", "recompute" or, with kind="coupling", "rebuild"; see
            `Scan`.
        support: what values the columns can take, as `flowlib.distributions.with_support` takes it. The flow has no
            density, and no draws, outside; for columns of whole numbers it is a `Dequantized`. Defaults to None, the
            real line.

    Raises:
        ValueError: if a size is out of range, `kind`, `spline` or `mixing` is no name of one, `gradient` does not suit
            the layers or `base_dist` has no vectors as events.
        TypeError: if `key` or `base_dist` is of the wrong type.

    References:
        Durkan, Bekasov, Murray and Papamakarios 2019, Neural spline flows (arXiv:1906.04032), and Cubic-spline flows
        (arXiv:1906.02145); Müller, McWilliams, Rousselle, Gross and Novák 2019, Neural importance sampling
        (arXiv:1808.03856), for the other two.
    """
    check_kind(kind)
    if spline not in get_args(Spline):
        raise ValueError(f"spline must be one of {get_args(Spline)}, got {spline!r}.")
    options: dict[str, Any] = {
        "base_dist": base_dist,
        "transformer": SPLINES[spline](knots=knots, interval=interval),
        "cond_dim": cond_dim,
        "flow_layers": flow_layers,
        "mixing": mixing,
        "invert": invert,
        "embedding": embedding,
        "raw_cond_shape": raw_cond_shape,
        "gradient": gradient,
        "support": support,
    }
    if kind == "autoregressive":
        return masked_autoregressive_flow(
            key, nn_width=nn_width, nn_depth=nn_depth, nn_activation=nn_activation, **options
        )
    sizes = checked_sizes(cond_dim, nn_width=(nn_width, 1), nn_depth=(nn_depth, 0))
    width, depth = sizes["nn_width"], sizes["nn_depth"]
    network = Partial(ResidualMLP, width=width, depth=depth, activation=nn_activation, weight_norm=False)
    return coupling_flow(key, conditioner=network, **options)
