"""Residual layers: the identity plus a contraction."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from flowlib._arrays import as_columns, check_count
from flowlib._module import unwrap_own
from flowlib.bijections._bijection import AbstractBijection, LogDet, one_row
from flowlib.bijections._roulette import roulette_log_det
from flowlib.bijections._solve import solve
from flowlib.nn import LipschitzMLP


class Residual(AbstractBijection):
    """y = x + g(x; condition), where g is a network with slopes below 1; log |det dy/dx| = log det(I + dg/dx).

    The bound holds for all parameters (see `flowlib.nn.LipschitzMLP`), and so the map is always invertible. The log-det
    is exact, of a matrix as large as the smaller one of dim and nn_width: det(I + A B) = det(I + B A). A
    layer stretches by up to 1 + lipschitz, and shrinks to no less than 1 - lipschitz. It starts as the identity.

    `transform` is one pass of the network, and O(min(dim, nn_width)^3) for the log-det, which a fit by
    `flowlib.train.RouletteLoss` only estimates. `inverse` iterates
    x <- y - g(x), whose error falls by the factor `lipschitz` or faster at each step, until it is bounded by
    1e-5 (1 + |x_i|) in float32 and 1e-10 in float64, and takes a step of Newton's method; its gradients are implicit
    and cost dim forward-mode passes.

    Args:
        key: a PRNG key.
        dim: the dimension of an event.
        cond_dim: the dimension of a condition, in which slopes are not bounded. Defaults to None.
        nn_width: the width of the network.
        nn_depth: its number of hidden layers, at least 1.
        lipschitz: the bound of the slopes, in (0, 1).

    Raises:
        ValueError: if a size or the bound is out of range.

    References:
        Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen 2019 (arXiv:1811.00995); Chen, Behrmann, Duvenaud and
        Jacobsen 2019 (arXiv:1906.02735).
    """

    network: LipschitzMLP
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        dim: int,
        cond_dim: int | None = None,
        nn_width: int = 50,
        nn_depth: int = 2,
        lipschitz: float = 0.9,
    ):
        self.network = LipschitzMLP(key, dim, width=nn_width, depth=nn_depth, cond_dim=cond_dim, lipschitz=lipschitz)
        self.shape = (check_count(dim, "dim"),)
        self.cond_shape = None if cond_dim is None else (check_count(cond_dim, "cond_dim"),)

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return one_row(self._transform_and_log_det_batch, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return one_row(self._inverse_and_log_det_batch, y, condition)

    def estimate_batch(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "rows dim"],
        condition: Array | None = None,
        *,
        inverse: bool = False,
        exact_terms: int,
        stop_probability: float,
    ) -> tuple[Float[Array, "rows dim"], Float[Array, " rows"]]:
        """Rows after `transform`, with `inverse` after that, and unbiased estimates of their log-dets.

        See `flowlib.train.RouletteLoss` for the estimates. Conditions are None, one for all rows, or one for each.
        """
        log_det_of = partial(roulette_log_det, key, exact_terms=exact_terms, stop_probability=stop_probability)
        layer = unwrap_own(self)
        return (layer._inverse_with if inverse else layer._transform_with)(log_det_of, x, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        y, log_det = self._transform_with(_log_det, x, condition)
        return y, LogDet(log_det, jnp.ones(len(x), bool))

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        x, log_det = self._inverse_with(_log_det, y, condition)
        return x, LogDet(log_det, jnp.ones(len(y), bool))

    def _transform_with(self, log_det_of: Callable, x: Array, condition: Array | None) -> tuple[Array, Array]:
        arrays = (self.network.bounded(), self.network.biases)
        moves, slopes = LipschitzMLP.outputs_and_slopes(*arrays, x.T, self._shifts(condition, x))
        return x + moves.T, log_det_of(arrays[0], slopes)

    def _inverse_with(self, log_det_of: Callable, y: Array, condition: Array | None) -> tuple[Array, Array]:
        # The matrices are bounded once, not at each step.
        arrays, shifts = (self.network.bounded(), self.network.biases), self._shifts(condition, y)
        x, found = solve(_moved, y, arrays, shifts.T, structure="dense", contraction=self.network.lipschitz)
        _, slopes = LipschitzMLP.outputs_and_slopes(*arrays, x.T, shifts)
        log_det = jnp.where(found, -log_det_of(arrays[0], slopes), jnp.nan)
        return jnp.where(found[:, None], x, jnp.nan), log_det

    def _shifts(self, condition: Array | None, x: Array) -> Float[Array, "width n"]:
        """What the conditions add in the first layer, for each event."""
        if self.cond_shape is None or condition is None:
            return jnp.zeros((1, len(x)), x.dtype)
        return jax.vmap(self.network.shift, 1, 1)(as_columns(condition, x.T))


def _moved(x, args):
    (weights, biases), shift = args
    return x + LipschitzMLP.outputs_and_slopes(weights, biases, x[:, None], shift[:, None])[0][:, 0]


def _log_det(weights, slopes) -> Float[Array, " n"]:
    """log det(I + W_k S_(k-1) W_(k-1) ... S_1 W_1) for each column of slopes, whose diagonal matrices are S."""
    width, dim = weights[0].shape
    rows = [slope.T for slope in slopes]
    product = partial(jnp.matmul, precision="highest")
    if dim <= width:
        jacobian = weights[0]
        for weight, row in zip(weights[1:], rows, strict=True):
            jacobian = product(weight, row[:, :, None] * jacobian)
    else:
        # Turned around: W_1 W_k S_(k-1) ... W_2 S_1.
        jacobian = product(weights[0], weights[-1])
        for weight, row in zip(weights[-2:0:-1], rows[:0:-1], strict=True):
            jacobian = product(jacobian * row[:, None, :], weight)
        jacobian = jacobian * rows[0][:, None, :]
    return jnp.linalg.slogdet(jnp.eye(jacobian.shape[-1], dtype=jacobian.dtype) + jacobian)[1]
