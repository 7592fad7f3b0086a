"""Products of reflections."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike

from flowlib._arrays import check_values
from flowlib.bijections._linear_map import AbstractLinearMap
from flowlib.bijections._reflections import reflect
from flowlib.constraints import Parameter, finite


class HouseholderProduct(AbstractLinearMap):
    """y = H_count ... H_2 H_1 x, with H_i x = x - 2 v_i (v_i . x) / |v_i|^2: `Householder` maps one after another.

    The product is orthogonal whatever the vectors, and |det| = 1. All reflections together are two matrix products
    and a triangular solve of size `count`: each direction O(count dim). A product of dim reflections, or of dim - 1,
    reaches every orthogonal matrix of its sign. It is the identity where each vector stands twice in a row.

    Args:
        params: the normal vectors v_i as rows, of shape (count, dim), none of them zero; lengths do not matter.

    Raises:
        ValueError: if it is not a matrix, has no rows, is not finite, or has a row of zeros.

    References:
        Tomczak and Welling 2016 (arXiv:1611.09630), section 3.
    """

    vectors: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, params: ArrayLike):
        params = finite(params, "params")
        if params.ndim != 2 or 0 in params.shape:
            raise ValueError(f"HouseholderProduct expected params of shape (count, dim), got shape {params.shape}.")
        check_values(params, "params", lambda p: (p != 0).any(1, keepdims=True), "rows other than zero")
        self.vectors = params
        self.shape = params.shape[1:]

    def _apply(self, columns: Array) -> Array:
        return reflect(self.vectors, columns, transpose=True)

    def _solve(self, columns: Array) -> Array:
        return reflect(self.vectors, columns)

    def _log_det(self) -> float:
        return 0.0
