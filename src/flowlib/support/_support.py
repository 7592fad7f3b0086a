"""What a support is."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray


class Support(eqx.Module):
    """A set of points of one event."""

    # The family of sets it belongs to: what `fits` compares.
    kind: eqx.AbstractClassVar[str]

    @abstractmethod
    def inside(self, x: Array) -> Bool[Array, "..."]:
        """Membership of each part of the event; NaN is never inside."""

    @abstractmethod
    def anchor(self, x: Array) -> Array:
        """An unremarkable member, broadcastable to `x`."""

    @abstractmethod
    def draw(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Test points, spread over the set and away from its ends."""

    @property
    def has_circles(self) -> bool:
        """Whether coordinates of its points are positions on circles."""
        return False

    def in_range(self, x: Array) -> Array:
        """`x` with positions on circles brought into the turn in which its points are; all else as it is.

        For events as users give them. Between the parts of a composite it has no place: what lies beyond the ends
        there is not a position on the circle any more (twice an angle, say).
        """
        return x

    def contains(self, x: Array) -> Bool[Array, ""]:
        """Whether the event `x` lies in the set."""
        return jnp.all(self.inside(x))

    def guard(self, x: Array) -> tuple[Array, Bool[Array, ""]]:
        """`x` with its outsiders replaced by an anchor, and whether there were none.

        Replacing the input keeps infinities out of the computation and so out of the gradient of
        the whole batch. NaN is left alone and counts as inside: it must show in the result.
        """
        kept = self.inside(x) | jnp.isnan(x)
        return jnp.where(kept, x, self.anchor(x)), jnp.all(kept)
