"""A network with one input and one output that increases: a deep dense sigmoidal flow."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count, check_fraction
from flowlib._module import Module
from flowlib.bijections._bijection import AbstractBijection, event_log_det
from flowlib.bijections._logistic_start import logistics_side_by_side
from flowlib.bijections._mixture_components import constrained_scales, initial_components, log_sigmoids
from flowlib.bijections._solve import solve_scalar

# The logits of each row of W and U are this above the others' mean at the place of its own, and as much below opposite.
_DIFFERENCE = 0.5


class MonotoneNetwork(AbstractBijection):
    """y = h_L with h_0 = x and h_l = logit(W_l sigmoid((U_l h_(l-1) - loc_l) / scale_l)), elementwise on the reals.

    Rows of W and U are positive with sum 1, and scales at least `min_scale`, so that each h increases in x; all of
    these are parameters. Values and slopes are computed from logarithms, so that nothing saturates: far out the
    map is a straight line. With depth 1 it is a `LogisticMixture`. As a transformer it is followed by an affine one,
    in a `Chain`.

    `transform` is O(depth width^2). `inverse` is a search between bounds that follow from the parameters, to
    |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in float64, with implicit gradients.

    It starts near the identity: with one or two layers of eight units or more, |y - x| < 0.05 and |log dy/dx| < 0.025;
    with fewer units, 0.3 and 0.2; more layers are further from it. With equal units it would be the identity exactly,
    but their gradients would be equal too, so that they never parted. So the units of each layer start as the
    components of a `LogisticMixture`, and each row of W and U with more weight around a unit of its own.

    Args:
        width: the number of units in each hidden layer. Defaults to 8.
        depth: their number. Defaults to 2.
        shape: the shape of an event. Defaults to ().
        min_scale: the least scale of a unit, in (0, 1). Defaults to 0.01.

    Raises:
        ValueError: if a number is not positive or `min_scale` out of range.

    References:
        Huang et al. 2018, Neural autoregressive flows, eq. 8 and 9 (arXiv:1804.00779).
    """

    layers: tuple["_Layer", ...]
    min_scale: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, width: int = 8, depth: int = 2, shape: tuple[int, ...] = (), *, min_scale: float = 0.01):
        width, depth = check_count(width, "width"), check_count(depth, "depth")
        self.shape = as_shape(shape)
        self.min_scale = check_fraction(min_scale, "min_scale", "MonotoneNetwork")
        sizes = [1, *[width] * (depth - 1), 1]
        self.layers = tuple(_Layer(sizes[i], width, sizes[i + 1], self.shape, self.min_scale) for i in range(depth))

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    # All of these also take lanes: x of shape (n,), and arrays with one more axis, the last, of size n or 1.

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        layers = self._constrained()
        y, log_slope = _value_and_log_slope(x, layers)
        return y, event_log_det(log_slope, self.shape)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        layers = self._constrained()
        x = solve_scalar(_value, y, layers, start=_line(y, layers), bracket=_bracket(y, layers))
        return x, -event_log_det(_value_and_log_slope(x, layers)[1], self.shape)

    def _constrained(self) -> "Layers":
        return tuple(layer.constrained(self.min_scale) for layer in self.layers)


class _Layer(Module):
    """The parameters of a layer: logits of the rows of U and W, locations, and scales before a softplus."""

    mixing: Float[Array, "..."]
    locations: Float[Array, "..."]
    scales: Float[Array, "..."]
    weights: Float[Array, "..."]

    def __init__(self, in_size: int, width: int, out_size: int, shape: tuple[int, ...], min_scale: float):
        self.mixing = _each_its_own(width, in_size, shape)
        start = logistics_side_by_side(width)
        logits, self.locations, self.scales = initial_components(start, shape, min_scale)
        self.weights = logits[None] + _each_its_own(out_size, width, shape)

    def constrained(self, min_scale):
        """U, locations, scales and log W."""
        scales = constrained_scales(self.scales, min_scale)
        return jax.nn.log_softmax(self.mixing, axis=1), self.locations, scales, jax.nn.log_softmax(self.weights, axis=1)


# log U, locations, scales and log W of each layer.
Layers = tuple[tuple[Array, Array, Array, Array], ...]


def _each_its_own(rows: int, columns: int, shape: tuple[int, ...]) -> Array:
    """Logits with a maximum at a place of each row's own, and the same column sums: equal rows would never part."""
    turn = np.arange(rows)[:, None] / max(rows, 1) - np.arange(columns) / columns
    logits = _DIFFERENCE * np.cos(2 * np.pi * turn) if min(rows, columns) > 1 else np.zeros((rows, columns))
    return jnp.asarray(
        np.broadcast_to(logits.reshape(rows, columns, *[1] * len(shape)), (rows, columns, *shape)), float
    )


def _value(x: Float[Array, "*lanes"], layers: Layers) -> Float[Array, "*lanes"]:
    h = x[None]
    for layer in layers:
        log_cdf, log_sf = _log_tails(h, layer)
        h = _log_mean(layer[3] + log_cdf)[0] - _log_mean(layer[3] + log_sf)[0]
    return h[0]


def _value_and_log_slope(x: Float[Array, "*lanes"], layers: Layers) -> tuple[Array, Array]:
    """With log dy/dx from the logarithms of the slopes of all units; each is a sum of positive terms."""
    h, log_slope = x[None], jnp.zeros_like(x[None])
    for layer in layers:
        log_mixing, _, scales, log_weights = layer
        log_cdf, log_sf = _log_tails(h, layer)
        below, below_shares = _log_mean(log_weights + log_cdf)
        above, above_shares = _log_mean(log_weights + log_sf)
        log_slope = _log_mean(log_mixing + log_slope)[0] - jnp.log(scales)
        terms = [below_shares + log_sf + log_slope, above_shares + log_cdf + log_slope]
        h, log_slope = below - above, _log_mean(jnp.concatenate(terms, axis=1))[0]
    return h[0], log_slope[0]


def _log_tails(h, layer):
    """log sigmoid(z) and log sigmoid(-z) of the units that see h."""
    log_mixing, locations, scales, _ = layer
    return log_sigmoids(((jnp.exp(log_mixing) * h).sum(axis=1) - locations) / scales)


def _log_mean(x):
    """log sum exp of finite numbers along axis 1, and the logarithms of the shares in that sum."""
    largest = jax.lax.stop_gradient(x.max(axis=1, keepdims=True))
    # The sum of the shares is 1 to rounding also where x is large.
    centred = x - largest
    total = jnp.log(jnp.exp(centred).sum(axis=1, keepdims=True))
    return (largest + total)[:, 0], centred - total


def _bracket(y, layers):
    """Where all units of a layer are above y, so is what it gives; and that they are if all that they see is."""
    low, high = y, y
    for _, locations, scales, _ in layers[::-1]:
        low, high = (locations + scales * low).min(axis=0), (locations + scales * high).max(axis=0)
    return low, high


def _line(y, layers):
    """Backwards through the layers, each unit's mean location and scale."""
    for _, locations, scales, _ in layers[::-1]:
        y = (locations + scales * y).mean(axis=0)
    return y
