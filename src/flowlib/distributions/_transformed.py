"""A distribution pushed through a bijection: what a normalizing flow is."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import NonTrainable

from flowlib._arrays import float_dtype
from flowlib._module import peel, unwrap_own
from flowlib._wanted import kind_of
from flowlib.bijections import (
    AbstractBijection,
    Chain,
    InDataUnits,
    backward,
    backward_batch,
    describe,
    layers_of,
    merge_cond_shapes,
    value,
    value_and_log_det,
    values_and_log_det_batch,
    values_batch,
)
from flowlib.distributions._distribution import (
    AbstractDistribution,
    density,
    density_batch,
    draw,
    draw_batch,
    draw_with_density,
    draw_with_density_batch,
    in_range,
    map_batch,
    map_draws,
)
from flowlib.distributions._layer_values import LayerValues, by_stage, values_of_data, values_of_draws
from flowlib.parameters import count_parameters
from flowlib.support import Support, fits, image


class AbstractTransformed(AbstractDistribution):
    """The distribution of y = f(z; condition) where z follows a base distribution.

    log p(y) = log p_base(f^-1(y)) + log |det df^-1/dy|. Subclasses have the fields `base_dist`
    and `bijection`, and perhaps named parameters.
    """

    # The distribution of z, and the bijection f.
    base_dist: eqx.AbstractVar[AbstractDistribution]
    bijection: eqx.AbstractVar[AbstractBijection]

    @property
    def shape(self) -> tuple[int, ...]:
        return peel(self.bijection).out_shape

    @property
    def cond_shape(self) -> tuple[int, ...] | None:
        return merge_cond_shapes([peel(self.bijection).cond_shape, peel(self.base_dist).cond_shape], "Transformed")

    @property
    def support(self) -> Support:
        bijection = peel(self.bijection)
        return image(peel(self.base_dist).support, bijection.domain, bijection.codomain)

    @property
    def layers(self) -> tuple[AbstractBijection, ...]:
        """The layers of the bijection from the base to the data, of which it is the chain."""
        return layers_of(self.bijection)

    @property
    def units(self) -> InDataUnits | None:
        """The units of the data, which a fit sets: the last part of the bijection, if it is an `InDataUnits`."""
        bijection = self.bijection
        while isinstance(bijection, Chain | NonTrainable):
            bijection = bijection.tree if isinstance(bijection, NonTrainable) else bijection[-1]
        return bijection if isinstance(bijection, InDataUnits) else None

    def to_base(self, x: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """The base point z = f^-1(x; condition) of each event; NaN for an event that f does not reach.

        Shapes and errors as `log_prob`; cost likewise, or less (see `ContinuousFlow`).
        """
        return map_batch(_to_base, self, x, condition, self.shape)

    def from_base(self, z: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """The event x = f(z; condition) of each base point. Shapes and errors as `to_base`; cost as `sample`."""
        return map_batch(_from_base, self, z, condition, peel(self.base_dist).shape)

    def layer_values(self, x: ArrayLike, condition: ArrayLike | None = None) -> LayerValues:
        """What the events `x` are between the layers, and their log densities there, in one pass from data to base.

        NaN from the layer on that does not reach an event. Batches, cost and errors as `log_prob`.
        """
        return by_stage(map_batch(values_of_data, self, x, condition, self.shape))

    def sample_layer_values(
        self, key: PRNGKeyArray, sample_shape: int | tuple[int, ...] = (), condition: ArrayLike | None = None
    ) -> LayerValues:
        """The draws of `sample` between the layers, and their log densities there, in one pass from base to data.

        Arguments, cost and errors as `sample`; with a `ContinuousFlow` the cost is that of `log_prob`, and draws are
        those of `sample` to its tolerance.
        """
        return by_stage(map_draws(values_of_draws, self, key, sample_shape, condition))

    def merge_transforms(self) -> "Transformed":
        """The same distribution without a transformed base: nested bijections become one chain."""
        base, parts = self.base_dist, [self.bijection]
        while isinstance(base, AbstractTransformed):
            parts.append(base.bijection)
            base = base.base_dist
        if len(parts) == 1:
            return Transformed(base, self.bijection)
        return Transformed(base, Chain(parts[::-1]).merge_chains())

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        z, log_det = backward(self.bijection, x, condition)
        return _add(density(self.base_dist, z, condition), log_det)

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        z, log_det = backward_batch(self.bijection, x, condition)
        return _add(density_batch(self.base_dist, z, condition), log_det)

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        z = self._cast(draw(self.base_dist, key, condition))
        return value(self.bijection, z, condition)

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        z = self._cast(draw_batch(self.base_dist, key, size, condition))
        return values_batch(self.bijection, z, condition)[0]

    def _sample_and_log_prob(self, key: PRNGKeyArray, condition: Array | None) -> tuple[Array, Array]:
        z, log_prob = draw_with_density(self.base_dist, key, condition)
        x, log_det = value_and_log_det(self.bijection, self._cast(z), condition)
        return x, log_prob.astype(log_det.value.dtype) - log_det.value

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        z, log_prob = draw_with_density_batch(self.base_dist, key, size, condition)
        x, log_det = values_and_log_det_batch(self.bijection, self._cast(z), condition)
        return x, log_prob.astype(log_det.value.dtype) - log_det.value

    def _cast(self, z: Array) -> Array:
        # A base without parameters draws in the default float; the bijection may be in another.
        return z.astype(float_dtype(self.bijection, self.base_dist))


class Transformed(AbstractTransformed):
    """A base distribution pushed through a bijection; every normalizing flow is one.

    The support's kind is checked when it is built; at run time an event that the bijection cannot
    reach, or whose base point is outside the base's support, has log density -inf.

    Args:
        base_dist: the distribution of z.
        bijection: the map f with y = f(z). `log_prob` costs one inverse, `sample` one transform.

    Raises:
        ValueError: if shapes or condition shapes differ, or the support of the base does not fit.
        TypeError: if an argument is of the wrong type.
    """

    # First, for the units of a flow come first among its leaves (see `InDataUnits`).
    bijection: AbstractBijection
    base_dist: AbstractDistribution

    def __init__(self, base_dist: AbstractDistribution, bijection: AbstractBijection):
        base, map_ = peel(base_dist), peel(bijection)
        if not isinstance(base, AbstractDistribution):
            raise TypeError(f"Transformed expected a distribution as base_dist, got {kind_of(base)}.")
        if not isinstance(map_, AbstractBijection):
            raise TypeError(f"Transformed expected a bijection, got {kind_of(map_)}.")
        if base.shape != map_.shape:
            raise ValueError(f"Transformed expected a bijection of shape {base.shape} like its base, got {map_.shape}.")
        if not fits(base.support, map_.domain):
            raise ValueError(
                f"Transformed: {type(map_).__name__} needs {map_.domain.kind} input, "
                f"but the base {type(base).__name__} has {base.support.kind} support."
            )
        merge_cond_shapes([map_.cond_shape, base.cond_shape], "Transformed")
        self.base_dist = base_dist
        self.bijection = bijection

    def __repr__(self) -> str:
        condition = "" if self.cond_shape is None else f", cond_shape={self.cond_shape}"
        lines = [f"Transformed(shape={self.shape}{condition}, parameters={count_parameters(self):,})"]
        lines.append(f"  base: {type(peel(self.base_dist)).__name__}({count_parameters(self.base_dist):,} parameters)")
        lines += [f"  {i}: {describe(layer)}" for i, layer in enumerate(self.layers)]
        return "\n".join(lines)


def _to_base(dist, x, condition):
    dist = unwrap_own(dist)
    x = in_range(dist.support, x)
    z, valid = values_batch(dist.bijection, x, condition, inverse=True)
    return jnp.where(valid.reshape(-1, *[1] * (z.ndim - 1)), z, jnp.nan)


def _from_base(dist, z, condition):
    dist = unwrap_own(dist)
    z = in_range(peel(dist.bijection).domain, z)
    x, valid = values_batch(dist.bijection, z, condition)
    return jnp.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan)


def _add(log_prob, log_det):
    return jnp.where(log_det.valid, log_prob + log_det.value, -jnp.inf)
