"""The cumulative distribution function of a mixture of logistic distributions, seen on the real line."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._mixture_components import (
    Components,
    constrained_scales,
    event_log_det,
    initial_components,
    log_sigmoids,
    where_to_search,
)
from flowlib.bijections._solve import solve_scalar


class LogisticMixture(AbstractBijection):
    """y = logit(F(x)) with F(x) = sum_k w_k sigmoid((x - loc_k) / scale_k), elementwise on the reals.

    Scales are at least `min_scale`, so that dy/dx is at most 1/min_scale. Values and slopes are computed from log F and
    log(1 - F), so that both tails are exact. `transform` is O(components); `inverse` is a search between the least
    and the greatest loc_k + scale_k y, to |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in float64, with
    implicit gradients. As a transformer it is followed by an affine one, in a `Chain`.

    It starts near the identity: |y - x| < 0.005 everywhere and |log dy/dx| < 0.003. With equal components it would be
    the identity exactly, but their gradients would be equal too, so that they never parted. So they start with
    equal weights, scales of 1, and locations spread from -0.1 to 0.1.

    Args:
        components: their number. Defaults to 4.
        shape: the shape of an event. Defaults to ().
        min_scale: the least scale of a component, in (0, 1). Defaults to 0.01.

    Raises:
        ValueError: if the number is not positive or `min_scale` out of range.

    References:
        Ho et al. 2019, arXiv:1902.00275, section 3.2.
    """

    logits: Float[Array, "..."]
    locations: Float[Array, "..."]
    scales: Float[Array, "..."]
    min_scale: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, components: int = 4, shape: tuple[int, ...] = (), *, min_scale: float = 0.01):
        components = check_count(components, "components")
        if not 0 < min_scale < 1:
            raise ValueError(f"LogisticMixture expected min_scale in (0, 1), got {min_scale}.")
        self.shape = as_shape(shape)
        self.min_scale = float(min_scale)
        self.logits, self.locations, self.scales = initial_components(components, self.shape)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    # All of these also take lanes: x of shape (n,), and arrays with one more axis, the last, of size n or 1.

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        components = self._components()
        return _logit(x, components), event_log_det(_log_slope(x, components), self.shape)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        components = self._components()
        x = solve_scalar(_logit, y, components, **where_to_search(y, components))
        return x, -event_log_det(_log_slope(x, components), self.shape)

    def _components(self):
        scales = constrained_scales(self.scales, self.min_scale)
        return jax.nn.log_softmax(self.logits, axis=0), self.locations, scales


def _logit(x: Float[Array, "*lanes"], components: Components) -> Float[Array, "*lanes"]:
    log_weights, *_ = components
    log_cdf, log_sf = _logs(x, components)
    return jax.nn.logsumexp(log_weights + log_cdf, axis=0) - jax.nn.logsumexp(log_weights + log_sf, axis=0)


def _log_slope(x: Float[Array, "*lanes"], components: Components) -> Float[Array, "*lanes"]:
    """log dy/dx = log(F'/F + F'/(1 - F)), where each term is a mean of the components' own.

    No difference of large numbers, as log F' - log F - log(1 - F) would be far out.
    """
    log_weights, _, scales = components
    log_cdf, log_sf = _logs(x, components)
    below = jax.nn.log_softmax(log_weights + log_cdf, axis=0) + log_sf - jnp.log(scales)
    above = jax.nn.log_softmax(log_weights + log_sf, axis=0) + log_cdf - jnp.log(scales)
    return jax.nn.logsumexp(jnp.concatenate([below, above]), axis=0)


def _logs(x, components):
    """log sigmoid(z) and log sigmoid(-z) of each component."""
    _, locations, scales = components
    return log_sigmoids((x - locations) / scales)
