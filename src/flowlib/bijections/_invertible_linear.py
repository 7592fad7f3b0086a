"""Linear maps by an invertible matrix."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections._linear_map import AbstractLinearMap
from flowlib.bijections._plu import PLU, make_plu


class InvertibleLinear(AbstractLinearMap):
    """y = W x with W = P L (U + diag(s)); log |det dy/dx| = sum log |s|, O(dim).

    P is a permutation and stays, L is unit lower and U strictly upper triangular, and the signs of s stay, so that W is
    invertible wherever training goes. Each direction O(dim^2): matrix products, or two triangular solves. With the
    identity as `init`, P is the identity and s positive: W = L U for ever.

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

    def _apply(self, columns: Array) -> Array:
        return self.plu.apply(columns)

    def _solve(self, columns: Array) -> Array:
        return self.plu.solve(columns)

    def _log_det(self) -> Array:
        return self.plu.log_det()
