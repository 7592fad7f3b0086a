"""Orthogonal maps: reflections and the discrete cosine transform."""

from typing import ClassVar

import equinox as eqx
from jax.scipy import fft
from jaxtyping import Array, ArrayLike
from paramax import Parameterize

from flowlib._arrays import as_shape, check_values
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter, finite, unit_vector


class Householder(AbstractBijection):
    """y = x - 2 v (v . x) with v = params / |params|: the reflection across the plane normal to v.

    It is its own inverse, and |det| = 1. Both directions O(dim). A product of up to dim
    reflections (a `Scan`) reaches every orthogonal matrix of its sign.

    Args:
        params: the normal vector, not zero; its length does not matter.

    Raises:
        ValueError: if it is not a vector, not finite, or zero.
    """

    unit_vec: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, params: ArrayLike):
        params = finite(params, "params")
        if params.ndim != 1:
            raise ValueError(f"Householder expected a vector as params, got shape {params.shape}.")
        check_values(params, "params", lambda p: (p != 0).any(), "a vector other than zero")
        self.unit_vec = Parameterize(unit_vector, params)
        self.shape = params.shape

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return x - 2 * self.unit_vec * (self.unit_vec @ x), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._transform_and_log_det(y)


class DiscreteCosine(AbstractBijection):
    """y = C x along one axis, with C the orthonormal DCT-II; the inverse is C^T and the log-det 0.

    Both directions O(size log n).

    Args:
        shape: the shape of an event, of at least one axis.
        axis: the axis to transform. Defaults to -1.

    Raises:
        ValueError: if there is no such axis.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...], *, axis: int = -1):
        self.shape = as_shape(shape)
        if not -len(self.shape) <= axis < len(self.shape):
            raise ValueError(f"DiscreteCosine expected an axis of shape {self.shape}, got axis {axis}.")
        self.axis = axis

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return fft.dct(x, axis=self.axis, norm="ortho"), 0.0

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return fft.idct(y, axis=self.axis, norm="ortho"), 0.0
