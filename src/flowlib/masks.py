"""Boolean masks that give a matrix of weights its dependency structure: rows are outputs, columns inputs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from flowlib._arrays import as_shape, check_count


def rank_based_mask(in_ranks: ArrayLike, out_ranks: ArrayLike, *, eq: bool = False) -> Bool[Array, "outputs inputs"]:
    """True where `out_ranks[i] > in_ranks[j]`: an output sees the inputs of lower rank.

    Args:
        in_ranks: the rank of each input, a vector.
        out_ranks: the rank of each output, a vector.
        eq: let an output see the inputs of its own rank too.

    Raises:
        ValueError: if the ranks are not vectors.
    """
    in_ranks, out_ranks = _ranks(in_ranks, "in_ranks"), _ranks(out_ranks, "out_ranks")
    compare = jnp.greater_equal if eq else jnp.greater
    return compare(out_ranks[:, None], in_ranks[None, :])


def block_diag_mask(block_shape: tuple[int, int], n_blocks: int) -> Bool[Array, "outputs inputs"]:
    """True in `n_blocks` blocks of shape `block_shape` along the diagonal.

    Raises:
        ValueError: if `block_shape` is not two positive integers, or `n_blocks` is no positive integer.
    """
    return _blocks(np.eye(check_count(n_blocks, "n_blocks"), dtype=bool), block_shape)


def block_tril_mask(block_shape: tuple[int, int], n_blocks: int, k: int = 0) -> Bool[Array, "outputs inputs"]:
    """True in the blocks on and below the k-th block diagonal: as `numpy.tri`, with blocks for entries.

    Args:
        block_shape: the shape of a block.
        n_blocks: the number of blocks along each side.
        k: 0 includes the diagonal blocks, -1 leaves them out.

    Raises:
        ValueError: as `block_diag_mask`, or if `k` is no integer.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise ValueError(f"k must be an integer, got {k!r}.")
    return _blocks(np.tri(check_count(n_blocks, "n_blocks"), k=k, dtype=bool), block_shape)


def _blocks(mask: np.ndarray, block_shape: tuple[int, int]) -> Array:
    shape = as_shape(block_shape, "block_shape")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"block_shape must be two positive integers, got {block_shape!r}.")
    return jnp.asarray(mask.repeat(shape[0], axis=0).repeat(shape[1], axis=1))


def _ranks(ranks: ArrayLike, name: str) -> Array:
    ranks = jnp.asarray(ranks)
    if ranks.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {ranks.shape}.")
    return ranks
