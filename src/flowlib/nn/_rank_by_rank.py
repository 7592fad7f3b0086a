"""A masked network evaluated rank after rank, for the inverse of an autoregressive layer."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowlib._module import Module
from flowlib.nn._masked_mlp import MaskedMLP, unit_ranks
from flowlib.nn._mlp import activate, squash

# The inputs and the units of each hidden layer, one column for each event.
State = tuple[Float[Array, "in_size n"], tuple[Float[Array, "width n"], ...]]


class RankByRank(Module):
    """The layers of a `MaskedMLP`, cut into the rows that each rank adds; arrays have a leading axis of ranks.

    With the rows of one rank at a time, `outputs` gives the outputs of that rank, and `reveal` takes
    its input, on which only later outputs depend. All ranks together cost about one pass of the network.

    Args:
        net: a network whose first `dim` inputs have the ranks 0 to dim - 1 in some order, and whose other inputs
            rank -1; with equally many outputs of each rank.
        order: the coordinates by rank.
        dim: their number.
    """

    hidden: tuple[tuple[Array, Array], ...]
    last: tuple[Array, Array]
    skip: Array | None
    # The rank itself, and the first of the hidden units in its rows.
    rank: Int[Array, "*ranks"]
    first: Int[Array, "*ranks"]
    activation: Callable
    dim: int = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, net: MaskedMLP, order: Int[Array, " dim"], dim: int):
        n_conditions = (net.hidden[0] if net.hidden else net.last).weight.shape[1] - dim
        ranks = np.arange(-1, dim)
        rows = np.zeros((dim + 1, 0), int)
        if net.hidden:
            width = len(net.hidden[0].weight)
            of_units = unit_ranks(width, -1 if n_conditions else 0, dim - 1)
            most = int(np.bincount(of_units + 1).max())
            # As many rows for every rank: those too many are of other ranks, and are computed again in their turn.
            first = np.minimum(np.searchsorted(of_units, ranks), width - most)
            rows = first[:, None] + np.arange(most)
        columns = jnp.concatenate([order, jnp.arange(dim, dim + n_conditions, dtype=order.dtype)])

        def by_output(weight):
            return weight.reshape(dim, -1, *weight.shape[1:])[order]

        weights = [layer.masked for layer in net.hidden]
        if weights:
            weights[0] = weights[0][:, columns]
        self.hidden = tuple((w[rows], _bias(layer)[rows]) for w, layer in zip(weights, net.hidden, strict=True))
        last = net.last.masked if net.hidden else net.last.masked[:, columns]
        self.last = (_with_first(by_output(last)), _with_first(by_output(_bias(net.last))))
        self.skip = None if net.skip is None else _with_first(by_output(net.skip.masked[:, columns]))
        self.rank = jnp.asarray(ranks, jnp.int32)
        self.first = jnp.asarray(rows[:, 0] if rows.size else ranks, jnp.int32)
        self.activation = net.activation
        self.dim = dim
        self.widths = tuple(len(layer.weight) for layer in net.hidden)

    def begin(self, conditions: Float[Array, "conditions n"]) -> State:
        """Nothing known but the conditions; with the rows of rank -1."""
        n = conditions.shape[1]
        inputs = jnp.concatenate([jnp.zeros((self.dim, n), conditions.dtype), squash(conditions)])
        units = tuple(jnp.zeros((width, n), conditions.dtype) for width in self.widths)
        return inputs, self._activate(inputs, units)

    def outputs(self, state: State) -> Float[Array, "outputs n"]:
        """The outputs of this rank."""
        inputs, units = state
        weight, bias = self.last
        y = weight @ (units[-1] if units else inputs) + bias[:, None]
        return y if self.skip is None else y + self.skip @ inputs

    def reveal(self, state: State, x: Float[Array, " n"]) -> State:
        """What is known when the input of this rank is."""
        inputs, units = state
        inputs = jax.lax.dynamic_update_index_in_dim(inputs, squash(x), self.rank, 0)
        return inputs, self._activate(inputs, units)

    def _activate(self, inputs, units):
        found, below = [], inputs
        for (weight, bias), old in zip(self.hidden, units, strict=True):
            new = activate(self.activation, weight @ below + bias[:, None])
            below = jax.lax.dynamic_update_slice_in_dim(old, new, self.first, 0)
            found.append(below)
        return tuple(found)


def _bias(layer):
    return jnp.zeros(len(layer.weight), layer.weight.dtype) if layer.bias is None else layer.bias


def _with_first(array):
    # Rank -1 has no outputs.
    return jnp.concatenate([jnp.zeros_like(array[:1]), array])
