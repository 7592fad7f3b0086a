"""Block neural autoregressive networks."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from flowlib._arrays import as_columns, check_count, check_key
from flowlib._module import Module, stop_gradient
from flowlib._random import draw_together
from flowlib.bijections._bijection import AbstractBijection, LogDet, check_is_bijection, forward, one_row
from flowlib.bijections._monotone_root import monotone_root
from flowlib.bijections._numerical_inverse import FunctionBijection, flat_transform, shared_and_own
from flowlib.bijections._solve import default_tolerance, implicit_root
from flowlib.bijections._tanh import LeakyTanh
from flowlib.masks import block_tril_mask

# The inputs of straight units are scaled by this and their outputs back, so that they work in the nearly straight part
# of the activation.
_GAIN = 0.2
# Bent units start in places from minus this to this, one beside another, so that their sum is nearly straight there.
_PLACES = 3.0


class BlockLinear(Module):
    """A linear map from dim blocks to dim blocks, positive within a block and free from earlier blocks.

    The weights within a block are exp(log_diagonal); their logarithm is what the log-det needs.
    """

    log_diagonal: Float[Array, "*stack dim block_out block_in"]
    lower: Float[Array, "*stack out_size in_size"]
    bias: Float[Array, "*stack out_size"]
    mask: Bool[Array, "*stack out_size in_size"]

    def __init__(self, key: PRNGKeyArray, dim: int, below: "_Units", units: "_Units"):
        block_out, block_in = len(units.gains), len(below.gains)
        shape = (dim * block_out, dim * block_in)
        diagonal, lower, bias = draw_together(jr.normal, key, [(dim, block_out, block_in), shape, shape[:1]])
        weights = np.outer(units.gains, below.shares)
        self.log_diagonal = jnp.asarray(np.log(weights)[None], float) + 0.03 * diagonal
        self.lower = jnp.asarray(np.tile(0.05 * weights * block_in, (dim, dim)), float) * lower / math.sqrt(shape[1])
        noise = 0.1 * _GAIN * bias if block_out > 1 else jnp.zeros(shape[0])
        self.bias = noise - jnp.asarray(np.tile(units.gains * units.places, dim), float)
        self.mask = jnp.asarray(block_tril_mask((block_out, block_in), dim, k=-1))

    def blocks(self) -> Float[Array, "dim block_out block_in"]:
        """The weights within a block."""
        return jnp.exp(self.log_diagonal)

    def below(self) -> Float[Array, "out_size in_size"]:
        """The weights between blocks, 0 elsewhere."""
        return jnp.where(self.mask, self.lower, 0)

    def __call__(self, x: Float[Array, "in_size n"]) -> Float[Array, "out_size n"]:
        dim, block_out, block_in = self.log_diagonal.shape
        own_block = jnp.eye(dim, dtype=bool)[:, None, :, None]
        within = jnp.where(own_block, self.blocks()[:, :, None, :], 0).reshape(dim * block_out, dim * block_in)
        return (self.below() + within) @ x + self.bias[:, None]

    def log_slopes(self, inner: Float[Array, "dim block_in n"]) -> Float[Array, "dim block_out n"]:
        """log of d(output)/d(coordinate of its block), given that of the inputs."""
        # Relative to the largest terms, so that nothing overflows; the sums are then one matrix product.
        inner_max = _finite(inner.max(axis=1, keepdims=True))
        weight_max = _finite(self.log_diagonal.max(axis=2, keepdims=True))
        sums = jnp.einsum("doi,din->don", jnp.exp(self.log_diagonal - weight_max), jnp.exp(inner - inner_max))
        positive = sums > 0
        log_sums = jnp.where(positive, jnp.log(jnp.where(positive, sums, 1)), -jnp.inf)
        return log_sums + weight_max + inner_max


class _Units(NamedTuple):
    """How the units of a block start: as activation(gains (x - places)), whose sum with weights `shares` is about x."""

    gains: np.ndarray
    places: np.ndarray
    shares: np.ndarray


# What goes into a network, or out of it: the coordinate itself.
_COORDINATE = _Units(np.ones(1), np.zeros(1), np.ones(1))


def _units(n: int, *, bent: bool) -> _Units:
    """n straight units; or half of them straight, for the tails, and half bent in different places.

    Units that are all straight would be nearly alike, and slow to part in training.
    """
    straight = np.arange(n) % 2 == 0 if bent else np.ones(n, bool)
    if straight.all():
        return _Units(np.full(n, _GAIN), np.zeros(n), np.full(n, 1 / (_GAIN * n)))
    n_bent = n - straight.sum()
    places = np.zeros(n)
    places[~straight] = (np.arange(n_bent) + 0.5) * (2 * _PLACES / n_bent) - _PLACES
    # The slopes of tanh in places that lie d apart sum up to 2/d.
    shares = np.where(straight, 0.5 / (_GAIN * straight.sum()), 0.5 * _PLACES / n_bent)
    return _Units(np.where(straight, _GAIN, 1.0), places, shares)


def _finite(largest):
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))


class BlockAutoregressiveNetwork(AbstractBijection):
    """A monotone network with block-triangular weights (De Cao et al. 2019, arXiv:1904.04676).

    Output i increases in input i and depends freely on inputs before it, so that the Jacobian is
    triangular; its diagonal is a product of positive blocks, kept in logarithms. `transform`
    costs one pass. `inverse` is numerical: coordinate by coordinate, by Newton's method in a bracket, to
    |dx| <= 1e-5 (1 + |x|) in float32 and 1e-10 in float64 given the coordinates before; a row that fails
    is NaN. It costs two passes, one of them coordinate by coordinate, and the evaluations of each
    coordinate's own blocks in its search; its gradients are implicit. It starts near the identity.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition, which enters the first layer. Defaults to None.
        depth: the number of hidden layers.
        block_dim: hidden units a coordinate.
        activation: an increasing map of the reals onto the reals: a bijection of shape () or a
            function of one number. Defaults to `LeakyTanh(3)`, since with tanh itself (as in the
            paper) the image would be bounded and `inverse` undefined outside it.

    Raises:
        ValueError: if a size is out of range or the activation has another shape.
    """

    layers: tuple[BlockLinear, ...]
    condition_weight: Array | None
    activation: AbstractBijection
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dim: int,
        cond_dim: int | None = None,
        depth: int,
        block_dim: int,
        activation: AbstractBijection | Callable[[Array], Array] | None = None,
    ):
        dim, depth, block_dim = (
            check_count(dim, "dim"),
            check_count(depth, "depth", 0),
            check_count(block_dim, "block_dim"),
        )
        bent = activation is None
        if activation is None:
            activation = LeakyTanh(3.0)
        elif not isinstance(activation, AbstractBijection):
            activation = FunctionBijection(activation, ())
        check_is_bijection(activation, "BlockAutoregressiveNetwork")
        if activation.shape != () or activation.cond_shape is not None:
            raise ValueError(
                f"BlockAutoregressiveNetwork expected an unconditional activation of shape (), got {activation.shape}."
            )
        keys = jr.split(check_key(key), depth + 2)
        blocks = [_COORDINATE, *[_units(block_dim, bent=bent)] * depth, _COORDINATE]
        pairs = itertools.pairwise(blocks)
        self.layers = tuple(
            BlockLinear(k, dim, below, units) for k, (below, units) in zip(keys[1:], pairs, strict=True)
        )
        self.condition_weight = None
        self.cond_shape = None
        if cond_dim is not None:
            self.cond_shape = (check_count(cond_dim, "cond_dim"),)
            self.condition_weight = (
                0.1 * _GAIN * jr.normal(keys[0], (dim * len(blocks[1].gains), cond_dim)) / math.sqrt(cond_dim)
            )
        self.activation = activation
        self.shape = (dim,)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return one_row(self._transform_and_log_det_batch, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return one_row(self._inverse_and_log_det_batch, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        (dim,) = self.shape
        h = x.T
        # Of the units of each block in the coordinate of that block.
        log_slopes = jnp.zeros((dim, 1, 1), x.dtype)
        for i, layer in enumerate(self.layers):
            h, log_slopes = layer(h), layer.log_slopes(log_slopes)
            if i == 0:
                h = h + self._shift(condition, h)
            if i < len(self.layers) - 1:
                h, log_det = jax.vmap(jax.vmap(partial(forward, self.activation)))(h)
                log_slopes = log_slopes + log_det.value.reshape(dim, layer.log_diagonal.shape[1], len(x))
        log_det = jnp.broadcast_to(log_slopes, (dim, 1, len(x))).sum((0, 1))
        return h.T, LogDet(log_det, jnp.ones(len(x), bool))

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        searched, target, given = stop_gradient((self, y, condition))
        x, found = searched._find(target, given)
        args, rows = shared_and_own(self, condition)
        # A row that failed is no point to differentiate at: shared parameters would get a gradient of NaN.
        x = implicit_root(flat_transform, jnp.where(found[:, None], x, 0), y, args, rows, "triangular")
        _, log_det = self._transform_and_log_det_batch(x, condition)
        x = jnp.where(found[:, None], x, jnp.nan)
        return x, LogDet(jnp.where(found, -log_det.value, jnp.nan), log_det.valid)

    def _shift(self, condition, h):
        if self.condition_weight is None or condition is None:
            return jnp.zeros((), h.dtype)
        return self.condition_weight @ as_columns(condition, h)

    def _find(self, y, condition):
        """The root, coordinate by coordinate: each sees those before it through sums that are computed once."""
        (dim,), n = self.shape, len(y)
        biases = [jnp.broadcast_to(layer.bias[:, None], (len(layer.bias), n)) for layer in self.layers]
        biases[0] = biases[0] + self._shift(condition, biases[0])
        known, rows = [], []
        for layer, bias in zip(self.layers, biases, strict=True):
            _, block_out, block_in = layer.log_diagonal.shape
            below = layer.below().reshape(dim, block_out, dim * block_in)
            known.append(jnp.zeros((dim * block_in, n), y.dtype))
            rows.append((layer.blocks(), below, bias.reshape(dim, block_out, n)))

        def find_one(carry, step):
            known, alive = carry
            i, rows, target = step
            sums = [below @ units + bias for (_, below, bias), units in zip(rows, known, strict=True)]
            blocks = [block for block, _, _ in rows]

            def along(x):
                _, value, slope = self._along(blocks, sums, x)
                return value, slope

            # In a row that has failed there is nothing more to search for.
            target = jnp.where(alive, target, jnp.nan)
            x, found = monotone_root(along, target, target, default_tolerance(target.dtype))
            revealed, _, _ = self._along(blocks, sums, x)
            known = [
                jax.lax.dynamic_update_slice_in_dim(units, new, i * len(new), 0)
                for units, new in zip(known, revealed, strict=True)
            ]
            return (known, found), x

        start = (known, jnp.ones(n, bool))
        (_, found), x = jax.lax.scan(find_one, start, (jnp.arange(dim), rows, y.T))
        return x.T, found

    def _activated(self, h):
        return jax.vmap(jax.vmap(lambda one: forward(self.activation, one)[0]))(h)

    def _along(self, blocks, sums, x):
        """One coordinate: the inputs of its block in each layer, its value and its slope."""
        h, slope, inputs = x[None], jnp.ones_like(x)[None], []
        for i, (block, rest) in enumerate(zip(blocks, sums, strict=True)):
            inputs.append(h)
            h, slope = block @ h + rest, block @ slope
            if i < len(blocks) - 1:
                h, slope = jax.jvp(self._activated, (h,), (slope,))
        return inputs, h[0], slope[0]
