"""Linear maps by an invertible matrix."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import unwrap_own
from flowlib.bijections._bijection import AbstractBijection
from flowlib.bijections._plu import PLU, make_plu, same_log_det


class InvertibleLinear(AbstractBijection):
    """y = W x with W = P L (U + diag(s)); log |det dy/dx| = sum log |s|, O(dim).

    P is a permutation and stays, L is unit lower and U strictly upper triangular, and the signs of s stay, so that W is
    invertible wherever training goes. Each direction O(dim^2): matrix products, or two triangular solves.

    Args:
        key: a PRNG key for the initial W; not used with `init`.
        dim: the dimension of an event.
        init: W at first, of shape (dim, dim). Defaults to a random rotation (or reflection), each equally likely.

    Raises:
        ValueError: if `init` is not square of size `dim`, not finite or singular.

    References:
        Kingma and Dhariwal 2018, section 3.2 (arXiv:1807.03039).
    """

    plu: PLU
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, key: PRNGKeyArray, *, dim: int, init: ArrayLike | None = None):
        self.shape = (check_count(dim, "dim"),)
        self.plu = make_plu(key, dim, init, "InvertibleLinear")

    @property
    def matrix(self) -> Float[Array, "dim dim"]:
        """W."""
        return unwrap_own(self).plu.matrix()

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return self.plu.apply(x[:, None])[:, 0], self.plu.log_det()

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return self.plu.solve(y[:, None])[:, 0], -self.plu.log_det()

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return self.plu.apply(x.T).T, same_log_det(self.plu.log_det(), x)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        return self.plu.solve(y.T).T, same_log_det(-self.plu.log_det(), y)
