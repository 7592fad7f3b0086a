"""Densities of whole numbers, from densities on the real line."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape, check_count, check_positive, real_array
from flowlib._module import peel
from flowlib.bijections import InDataUnits
from flowlib.distributions._batch_first import AbstractBatchDistribution
from flowlib.distributions._columns import checked_columns, chosen
from flowlib.distributions._distribution import (
    AbstractDistribution,
    check_is_distribution,
    density_batch,
    draw_batch,
    draw_with_density_batch,
)
from flowlib.distributions._marginal import AbstractMarginal
from flowlib.distributions._special import log_sum_exp
from flowlib.distributions._wrapper import AbstractWrapper
from flowlib.support import Integers, Interval, Whole, fits


class Dequantized(AbstractBatchDistribution, AbstractWrapper, AbstractMarginal):
    """Whole numbers n with probability P(n | c), the integral of the density p(n + u | c) over the cell u in [0, 1)^D.

    `sample` rounds draws of p down, and brings those beyond `values` to the nearest of these. The integral has no
    closed form, so there are two ways to it:

    - `log_prob` is a fixed sum over `points` places of the cell, which takes no key. Of a density that is smooth over
      a cell it is log P to a few digits; of many columns (images) it is an estimate, and no bound.
    - `lower_bound` is random, and its mean is at most log P: with one place, it is the bound that uniform or
      variational dequantization trains on; with more, the tighter importance-weighted one. `fit_to_data` minimises its
      negative, with other places at each step.

    With `noise` q(u | n), the places are drawn from it and weighted by p(n + u) / q(u | n) (variational
    dequantization, Ho et al. 2019); without, they are uniform (Uria et al. 2013). Columns of real numbers stay as they
    are, and P is a density in them.

    A density costs `points` of those of p, one place after another; a draw costs one.

    Args:
        dist: p, a distribution over real numbers: over (0, 256) in each coordinate, say, for the numbers 0 to 255.
        columns: which columns, on the last axis, hold whole numbers: a boolean for each. Defaults to all.
        values: the whole numbers that there are, `flowlib.support.Integers(0, 255)` for bytes: others have probability
            0, and a fit refuses them. What p has beyond them is lost to `log_prob`. Defaults to all.
        noise: q, of the events' shape and over (0, 1); its condition, if it has one, is n. Defaults to the uniform.
        points: places in a cell at which `log_prob` evaluates p.

    Raises:
        ValueError: if shapes do not agree, or there is noise for some columns only.
        TypeError: if `dist` or `noise` is not a distribution.

    References:
        Theis, van den Oord and Bethge (2016), https://arxiv.org/abs/1511.01844, section 3.1;
        Ho, Chen, Srinivas, Duan and Abbeel (2019), https://arxiv.org/abs/1902.00275, section 3.1;
        Burda, Grosse and Salakhutdinov (2016), https://arxiv.org/abs/1509.00519, for several places;
        Stein (1987), Technometrics 29(2), for the places of `log_prob`: a centred Latin hypercube.
    """

    dist: AbstractDistribution
    noise: AbstractDistribution | None
    values: Integers | None
    columns: tuple[bool, ...] = eqx.field(static=True)
    points: int = eqx.field(static=True)

    def __init__(
        self,
        dist: AbstractDistribution,
        *,
        columns: Sequence[bool] | None = None,
        values: Integers | None = None,
        noise: AbstractDistribution | None = None,
        points: int = 16,
    ):
        inner = check_is_distribution(dist, "Dequantized")
        self.columns = checked_columns(columns, inner.shape)
        if noise is not None:
            own = check_is_distribution(noise, "Dequantized", "noise")
            if own.shape != inner.shape or own.cond_shape not in (None, inner.shape):
                raise ValueError(
                    f"noise expected shape {inner.shape}, and that of its condition too if it has one, "
                    f"got {own.shape} and {own.cond_shape}."
                )
            if not all(self.columns):
                raise ValueError("noise expected whole numbers in all columns, got some of real numbers.")
            if not fits(own.support, Interval(0.0, 1.0)):
                raise ValueError(f"noise expected a distribution over (0, 1), got one of {own.support.kind} support.")
        self.dist = dist
        self.noise = noise
        self.values = values
        self.points = check_count(points, "points")

    @property
    def support(self) -> Whole:
        return Whole(peel(self.dist).support, self.columns, self.values)

    @property
    def units(self) -> InDataUnits | None:
        """The units of `dist`, which are those of numbers in the cells; None if it has none."""
        return getattr(self.dist, "units", None)

    def __repr__(self) -> str:
        real = "" if all(self.columns) else f", columns={self.columns}"
        noise = "" if self.noise is None else f", noise={type(peel(self.noise)).__name__}"
        return f"Dequantized(points={self.points}{real}{noise})\n{self.dist!r}"

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        if self.noise is not None:
            return self._bound(jr.split(jr.key(0), self.points), x, condition)
        places = _latin_hypercube(self.points, self.shape, self._whole).astype(x.dtype)
        terms = jax.lax.map(lambda place: density_batch(self.dist, x + place, condition), places)
        return log_sum_exp(terms) - math.log(self.points)

    def _log_weights(self, key: PRNGKeyArray, x: Array, condition: Array | None) -> Array:
        if self.noise is None:
            # Never 0, at which an open cell ends.
            places = jr.uniform(key, x.shape, x.dtype, minval=jnp.finfo(x.dtype).eps)
            log_noise = jnp.zeros(len(x), x.dtype)
        else:
            places, log_noise = draw_with_density_batch(self.noise, key, len(x), x)
            places, log_noise = places.astype(x.dtype), log_noise.astype(x.dtype)
        return density_batch(self.dist, _within(x, jnp.where(self._whole, places, 0)), condition) - log_noise

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        x = draw_batch(self.dist, key, size, condition)
        whole = jnp.floor(x)
        if self.values is not None:
            whole = jnp.clip(whole, self.values.lower, self.values.upper)
        return jnp.where(self._whole, whole, x)

    @property
    def _whole(self) -> np.ndarray:
        return chosen(self.columns)


def bits_per_dim(log_prob: ArrayLike, shape: int | tuple[int, ...], *, cell: float = 1.0) -> Array:
    """-(log p + D log cell) / (D log 2), for events of D = prod(shape) coordinates: the usual score of image models.

    Args:
        log_prob: log densities or log probabilities, of any shape; for `Dequantized`, at best from `lower_bound`.
        shape: the shape of one event.
        cell: the width of the cell of one whole number in the units of the density: 1 for densities of 0 to 255 (the
            default), 1/256 for densities of pixels that were divided by 256.

    Raises:
        ValueError: for events without coordinates, or a width that is not positive.
        TypeError: if `log_prob` does not hold real numbers.
    """
    shape = as_shape(shape)
    check_positive(cell, "cell")
    size = math.prod(shape)
    if size == 0:
        raise ValueError(f"shape expected at least one coordinate, got {shape}.")
    return -(real_array(log_prob, "log_prob") / size + math.log(cell)) / math.log(2)


def _within(x: Array, place: Array) -> Array:
    """x + place, but no more than the last float before x + 1, to which the sum may be rounded."""
    end = jax.lax.stop_gradient(x + 1)
    return jnp.where(x + place >= end, jnp.nextafter(end, jnp.full_like(end, -jnp.inf)), x + place)


def _latin_hypercube(points: int, shape: tuple[int, ...], whole: np.ndarray) -> np.ndarray:
    """Places in a cell: in each column the middles of `points` equal parts, in an order of its own; 0 in real ones."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    order = rng.permuted(np.broadcast_to(np.arange(points)[:, None], (points, size)), axis=0)
    return np.where(whole, ((order + 0.5) / points).reshape(points, *shape), 0.0)
