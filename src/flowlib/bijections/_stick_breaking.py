"""From the reals onto the simplex."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._arrays import check_count
from flowlib.bijections._bijection import AbstractBijection
from flowlib.support import Simplex, Support


class StickBreaking(AbstractBijection):
    """y_i = (1 - y_1 - ... - y_(i-1)) s(x_i - log(parts - i)), s(u) = 1 / (1 + exp(-u)); the last part is the rest.

    From the reals, of one coordinate less, onto the simplex of `parts` positive numbers with the sum 1; x = 0 becomes
    equal parts. A density on the simplex is meant in the coordinates y_1 to y_(parts - 1), as in SciPy's Dirichlet
    distribution: log |det d(y_1, ..., y_(parts-1)) / dx| = sum of all log y_i. Both directions O(parts).

    Args:
        parts: the number of parts, at least 2.

    Raises:
        ValueError: if there are fewer.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, parts: int):
        self.shape = (check_count(parts, "parts", 2) - 1,)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.shape[0] + 1,)

    @property
    def codomain(self) -> Support:
        return Simplex()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        # In logarithms, which stay exact where parts underflow.
        u = x - self._offsets(x)
        log_rests = jnp.cumsum(-jax.nn.softplus(u))
        rest_before = jnp.concatenate([jnp.zeros_like(x[:1]), log_rests[:-1]])
        log_parts = jnp.concatenate([rest_before - jax.nn.softplus(-u), log_rests[-1:]])
        return jnp.exp(log_parts), log_parts.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        # The rests are sums of the parts after: in 1 - sum of the parts before, digits would cancel.
        rests = jnp.cumsum(y[:0:-1])[::-1]
        x = jnp.log(y[:-1]) - jnp.log(rests) + self._offsets(y)
        return x, -jnp.log(y).sum()

    def _offsets(self, like):
        (n,) = self.shape
        return jnp.asarray(np.log(np.arange(n, 0, -1.0)), like.dtype)
