"""Boolean masks: of a matrix of weights, to give it its dependency structure, and of the pixels of an image."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from flowlib._arrays import as_shape, check_count


def rank_based_mask(in_ranks: ArrayLike, out_ranks: ArrayLike, *, eq: bool = False) -> Bool[Array, "outputs inputs"]:
    """True where `out_ranks[i] > in_ranks[j]`: an output (a row) sees the inputs (columns) of lower rank.

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


def checkerboard_mask(shape: tuple[int, int, int], *, parity: int = 0) -> np.ndarray:
    """True on the squares of one colour: where row + column + parity is even, in all channels.

    Args:
        shape: (channels, height, width).
        parity: 0, or 1 for the other colour.

    Raises:
        ValueError: if the shape has not three axes or the parity is neither 0 nor 1.
    """
    channels, height, width = _image(shape)
    even = np.add.outer(np.arange(height), np.arange(width)) % 2 == _parity(parity)
    return np.broadcast_to(even, (channels, height, width)).copy()


def channel_mask(shape: tuple[int, int, int], *, keep: int | None = None, parity: int = 0) -> np.ndarray:
    """True in the first `keep` channels, or with parity 1 in all others.

    Args:
        shape: (channels, height, width).
        keep: the number of channels. Defaults to half of them, rounded down.
        parity: 0, or 1 for the complement.

    Raises:
        ValueError: if the shape has not three axes, the parity is neither 0 nor 1, or there are not so many channels.
    """
    channels, height, width = _image(shape)
    keep = channels // 2 if keep is None else check_count(keep, "keep", 0)
    if keep > channels:
        raise ValueError(f"keep must be at most the number of channels, {channels}, got {keep}.")
    chosen = (np.arange(channels) < keep) == (_parity(parity) == 0)
    return np.broadcast_to(chosen[:, None, None], (channels, height, width)).copy()


def _image(shape) -> tuple[int, ...]:
    checked = as_shape(shape)
    if len(checked) != 3:
        raise ValueError(f"shape must be that of an image, (channels, height, width), got {checked}.")
    return checked


def _parity(parity) -> int:
    if isinstance(parity, bool) or parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got {parity!r}.")
    return int(parity)


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
