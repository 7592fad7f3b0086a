"""Sylvester flows: several hyperbolic-tangent units added to the identity."""

import math
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._reflections import reflect
from flowlib.bijections._solve import solve_scalar
from flowlib.bijections._unit_parameters import (
    above_minus_one,
    for_condition,
    make_conditioner,
    positive_from_one,
    tanh_along,
    tanh_and_slope,
)
from flowlib.nn import MLP

SylvesterKind = Literal["orthogonal", "householder", "triangular"]
_REFLECTIONS = 8


class Sylvester(AbstractBijection):
    r"""y = x + Q R tanh(S Q^T x + b), with orthonormal columns in Q, R and S upper triangular.

    log |det dy/dx| = sum log(1 + tanh'(a_i) R_ii S_ii) over the units, a = S Q^T x + b, by Sylvester's identity. The
    map is invertible if R_ii S_ii > -1: S_ii is kept positive, and R_ii S_ii above -0.999. It starts as the
    identity, R = 0.

    `transform` is O(dim units), and `inverse` too, with one scalar equation for each unit, solved numerically one
    after the other, with implicit gradients.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        kind: what Q is. "orthogonal": of shape (dim, rank), the first columns of a product of `rank` reflections,
            which may be any frame; `rank` units. "householder": a product of `reflections`, and as many units as
            dimensions. "triangular": the identity, as many units as dimensions; the paper has the reverse
            permutation in every second layer, as between the layers of `flowlib.flows.sylvester_flow`.
        rank: of "orthogonal" only. Defaults to `dim`.
        reflections: of "householder" only. Defaults to 8, or `dim` if that is less.
        cond_dim: the dimension of a condition, from which an MLP then makes Q, R, S and b. Defaults to None.
        **mlp_kwargs: `width_size`, `depth` and `activation` of that MLP. Default to 50, 1 and `jax.nn.relu`.

    Raises:
        ValueError: if a size is out of range, `kind` unknown, or `rank` or `reflections` given for another kind.

    References:
        van den Berg, Hasenclever, Tomczak and Welling 2018 (arXiv:1803.05649), section 3 and 4.
    """

    # The vectors of the reflections; R and S packed in (units, units + 1); b.
    params: Array
    conditioner: MLP | None
    reflections: int = eqx.field(static=True)
    units: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dim: int,
        kind: SylvesterKind = "householder",
        rank: int | None = None,
        reflections: int | None = None,
        cond_dim: int | None = None,
        **mlp_kwargs: Any,
    ):
        dim = check_count(dim, "dim")
        self.units, self.reflections = _sizes(dim, kind, rank, reflections)
        vector_key, mlp_key = jr.split(check_key(key))
        vectors = jr.normal(vector_key, (self.reflections * dim,)) / math.sqrt(dim)
        self.params = jnp.concatenate([vectors, jnp.zeros(self.units * (self.units + 2))])
        self.conditioner, self.cond_shape = make_conditioner(mlp_key, cond_dim, self.params.size, **mlp_kwargs)
        self.shape = (dim,)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        vectors, outer, inner, bias, overlaps = self._parameters(condition)
        a = _product(inner, self._project(vectors, x)) + bias
        value, slope = tanh_and_slope(a)
        return x + self._embed(vectors, _product(outer, value)), jnp.log1p(slope * overlaps).sum()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        vectors, outer, inner, bias, overlaps = self._parameters(condition)
        target = _product(inner, self._project(vectors, y)) + bias
        # In the coordinates a the map is a + S R tanh(a), triangular: the last unit is by itself.
        coupling = jnp.matmul(inner, outer, precision="highest")
        a = _solve_backwards(coupling, overlaps, target)
        value, slope = tanh_and_slope(a)
        return y - self._embed(vectors, _product(outer, value)), -jnp.log1p(slope * overlaps).sum()

    def _parameters(self, condition):
        params = for_condition(self.params, self.conditioner, condition)
        n, (dim,) = self.units, self.shape
        end, last = self.reflections * dim, len(params) - n
        vectors, packed = params[:end].reshape(self.reflections, dim), params[end:last].reshape(n, n + 1)
        outer, inner = jnp.triu(packed[:, 1:]), jnp.tril(packed[:, :n]).T
        diagonal = jnp.eye(n, dtype=bool)
        overlaps, positive = above_minus_one(jnp.diagonal(outer)), positive_from_one(jnp.diagonal(inner))
        outer, inner = jnp.where(diagonal, overlaps / positive, outer), jnp.where(diagonal, positive, inner)
        return vectors, outer, inner, params[last:], overlaps

    def _project(self, vectors, x):
        return reflect(vectors, x[:, None], transpose=True)[: self.units, 0]

    def _embed(self, vectors, values):
        padded = jnp.pad(values, (0, self.shape[0] - self.units))
        return reflect(vectors, padded[:, None])[:, 0]


def _sizes(dim, kind, rank, reflections):
    """The number of units and of reflections."""
    if kind not in get_args(SylvesterKind):
        raise ValueError(f"Sylvester expected kind to be one of {get_args(SylvesterKind)}, got {kind!r}.")
    for name, value, owner in (("rank", rank, "orthogonal"), ("reflections", reflections, "householder")):
        if value is not None and kind != owner:
            raise ValueError(f"Sylvester expected {name} with kind={owner!r} only, got {value} with kind={kind!r}.")
    if kind == "orthogonal":
        rank = dim if rank is None else check_count(rank, "rank")
        if rank > dim:
            raise ValueError(f"Sylvester expected a rank of at most dim, {dim}, got {rank}.")
        return rank, rank
    if kind == "triangular":
        return dim, 0
    return dim, min(dim, _REFLECTIONS) if reflections is None else check_count(reflections, "reflections")


def _product(matrix, vector):
    return jnp.matmul(matrix, vector, precision="highest")


def _solve_backwards(coupling, overlaps, target):
    """The a with a + coupling tanh(a) = target, for an upper triangular matrix with `overlaps` on its diagonal."""
    above = jnp.triu(coupling, 1)

    def one(values, row):
        couplings, overlap, target, i = row
        a = solve_scalar(tanh_along, target - couplings @ values, overlap)
        return values.at[i].set(jnp.tanh(a)), a

    rows = (above, overlaps, target, jnp.arange(len(target), dtype=jnp.int32))
    return jax.lax.scan(one, jnp.zeros_like(target), rows, reverse=True)[1]
