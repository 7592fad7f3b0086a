"""The affine map with a bounded scale whose bound is trained."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib.bijections._bijection import AbstractBijection
from flowlib.constraints import Parameter
from flowlib.parameters import Own


class TanhAffine(AbstractBijection):
    """y = (x + loc) exp(s) with s = b tanh(raw / b) and b = exp(log_bound), elementwise on the reals.

    log |det dy/dx| = sum s, and the scale stays between exp(-b) and exp(b). `loc`, `raw` and `log_bound` are all
    trained and start at 0: as the identity, with b = 1. As the transformer of a coupling or autoregressive layer it
    gets `loc` and `raw` from the conditioner, but `log_bound` is a parameter of the layer, one for each
    coordinate (`flowlib.parameters.Own`). Both directions O(size).

    Args:
        shape: the shape of an event. Defaults to ().
    """

    loc: Parameter
    raw: Parameter
    log_bound: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, shape: tuple[int, ...] = ()):
        self.shape = as_shape(shape)
        self.loc = jnp.zeros(self.shape)
        self.raw = jnp.zeros(self.shape)
        self.log_bound = Own(jnp.zeros(self.shape))

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        log_scale = self._log_scale()
        return (x + self.loc) * jnp.exp(log_scale), log_scale.sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        log_scale = self._log_scale()
        return y * jnp.exp(-log_scale) - self.loc, -log_scale.sum()

    def _log_scale(self):
        bound = jnp.exp(self.log_bound)
        return bound * jnp.tanh(self.raw / bound)
