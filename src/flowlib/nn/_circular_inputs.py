"""Networks of positions on circles."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowlib.nn._vector_net import AbstractVectorNet


class CircularInputs(AbstractVectorNet):
    """A network that sees x_i on a circle as cos a and sin a with a = 2 pi (x_i - lower) / (upper - lower).

    So the two ends of the circle are one point to it. It gets the other inputs first, then all cosines, then all sines.

    Args:
        net: the network, with one input more for each that is circular.
        circular: a boolean for each of the first inputs; those that follow are not circular.
        interval: (lower, upper), the ends where each circle is cut open.
    """

    net: AbstractVectorNet
    circular: tuple[bool, ...] = eqx.field(static=True)
    interval: tuple[float, float] = eqx.field(static=True)

    @property
    def out_size(self) -> int:
        return self.net.out_size

    def columns(self, x: Float[Array, "in_size n"], plus: Float[Array, " plus"] | None = None) -> Array:
        on_circle = np.zeros(len(x), bool)
        on_circle[: len(self.circular)] = self.circular
        lower, upper = self.interval
        angle = (x[np.flatnonzero(on_circle)] - lower) * (2 * math.pi / (upper - lower))
        seen = [x[np.flatnonzero(~on_circle)], jnp.cos(angle), jnp.sin(angle)]
        return self.net.columns(jnp.concatenate(seen), plus)
