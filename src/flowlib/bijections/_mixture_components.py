"""What the mixtures of logistic and of normal distributions share: components, and the search for the inverse."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib._arrays import as_shape, check_count, check_fraction
from flowlib.bijections._bijection import AbstractBijection

# Log weights, locations and scales.
Components = tuple[
    Float[Array, "components *#lanes"], Float[Array, "components *#lanes"], Float[Array, "components *#lanes"]
]

# Weights, locations and scales.
Start = tuple[np.ndarray, np.ndarray, np.ndarray]


class AbstractMixture(AbstractBijection):
    """A map by way of the distribution function of a mixture, elementwise; it also takes lanes."""

    logits: Float[Array, "..."]
    locations: Float[Array, "..."]
    scales: Float[Array, "..."]
    min_scale: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None
    _takes_lanes: ClassVar[bool] = True

    def __init__(self, components: int, shape: tuple[int, ...], min_scale: float, make_start: Callable[[int], Start]):
        components = check_count(components, "components")
        self.min_scale = check_fraction(min_scale, "min_scale", type(self).__name__)
        self.shape = as_shape(shape)
        self.logits, self.locations, self.scales = initial_components(make_start(components), self.shape, min_scale)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _components(self) -> Components:
        scales = constrained_scales(self.scales, self.min_scale)
        return jax.nn.log_softmax(self.logits, axis=0), self.locations, scales


def initial_components(start: Start, shape: tuple[int, ...], min_scale: float) -> tuple[Array, Array, Array]:
    """Logits of the weights, locations and unconstrained scales, the same for each element of the shape.

    No scale starts below the middle between the least and 1.
    """
    weights, locations, scales = start
    raw = (np.log(weights), locations, _unconstrained_scales(np.maximum(scales, (1 + min_scale) / 2), min_scale))
    each = (len(weights), *shape)
    columns = (np.broadcast_to(a.reshape(-1, *[1] * len(shape)), each) for a in raw)
    logits, locations, scales = (jnp.asarray(a, float) for a in columns)
    return logits, locations, scales


def constrained_scales(raw: Array, min_scale: float) -> Array:
    """At least `min_scale`, and 1 for 0."""
    return min_scale + jax.nn.softplus(raw + math.log(math.expm1(1 - min_scale)))


def _unconstrained_scales(scales: np.ndarray, min_scale: float) -> np.ndarray:
    """What `constrained_scales` makes such scales from."""
    return np.log(np.expm1(scales - min_scale)) - math.log(math.expm1(1 - min_scale))


def log_sigmoids(z: Array) -> tuple[Array, Array]:
    """log sigmoid(z) and log sigmoid(-z)."""
    # Not log1p, which XLA does not vectorise: the digits that are lost are those of the smaller part of a sum.
    # And no abs or minimum: at 0 their second derivatives would be wrong.
    positive = z >= 0
    rest = jnp.log(1 + jnp.exp(jnp.where(positive, -z, z)))
    return jnp.where(positive, 0, z) - rest, jnp.where(positive, -z, 0) - rest


def where_to_search(y: Array, components: Components) -> dict[str, Any]:
    """A start and a bracket for `solve_scalar`, of a map between the least and the greatest (x - loc) / scale."""
    log_weights, locations, scales = components
    # Where all components are below y, so is their mixture.
    ends = locations + scales * y
    return {"start": (jnp.exp(log_weights) * ends).sum(0), "bracket": (ends.min(0), ends.max(0))}
