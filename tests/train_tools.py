"""Small models and losses that the tests of fitting share."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from flowlib.bijections import Affine
from flowlib.distributions import AbstractDistribution, StandardNormal, Transformed
from flowlib.parameters import partition_trainable
from flowlib.support import Real


def gaussian(loc=(0.0, 0.0), scale=(1.0, 1.0)):
    """N(loc, diag(scale^2)), with trainable loc and scale: the simplest flow."""
    return Transformed(StandardNormal((2,)), Affine(jnp.array(loc), jnp.array(scale)))


def affine_of(flow) -> Any:
    """The bijection of a `gaussian`."""
    assert isinstance(flow.bijection, Affine)
    return flow.bijection


def halves(tree) -> tuple[Any, Any]:
    """The trainable half and the rest, of types that fit everywhere."""
    return partition_trainable(tree)


class Regression(AbstractDistribution):
    """y | c ~ N(weight * c, 1), for scalars y and c."""

    weight: Array
    shape: ClassVar[tuple[int, ...]] = ()
    cond_shape: ClassVar[tuple[int, ...]] = ()

    def __init__(self, weight=0.0):
        self.weight = jnp.asarray(weight, float)

    @property
    def support(self):
        return Real()

    def _log_prob(self, x, condition):
        assert condition is not None
        return jax.scipy.stats.norm.logpdf(x - self.weight * condition)

    def _sample(self, key, condition):
        assert condition is not None
        return jr.normal(key, dtype=self.weight.dtype) + self.weight * condition


class Counter(eqx.Module):
    """One parameter that gradient descent with rate 1 on `-n` counts up by one a step."""

    n: Array
    frozen: Array

    def __init__(self):
        self.n = jnp.zeros(())
        self.frozen = jnp.arange(3)


def mean_loss(params, static, *arrays, key):
    """The loss that a user would write: the mean over the batch and no more."""
    return -eqx.combine(params, static).log_prob(*arrays).mean()
