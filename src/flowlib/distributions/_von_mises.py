"""The von Mises distribution of angles."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import i0e
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import AbstractUnwrappable, unwrap

from flowlib.constraints import Parameter, broadcast, finite, positive
from flowlib.distributions._batch_first import AbstractBatchSampler
from flowlib.distributions._statistics import AbstractCumulative, AbstractEntropy, statistic
from flowlib.support import Circle, Support

_LOG_2PI = math.log(2 * math.pi)
# From here on I0 by its asymptotic series, whose coefficients these are: the next is 1e-15 of the first.
_LARGE = 100.0
_SERIES = np.cumprod([1, *((2 * k - 1) ** 2 / (8 * k) for k in range(1, 9))])
# Gauss and Legendre's quadrature on (0, 1); the integrand falls to exp(-40) at most where it is cut off.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_CUT = 40.0
# Two draws in three are accepted at least: a draw that is not after so many is one in 10^47.
_MOST_ROUNDS = 100


class VonMises(AbstractBatchSampler, AbstractEntropy, AbstractCumulative):
    """Independent angles: log p(x) = k cos(x - loc) - log(2 pi I0(k)), k the concentration, summed, on -pi <= x <= pi.

    `scipy.stats.vonmises(concentration, loc)`, cut open at pi, where both ends are one point; draws are in this range,
    and an angle in any other turn has the density of the same angle in it. For small concentrations it becomes
    the uniform distribution on the circle. The arguments broadcast to the shape of an event. Accurate for any
    concentration, so large that it is a normal of variance 1 / concentration, too. Draws are exact, by rejection.

    On a circle cut open, mean and variance are of no use: there are `circular_mean` and `circular_variance` instead.
    Has entropy in closed form; its cdf, from the cut at -pi on, is a quadrature that is exact to rounding.

    Args:
        loc: central angles, in any turn.
        concentration: positive concentrations.

    Raises:
        ValueError: if a concentration is not positive and finite, an angle not finite, or they do not broadcast.

    References:
        Best and Fisher 1979, Efficient simulation of the von Mises distribution.
    """

    loc: Parameter
    _concentration: Array | AbstractUnwrappable[Array]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, loc: ArrayLike, concentration: ArrayLike):
        self.loc, concentration = broadcast(finite(loc, "loc"), finite(concentration, "concentration"))
        self._concentration = positive(concentration, "concentration")
        self.shape = concentration.shape

    @property
    def concentration(self) -> Array:
        """The concentrations, a plain array of shape `shape`."""
        return unwrap(self._concentration)

    @property
    def support(self) -> Support:
        return Circle()

    @property
    def circular_mean(self) -> Array:
        """The direction of the mean of (cos x, sin x) in each coordinate: `loc`, within -pi and pi."""
        return statistic("_circular_mean", self, self.shape)

    @property
    def circular_variance(self) -> Array:
        """1 less the length of the mean of (cos x, sin x) in each coordinate: 0 of one point, 1 of uniform angles."""
        return statistic("_circular_variance", self, self.shape)

    def _circular_mean(self) -> Array:
        return _wrapped(self.loc)

    def _circular_variance(self) -> Array:
        return -log_i0e_slope(self.concentration)

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        # cos - 1 without cancellation.
        height = -2 * self.concentration * jnp.sin(0.5 * (x - self.loc)) ** 2
        return (height - log_i0e(self.concentration) - _LOG_2PI).sum()

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        concentration = jnp.broadcast_to(self.concentration, (size, *self.shape))
        centred = _moved(_draw(key, jax.lax.stop_gradient(concentration)), concentration)
        return _wrapped(self.loc + centred)

    def _entropy(self) -> Array:
        concentration = self.concentration
        return (_LOG_2PI + log_i0e(concentration) - concentration * log_i0e_slope(concentration)).sum()

    def _cdf(self, x: Array) -> Array:
        start = jnp.asarray(-math.pi, x.dtype)
        x = jnp.clip(x, start, -start)
        return _turning_cdf(x - self.loc, self.concentration) - _turning_cdf(start - self.loc, self.concentration)


def log_i0e(k: Array) -> Array:
    """log(I0(k) exp(-k)), for k > 0, with its derivative for large k too."""
    large = k > _LARGE
    inverse, small = 1 / jnp.where(large, k, _LARGE), jnp.where(large, 1, k)
    series = jnp.zeros_like(k)
    for coefficient in _SERIES[:0:-1]:
        series = (series + float(coefficient)) * inverse
    return jnp.where(large, jnp.log1p(series) + 0.5 * (jnp.log(inverse) - _LOG_2PI), jnp.log(i0e(small)))


def log_i0e_slope(k: Array) -> Array:
    """The derivative of `log_i0e`, I1(k)/I0(k) - 1."""
    return jax.jvp(log_i0e, (k,), (jnp.ones_like(k),))[1]


def _wrapped(angle: Array) -> Array:
    end = jnp.asarray(math.pi, angle.dtype)
    return jnp.clip(angle - 2 * math.pi * jnp.round(angle / (2 * math.pi)), -end, end)


def _turning_cdf(angle: Array, k: Array) -> Array:
    """The integral of the density around 0 from 0 to an angle, one more for each turn."""
    turns = jnp.round(angle / (2 * math.pi))
    return turns + _centred_cdf(angle - 2 * math.pi * turns, k)


def _centred_cdf(angle: Array, k: Array) -> Array:
    # Where the density has fallen to exp(-40) of its peak, nothing is left to any precision.
    reach = 2 * jnp.arcsin(jnp.minimum(1, jnp.sqrt(0.5 * _CUT / jax.lax.stop_gradient(k))))
    angle = jnp.clip(angle, -reach, reach)
    nodes, weights = (jnp.asarray(array, angle.dtype) for array in (_NODES, _WEIGHTS))
    density = jnp.exp(_log_density(nodes.reshape(-1, *[1] * angle.ndim) * angle, k))
    return angle * jnp.tensordot(weights, density, 1, precision="highest")


def _log_density(angle: Array, k: Array) -> Array:
    return -2 * k * jnp.sin(0.5 * angle) ** 2 - log_i0e(k) - _LOG_2PI


def _draw(key: PRNGKeyArray, k: Array) -> Array:
    """Angles around 0: wrapped Cauchy angles, each drawn again until it is accepted."""
    # In Best and Fisher's terms tau / 2 - k and (1 - rho) / (1 + rho), written so that nothing cancels or overflows.
    excess = 0.5 + 0.5 / (jnp.hypot(jnp.ones_like(k), 2 * k) + 2 * k)
    width = jnp.sqrt(excess / (excess + 2 * k))

    def go_on(state):
        _, _, accepted, rounds = state
        return ~accepted.all() & (rounds < _MOST_ROUNDS)

    def draw(state):
        key, angle, accepted, rounds = state
        key, key_angle, key_accept = jr.split(key, 3)
        proposed = 2 * jnp.arctan(width * jr.cauchy(key_angle, k.shape, k.dtype))
        y = excess + 2 * k * jnp.sin(0.5 * proposed) ** 2
        threshold = jnp.log(jr.uniform(key_accept, k.shape, k.dtype, minval=jnp.finfo(k.dtype).tiny))
        good = threshold <= 1 - y + jnp.log(y)
        return key, jnp.where(accepted, angle, proposed), accepted | good, rounds + 1

    start = (key, jnp.zeros_like(k), jnp.zeros(k.shape, bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(go_on, draw, start)[1]


@jax.custom_jvp
def _moved(angle: Array, k: Array) -> Array:
    """A draw, which moves with the concentration so that its probability stays (arXiv:1805.08498)."""
    return angle


@_moved.defjvp
def _moved_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    angle, k = primals
    _, lifted = jax.jvp(lambda k: _centred_cdf(angle, k), (k,), (tangents[1],))
    return angle, tangents[0] - lifted * jnp.exp(-_log_density(angle, k))
