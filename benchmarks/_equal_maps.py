"""Maps with equal parameters: splines, circular ones, polynomials, linear, planar and radial maps."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from _pair import Pair
from flowlib.bijections import (
    BernsteinPolynomial,
    Chain,
    CircularShift,
    InvertibleLinear,
    Loc,
    Planar,
    Radial,
    RationalQuadraticSpline,
    SumOfSquares,
    Vmap,
)
from flowlib.constraints import inverse_softplus

Edges = Literal["identity", "free", "circular"]

# LEAST is the least slope, width and height.
DIM, BINS, LEAST = 5, 9, 1e-3
# Half the length of the interval of splines and polynomials.
BOUND = 4.0


def distrax_spline(rng, rows) -> Pair:
    import distrax

    params = rng.normal(size=(DIM, 3 * BINS + 1))
    theirs = distrax.RationalQuadraticSpline(params, -BOUND, BOUND, min_bin_size=LEAST, min_knot_slope=LEAST)
    ours = spline(*np.split(params, [BINS, 2 * BINS], axis=1), edges="free")
    return Pair(ours, summed(theirs.forward_and_log_det), 3 * rng.normal(size=(rows, DIM)))


def nflows_spline(rng, rows) -> Pair:
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    widths, heights, slopes = (rng.normal(size=(DIM, n)) for n in (BINS, BINS, BINS - 1))
    theirs = _torch_spline(unconstrained_rational_quadratic_spline, widths, heights, slopes, tails="linear")
    ours = spline(widths, heights, slopes - SLOPE_1, min_width=2 * BOUND * LEAST)
    return Pair(ours, theirs, 3 * rng.normal(size=(rows, DIM)))


def zuko_spline(rng, rows) -> Pair:
    from zuko.transforms import MonotonicRQSTransform

    from _torch_networks import on_rows, tensor

    params = [tensor(rng.normal(size=(DIM, n))) for n in (BINS, BINS, BINS - 1)]
    theirs = MonotonicRQSTransform(*params, bound=BOUND)
    return Pair(spline_of(theirs), on_rows(summed(theirs.call_and_ladj)), 3 * rng.normal(size=(rows, DIM)))


def distrax_circular(rng, rows) -> Pair:
    import distrax

    params = rng.normal(size=(DIM, 3 * BINS + 1))
    bins = {"boundary_slopes": "circular", "min_bin_size": LEAST, "min_knot_slope": LEAST}
    theirs = distrax.RationalQuadraticSpline(params, -BOUND, BOUND, **bins)
    # The last slope is there, and not used.
    widths, heights, slopes = np.split(params, [BINS, 2 * BINS], axis=1)
    ours = spline(widths, heights, slopes[:, :-1], edges="circular")
    return Pair(ours, summed(theirs.forward_and_log_det), between(rng, rows))


def normflows_circular(rng, rows) -> Pair:
    from normflows.utils.splines import unconstrained_rational_quadratic_spline

    widths, heights, slopes = (rng.normal(size=(DIM, BINS)) for _ in range(3))
    theirs = _torch_spline(unconstrained_rational_quadratic_spline, widths, heights, slopes, tails="circular")
    ours = spline(widths, heights, slopes - SLOPE_1, edges="circular", min_width=2 * BOUND * LEAST)
    return Pair(ours, theirs, between(rng, rows))


def zuko_circular(rng, rows) -> Pair:
    from zuko.flows.spline import CircularRQSTransform

    from _torch_networks import on_rows, tensor

    theirs = CircularRQSTransform(*(tensor(rng.normal(size=(DIM, n))) for n in (BINS, BINS, BINS - 1)))
    shift = CircularShift(math.pi, shape=(DIM,))
    shift = eqx.tree_at(lambda shift: shift.shift, shift, jnp.full(DIM, math.pi))
    ours = Chain([shift, spline_of(theirs.transforms[1])])
    return Pair(ours, on_rows(summed(theirs.call_and_ladj)), between(rng, rows, math.pi))


def zuko_sum_of_squares(rng, rows) -> Pair:
    from zuko.transforms import SOSPolynomialTransform

    from _torch_networks import on_rows, tensor

    polynomials, degree = 3, 4
    a = rng.normal(size=(DIM, polynomials, degree + 1))
    theirs = SOSPolynomialTransform(tensor(a), slope=LEAST)
    ours = SumOfSquares(polynomials, degree, bound=theirs.bound, min_derivative=LEAST, shape=(DIM,))
    # zuko adds the least slope e to the squares, flowlib to (1-e) times the squares.
    a[..., 0] += 1
    a /= math.sqrt(1 - LEAST)
    a[..., 0] -= 1
    ours = eqx.tree_at(lambda ours: ours.coefficients, ours, jnp.asarray(a.T))
    return Pair(ours, on_rows(summed(theirs.call_and_ladj)), between(rng, rows, theirs.bound))


def zuko_bernstein(rng, rows) -> Pair:
    from zuko.transforms import BernsteinTransform

    return _bernstein(BernsteinTransform, rng, rows)


def zuko_bounded_bernstein(rng, rows) -> Pair:
    from zuko.transforms import BoundedBernsteinTransform

    return _bernstein(BoundedBernsteinTransform, rng, rows)


def _bernstein(transform, rng, rows):
    from _torch_networks import on_rows, tensor

    theirs = transform(tensor(rng.normal(size=(DIM, 8))), bound=BOUND)
    theta = theirs.theta.numpy().T
    bounded = transform.__name__.startswith("Bounded")
    options = {"interval": BOUND, "min_derivative": LEAST, "shape": (DIM,)}
    ours = BernsteinPolynomial(degree=theirs.order, edges="identity" if bounded else "free", **options)
    slopes = np.diff(theta, axis=0) * theirs.order / (2 * BOUND)
    if bounded:
        # Of the outer slopes, 1 in both libraries, flowlib fixes one at each end and zuko two.
        ours = eqx.tree_at(lambda ours: ours.increments, ours, jnp.log(slopes[1:-1] - LEAST))
    else:
        values = inverse_softplus(slopes - LEAST) - SLOPE_1, jnp.asarray(theta[0] + BOUND)
        ours = eqx.tree_at(lambda ours: (ours.increments, ours.shift), ours, values)
    # In the outermost millionth of the interval zuko has its straight lines already.
    return Pair(ours, on_rows(summed(theirs.call_and_ladj)), between(rng, rows, (1 - 1e-5) * BOUND))


def nflows_linear(rng, rows) -> Pair:
    from nflows.transforms.lu import LULinear

    from _torch_networks import on_rows, tensor

    theirs = LULinear(DIM)
    for parameter in theirs.parameters():
        parameter.data = tensor(rng.normal(size=parameter.shape))
    matrix, bias = (each.detach().numpy() for each in (theirs.weight(), theirs.bias))
    ours = Chain([InvertibleLinear(jr.key(0), dim=DIM, init=matrix), Loc(bias)])
    return Pair(ours, on_rows(theirs.forward), rng.normal(size=(rows, DIM)))


def zuko_linear(rng, rows) -> Pair:
    from zuko.transforms import LULinearTransform

    from _torch_networks import on_rows, tensor

    theirs = LULinearTransform(tensor(rng.normal(size=(DIM, DIM))))
    ours = InvertibleLinear(jr.key(0), dim=DIM, init=(theirs.L @ theirs.U).numpy())
    return Pair(ours, on_rows(theirs.call_and_ladj), rng.normal(size=(rows, DIM)))


def normflows_planar(rng, rows) -> Pair:
    from normflows.flows import Planar as Theirs

    from _torch_networks import on_rows, tensor

    w, u, b = rng.normal(size=DIM), rng.normal(size=DIM), rng.normal(size=1)
    theirs = Theirs((DIM,), u=tensor(u[None]), w=tensor(w[None]), b=tensor(b))
    # The part of u along w gives w . u in both libraries by a map of its own.
    used = np.log1p(np.exp(w @ u)) - 1
    u = u + (_before_above_minus_one(used) - w @ u) * w / (w @ w)
    ours = eqx.tree_at(lambda ours: ours.params, Planar(jr.key(0), dim=DIM), jnp.concatenate([w, u, b]))
    return Pair(ours, on_rows(theirs.forward), rng.normal(size=(rows, DIM)))


def normflows_radial(rng, rows) -> Pair:
    from normflows.flows import Radial as Theirs

    from _torch_networks import on_rows, tensor

    centre, alpha, beta = rng.normal(size=DIM), rng.uniform(0.5, 2), rng.normal()
    theirs = Theirs((DIM,), z_0=tensor(centre[None]))
    theirs.alpha.data, theirs.beta.data = tensor([alpha]), tensor([beta])
    ratio = (np.log1p(np.exp(beta)) - alpha) / alpha
    own = [_before_above_minus_one(alpha - 1), _before_above_minus_one(ratio)]
    ours = eqx.tree_at(lambda ours: ours.params, Radial(jr.key(0), dim=DIM), jnp.concatenate([centre, jnp.stack(own)]))
    return Pair(ours, on_rows(theirs.forward), rng.normal(size=(rows, DIM)))


def spline(widths, heights, slopes, *, bound=BOUND, min_width=LEAST, edges: Edges = "identity") -> Vmap:
    """A spline for each coordinate with these unconstrained parameters."""
    one = RationalQuadraticSpline(
        knots=BINS - 1, interval=bound, min_width=min_width, min_derivative=LEAST, edges=edges
    )
    arrays = tuple(map(jnp.asarray, (widths, heights, slopes)))
    one = eqx.tree_at(lambda one: (one.widths, one.heights, one.slopes), one, arrays)
    return Vmap(one, in_axes=eqx.if_array(0))


def spline_of(theirs) -> Vmap:
    """The spline with the knots and slopes of one of zuko, which starts from others."""
    widths, heights = (np.log(np.diff(knots.numpy()) - LEAST) for knots in (theirs.horizontal, theirs.vertical))
    slopes = inverse_softplus(theirs.derivatives[:, 1:-1].numpy() - LEAST) - SLOPE_1
    return spline(widths, heights, slopes, bound=float(theirs.horizontal[0, -1]))


# What flowlib adds to a number to make slope 1 of 0, before a softplus.
SLOPE_1 = math.log(math.expm1(1 - LEAST))


def between(rng, rows, bound=BOUND) -> np.ndarray:
    return rng.uniform(-bound, bound, (rows, DIM))


def summed(forward):
    """The sum of the coordinates' log slopes beside their values."""

    def summed_forward(x):
        y, log_slopes = forward(x)
        return y, log_slopes.sum(-1)

    return summed_forward


def _torch_spline(fn, *params, tails):
    from _torch_networks import on_rows, tensor

    params = [tensor(each) for each in params]

    def forward(x):
        return fn(x, *(each.expand(len(x), *each.shape) for each in params), tails=tails, tail_bound=BOUND)

    return on_rows(summed(forward))


def _before_above_minus_one(value) -> jax.Array:
    """The number of which flowlib makes this one, above -0.999, by 0.999 (softplus(number + log(e - 1)) - 1)."""
    return inverse_softplus(np.asarray(1 + value / 0.999)) - math.log(math.e - 1)
