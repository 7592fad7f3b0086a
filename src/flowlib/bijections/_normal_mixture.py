"""The cumulative distribution function of a mixture of normal distributions, seen on the scale of a normal one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib.bijections._bijection import event_log_det
from flowlib.bijections._mixture_components import AbstractMixture, Components, where_to_search
from flowlib.bijections._normal_tails import lower_tail, normal_quantile
from flowlib.bijections._solve import solve_scalar


class NormalMixture(AbstractMixture):
    """y = Q(F(x)) with F(x) = sum_k w_k P((x - loc_k) / scale_k), elementwise on the reals.

    P is the distribution function of the standard normal distribution and Q its inverse: what has the density of the
    mixture becomes normal (Gaussianization). Scales are at least `min_scale`, so that dy/dx is at most 1/min_scale
    in the tails, where the map is that of the widest component. Values and slopes are computed from log F below the
    median and log(1 - F) above, so that both tails are exact.

    `transform` is O(components); `inverse` is a search between the least and the greatest loc_k + scale_k y, to
    |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in float64, with implicit gradients.

    It starts near the identity: |y - x| < 0.25, or 0.08 where |x| < 3, and |log dy/dx| < 0.15. With equal components it
    would be the identity exactly, but their gradients would be equal too, so that they never parted. So five or more
    start as a standard normal of weight 0.3 and narrower ones side by side, whose sum is nearly another; fewer with
    equal weights, scales of 1, and locations spread from -0.1 to 0.1.

    Args:
        components: their number. Defaults to 8.
        shape: the shape of an event. Defaults to ().
        min_scale: the least scale of a component, in (0, 1). Defaults to 0.01.

    Raises:
        ValueError: if the number is not positive or `min_scale` out of range.

    References:
        Chen and Gopinath 2000, Gaussianization; Meng et al. 2020, Gaussianization flows, section 3.1, there with
        logistic components (arXiv:2003.01941).
    """

    def __init__(self, components: int = 8, shape: tuple[int, ...] = (), *, min_scale: float = 0.01):
        super().__init__(components, shape, min_scale, _side_by_side)

    # All of these also take lanes: x of shape (n,), and arrays with one more axis, the last, of size n or 1.

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        components = self._components()
        log_weights, locations, scales = components
        sign = _sign((jnp.exp(log_weights) * jax.lax.erf((x - locations) / scales * 0.5**0.5)).sum(0))
        y = sign * normal_quantile(sign * _log_tail(x, (components, sign)))
        return y, event_log_det(_log_slope(x, sign, y, components), self.shape)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        components = self._components()
        sign = _sign(y)
        target = sign * lower_tail(sign * y)[0]
        x = solve_scalar(_log_tail, target, (components, sign), **where_to_search(y, components))
        return x, -event_log_det(_log_slope(x, sign, y, components), self.shape)


# Fewer components cannot make a normal distribution side by side.
_LEAST_SIDE_BY_SIDE = 5
# Their locations then run from minus this to this.
_SPREAD = 0.1


def _side_by_side(components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, locations and scales of a standard normal distribution and of some that make another together.

    These have the locations m_k over three standard deviations of N(0, 1 - s^2), and weights like its density: with
    N(0, s^2) around each the sum is nearly N(0, 1), if the m_k are at most 1.6 s apart.
    """
    if components < _LEAST_SIDE_BY_SIDE:
        places = np.linspace(-_SPREAD, _SPREAD, components) if components > 1 else np.zeros(1)
        return np.full(components, 1 / components), places, np.ones(components)
    n = components - 1
    scale = max(0.5, 1 / math.hypot(1, 0.8 * (n - 1) / 3))
    places = np.linspace(-3, 3, n)
    shares = np.exp(-(places**2) / 2)
    weights = np.concatenate([[0.3], 0.7 * shares / shares.sum()])
    locations = np.concatenate([[0], math.sqrt(1 - scale**2) * places])
    return weights, locations, np.concatenate([[1], np.full(n, scale)])


def _sign(x: Float[Array, "*lanes"]) -> Float[Array, "*lanes"]:
    """1 below the median, where log F says more than log(1 - F), else -1."""
    return jax.lax.stop_gradient(jnp.where(x < 0, 1, -1).astype(x.dtype))


def _log_terms(x, sign, components):
    """log w_k P(z_k) of the standardised values, reflected above the median, and the log slopes of log P there."""
    log_weights, locations, scales = components
    log_cdf, log_slope = lower_tail(sign * (x - locations) / scales)
    return log_weights + log_cdf, log_slope - jnp.log(scales)


def _log_tail(x: Float[Array, "*lanes"], args: tuple[Components, Array]) -> Float[Array, "*lanes"]:
    """log F, or above the median -log(1 - F): increasing in x."""
    components, sign = args
    return sign * jax.nn.logsumexp(_log_terms(x, sign, components)[0], axis=0)


def _log_slope(x, sign, y, components) -> Float[Array, "*lanes"]:
    """log dy/dx = log(F'/F) - log(p(y)/P(y)), the first of which is a mean of the components' own.

    No difference of large numbers, as log F' - log p(y) would be far out.
    """
    log_terms, log_slopes = _log_terms(x, sign, components)
    own = jax.nn.logsumexp(jax.nn.log_softmax(log_terms, axis=0) + log_slopes, axis=0)
    return own - lower_tail(sign * y)[1]
