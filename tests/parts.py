"""Random parameters and small bijections from which cases are made."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

import flowlib.bijections as bij


def normal(key, *shape):
    return jr.normal(key, shape)


def positive(key, *shape):
    return jnp.exp(0.5 * jr.normal(key, shape))


def shift(key, *shape, cond_dim=2):
    """A conditional bijection that is there to be put into others."""
    net = eqx.nn.MLP(cond_dim, math.prod(shape), 4, 1, activation=jnp.tanh, key=key)
    return bij.Reshape(bij.AdditiveCondition(net, (math.prod(shape),), (cond_dim,)), shape)


def rotation(key, d):
    """A bijection that mixes all coordinates."""
    return bij.Householder(normal(key, d))
