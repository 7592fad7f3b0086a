"""A PRNG for building test cases: a hash of a counter, ten times cheaper to compile than JAX's. Not for statistics."""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array


def hash_key(seed: int) -> Array:
    """A typed key, which `jax.random` takes as any other."""
    return jax.random.key(seed, impl=_IMPL)


def _mix(h):
    # The finaliser of MurmurHash3.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> jnp.uint32(shift))) * jnp.uint32(factor)
    return h ^ (h >> jnp.uint32(16))


def _hash(key, counter):
    return _mix(_mix(counter * jnp.uint32(0x9E3779B9) + key[0]) ^ key[1])


def _seed(seed):
    return jnp.stack([_mix(seed.astype(jnp.uint32)), jnp.uint32(1)])


def _split(key, shape):
    counter = jnp.arange(2 * math.prod(shape), dtype=jnp.uint32)
    return _hash(key, ~counter).reshape(*shape, 2)


def _fold_in(key, data):
    return jnp.stack([_hash(key, data), _hash(key, ~data)])


def _random_bits(key, bit_width, shape):
    size = math.prod(shape)
    low = _hash(key, jnp.arange(size, dtype=jnp.uint32)).reshape(shape)
    if bit_width < 64:
        return low.astype(f"uint{bit_width}")
    high = _hash(key, jnp.arange(size, 2 * size, dtype=jnp.uint32)).reshape(shape)
    return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)


_IMPL = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name="hash", tag="hsh"
)
