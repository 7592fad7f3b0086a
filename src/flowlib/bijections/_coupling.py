"""Coupling layers."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from flowlib._arrays import as_columns, check_count, check_key
from flowlib._wanted import check_function
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._transformers import Transformers
from flowlib.nn import MLP, AbstractVectorNet


class Coupling(AbstractBijection):
    """y_A = x_A and y_B = t(x_B; parameters made from x_A and the condition) (Dinh et al. 2017, arXiv:1605.08803).

    The Jacobian is triangular, with that of the transformer t on B, so that both directions
    cost one call of the conditioner and one of the transformer. Starts as the transformer
    given: its parameters plus the conditioner's output, which is 0 at first.

    With dim = 1, B is the one coordinate; its parameters come from the condition, or are
    trained by themselves when there is none.

    Args:
        key: a PRNG key.
        transformer: t: an unconditional bijection of shape (), given to every coordinate of B; or a sequence
            of them, one for each coordinate of B; or one bijection of shape (size of B,). Its trainable
            arrays become functions of the conditioner's input; frozen ones stay.
        untransformed_dim: the size of A, the first coordinates. Either this or `mask` is given.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition. Defaults to None.
        nn_width: the width of the conditioner, a `flowlib.nn.MLP`.
        nn_depth: its number of hidden layers.
        nn_activation: its activation.
        mask: a boolean for each coordinate, True for A.
        conditioner: instead of the MLP any callable module, such as a `flowlib.nn.ResidualMLP`, from (x_A, condition)
            joined in one vector to as many offsets as t has parameters; see `Coupling.n_parameters`.

    Raises:
        ValueError: if sizes, shapes or the mask are wrong, or a conditioner gives another size.
        TypeError: if the transformer is not a bijection.
    """

    transformers: Transformers
    conditioner: Callable[[Array], Array]
    kept: Int[Array, "*stack kept"] | None
    changed: Int[Array, "*stack changed"] | None
    untransformed_dim: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        transformer: AbstractBijection | Sequence[AbstractBijection],
        untransformed_dim: int | None = None,
        dim: int,
        cond_dim: int | None = None,
        nn_width: int = 50,
        nn_depth: int = 1,
        nn_activation: Callable = jax.nn.relu,
        mask: ArrayLike | Sequence[bool] | None = None,
        conditioner: Callable[[Array], Array] | None = None,
    ):
        dim = check_count(dim, "dim")
        self.kept, self.changed, n_kept = _parts(mask, untransformed_dim, dim)
        self.untransformed_dim = n_kept
        self.transformers = Transformers(transformer, dim - n_kept, "Coupling")
        self.shape = (dim,)
        self.cond_shape = None if cond_dim is None else (check_count(cond_dim, "cond_dim"),)
        if conditioner is None:
            in_size, out_size = n_kept + (cond_dim or 0), self.transformers.size
            sizes = {"width": nn_width, "depth": nn_depth, "activation": nn_activation}
            conditioner = MLP(check_key(key), in_size, max(out_size, 1), **sizes)
        check_function(conditioner, "conditioner", "a module or function of one vector")
        self.conditioner = conditioner

    @property
    def n_parameters(self) -> int:
        """The number of transformer parameters, which a conditioner has to make."""
        return self.transformers.size

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self._one(x, condition, inverse=False)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self._one(y, condition, inverse=True)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return self._columns(x, condition, inverse=False)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return self._columns(y, condition, inverse=True)

    def _one(self, x, condition, *, inverse):
        kept, changed = self._split(x)
        seen = kept if condition is None else jnp.concatenate([kept, condition.astype(x.dtype)])
        offsets = self._checked(self.conditioner(seen))
        params = offsets + self.transformers.initial
        changed, log_det = self.transformers.apply(params, changed, inverse=inverse)
        return self._join(x, kept, changed), log_det

    def _columns(self, x, condition, *, inverse):
        # Rows of the batch become columns, the axis along which XLA vectorises.
        x = x.T
        kept, changed = self._split(x)
        seen = kept if condition is None else jnp.concatenate([kept, as_columns(condition, x)])
        if isinstance(self.conditioner, AbstractVectorNet):
            self._check_size((self.conditioner.out_size,))
            params = self.conditioner.columns(seen, self.transformers.initial)[: self.transformers.size]
        else:
            offsets = jax.vmap(lambda one: self._checked(self.conditioner(one)))(seen.T).T
            params = offsets + self.transformers.initial[:, None]
        changed, log_det = self.transformers.apply_columns(params, changed, inverse=inverse)
        return self._join(x, kept, changed).T, log_det

    def _split(self, x):
        n = self.untransformed_dim
        return (x[:n], x[n:]) if self.kept is None else (x[self.kept], x[self.changed])

    def _join(self, x, kept, changed):
        return jnp.concatenate([kept, changed]) if self.kept is None else x.at[self.changed].set(changed)

    def _checked(self, offsets):
        self._check_size(offsets.shape)
        return offsets[: self.transformers.size]

    def _check_size(self, shape):
        size = self.transformers.size
        if shape not in ((max(size, 1),), (size,)):
            raise ValueError(f"Coupling expected its conditioner to give shape ({size},), got {shape}.")


def _parts(mask, untransformed_dim, dim):
    if (mask is None) == (untransformed_dim is None):
        raise ValueError("Coupling expected either untransformed_dim or mask, got both or neither.")
    if mask is None:
        n_kept = check_count(untransformed_dim, "untransformed_dim", 0)
        if n_kept >= dim:
            raise ValueError(f"Coupling expected untransformed_dim below dim {dim}, got {n_kept}.")
        return None, None, n_kept
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != (dim,) or mask.all():
        raise ValueError(f"Coupling expected a mask of {dim} booleans, not all True, got {mask.tolist()}.")
    n_kept = int(mask.sum())
    if mask[:n_kept].all():
        # Slices are cheaper than gathers.
        return None, None, n_kept
    return jnp.asarray(np.flatnonzero(mask), jnp.int32), jnp.asarray(np.flatnonzero(~mask), jnp.int32), n_kept
