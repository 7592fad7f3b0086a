"""Rotations by a skew-symmetric matrix."""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import expm
from jaxtyping import Array, Float

from flowlib._arrays import check_count, default_float
from flowlib.bijections._linear_map import AbstractLinearMap
from flowlib.constraints import Parameter

RotationKind = Literal["cayley", "exponential"]


class Rotation(AbstractLinearMap):
    """y = Q x with Q = (I - A)^-1 (I + A), or Q = exp(A), where A is skew-symmetric; det Q = 1.

    It starts as the identity, A = 0. The exponential reaches every rotation, and its numbers are angles; the Cayley map
    is faster, and reaches those that turn no plane by 180 degrees. Each direction is one matrix
    product, after O(dim^3) to make Q, once for all events of a batch; the inverse is the transpose.

    Args:
        dim: the dimension of an event.
        kind: "cayley" or "exponential".

    Raises:
        ValueError: if `dim` is not positive or `kind` unknown.
    """

    # A below its diagonal, row by row.
    skew: Parameter
    kind: RotationKind = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, dim: int, *, kind: RotationKind = "cayley"):
        dim = check_count(dim, "dim")
        if kind not in get_args(RotationKind):
            raise ValueError(f"Rotation expected kind to be one of {get_args(RotationKind)}, got {kind!r}.")
        self.skew = jnp.asarray(np.zeros(dim * (dim - 1) // 2, default_float()))
        self.kind = kind
        self.shape = (dim,)

    def _apply(self, columns: Array) -> Array:
        return jnp.matmul(self._rotation(), columns, precision="highest")

    def _solve(self, columns: Array) -> Array:
        return jnp.matmul(self._rotation().T, columns, precision="highest")

    def _log_det(self) -> float:
        return 0.0

    def _rotation(self) -> Float[Array, "dim dim"]:
        (dim,) = self.shape
        identity = jnp.eye(dim, dtype=self.skew.dtype)
        lower = jnp.zeros_like(identity).at[np.tril_indices(dim, -1)].set(self.skew)
        skew = lower - lower.T
        if self.kind == "cayley":
            # I - A has no singular value below 1.
            return jnp.linalg.solve(identity - skew, identity + skew)
        return expm(skew)
