"""Masked autoregressive layers."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from flowlib._arrays import as_columns, check_count, check_key, is_concrete
from flowlib.bijections._bijection import AbstractBijection, LogDet, one_row
from flowlib.bijections._transformers import Transformers
from flowlib.nn import MLP, MaskedMLP, RankByRank


class MaskedAutoregressive(AbstractBijection):
    """y_i = t(x_i; parameters made from the x_j before i and the condition).

    The layer of Papamakarios et al. (2017, arXiv:1705.07057). One masked network (Germain et
    al. 2015, arXiv:1502.03509) makes all parameters at once, so that `transform` costs one
    call of it. `inverse` finds the coordinates one after another, each with the part of the
    network that its predecessors made computable: the arithmetic of about one call in dim steps
    (dim calls where the coordinates have unlike transformers). The Jacobian is triangular in the
    given order. Starts as the transformer given: its parameters plus the network's output,
    which is 0 at first.

    Every earlier input reaches every later output, also where the network is narrower than the
    event. With dim = 1 the parameters come from the condition, or are trained by themselves.

    Args:
        key: a PRNG key.
        transformer: t: an unconditional bijection of shape (), or a sequence with one for each coordinate. Its
            trainable arrays become functions of the network's input; frozen ones stay.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition. Defaults to None.
        nn_width: the width of the network.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        order: the coordinates in the order in which they depend on each other, first the one that
            depends on none. Defaults to 0, 1, ..., dim - 1.

    Raises:
        ValueError: if sizes or shapes are wrong or the order is no permutation.
        TypeError: if the transformer is not a bijection.
    """

    transformers: Transformers
    conditioner: MaskedMLP | MLP
    order: Int[Array, "*stack dim"]
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        transformer: AbstractBijection | Sequence[AbstractBijection],
        dim: int,
        cond_dim: int | None = None,
        nn_width: int = 50,
        nn_depth: int = 1,
        nn_activation: Callable = jax.nn.relu,
        order: ArrayLike | Sequence[int] | None = None,
    ):
        dim, key = check_count(dim, "dim"), check_key(key)
        self.transformers = Transformers(transformer, dim, "MaskedAutoregressive")
        if self.transformers.joint:
            raise ValueError(f"MaskedAutoregressive expected a transformer of shape (), got shape ({dim},).")
        order = _checked_order(order, dim)
        self.order = order
        self.shape = (dim,)
        self.cond_shape = None if cond_dim is None else (check_count(cond_dim, "cond_dim"),)
        sizes = {"width": nn_width, "depth": nn_depth, "activation": nn_activation}
        if dim == 1 and cond_dim is None:
            self.conditioner = MLP(key, 0, max(self.transformers.size, 1), **sizes)
            return
        ranks = jnp.argsort(order)
        in_ranks = jnp.concatenate([ranks, jnp.full(cond_dim or 0, -1, ranks.dtype)])
        out_ranks = ranks[self.transformers.owners]
        lowest = 0 if cond_dim is None else -1
        self.conditioner = MaskedMLP(key, in_ranks, out_ranks, lowest=lowest, highest=dim - 1, **sizes)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return one_row(self._transform_and_log_det_batch, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return one_row(self._inverse_and_log_det_batch, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        y, log_det = self.transformers.apply_columns(self._columns(x.T, condition), x.T, inverse=False)
        return y.T, log_det

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        if self.transformers.alike and isinstance(self.conditioner, MaskedMLP):
            x, log_det = self._rank_by_rank(self.conditioner, y.T, condition)
        else:
            x, log_det = self._pass_by_pass(y.T, condition)
        return x.T, log_det

    def _rank_by_rank(self, net, y, condition):
        """One pass in all: each coordinate computes what depends on it as soon as it is known."""
        (dim,) = self.shape
        conditions = y[:0] if condition is None else as_columns(condition, y)
        arrays, rest = eqx.partition(RankByRank(net, self.order, dim), eqx.is_array)
        state = eqx.combine(jax.tree.map(lambda a: a[0], arrays), rest).begin(conditions)

        def find_one(state, step):
            arrays, start, own, target = step
            rows = eqx.combine(arrays, rest)
            params = start[:, None] + rows.outputs(state)
            x, log_det = self.transformers.invert_one(params, own, target)
            return rows.reveal(state, x), (x, log_det)

        initial = self.transformers.initial.reshape(dim, -1)
        own = tuple(array[self.order] for array in self.transformers.own)
        steps = (jax.tree.map(lambda a: a[1:], arrays), initial[self.order], own, y[self.order])
        _, (x, log_det) = jax.lax.scan(find_one, state, steps)
        return jnp.zeros_like(y).at[self.order].set(x), LogDet(log_det.value.sum(0), log_det.valid.all(0))

    def _pass_by_pass(self, y, condition):
        """A pass for each coordinate, which finds one more."""

        def find_one(x, coordinate):
            candidate, _ = self.transformers.apply_columns(self._columns(x, condition), y, inverse=True)
            return x.at[coordinate].set(candidate[coordinate]), None

        # The last coordinate falls out of the final pass, which gives the log-det of all as well.
        x, _ = jax.lax.scan(find_one, jnp.zeros_like(y), self.order[:-1])
        return self.transformers.apply_columns(self._columns(x, condition), y, inverse=True)

    def _columns(self, x, condition):
        initial = self.transformers.initial
        if isinstance(self.conditioner, MLP):
            constants = self.conditioner.columns(x[:0, :1], initial)[: self.transformers.size]
            return jnp.broadcast_to(constants, (len(constants), x.shape[1]))
        seen = x if condition is None else jnp.concatenate([x, as_columns(condition, x)])
        return self.conditioner.columns(seen, initial)


def _checked_order(order, dim):
    if order is None:
        return jnp.arange(dim, dtype=jnp.int32)
    if is_concrete(order) and not np.array_equal(np.sort(np.asarray(order).ravel()), np.arange(dim)):
        raise ValueError(f"MaskedAutoregressive expected order to hold each of 0 to {dim - 1} once, got {order}.")
    return jnp.asarray(order, jnp.int32)
