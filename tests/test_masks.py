"""The masks, against the definition entry by entry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from flowlib.masks import block_diag_mask, block_tril_mask, channel_mask, checkerboard_mask, rank_based_mask


@pytest.mark.parametrize("eq", [False, True])
def test_rank_based_mask_compares_each_output_with_each_input(eq):
    in_ranks, out_ranks = np.array([2, 0, 1, -1]), jnp.array([1, 2, 0])
    mask = rank_based_mask(in_ranks, out_ranks, eq=eq) if eq else rank_based_mask(in_ranks, out_ranks)
    assert mask.dtype == bool
    expected = [[out >= into if eq else out > into for into in in_ranks] for out in out_ranks]
    np.testing.assert_array_equal(mask, expected)


def test_block_diag_mask_equals_scipy():
    mask = block_diag_mask((2, 3), 4)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, scipy.linalg.block_diag(*[np.ones((2, 3))] * 4))


@pytest.mark.parametrize("k", [0, -1, 1])
def test_block_tril_mask_is_a_triangle_of_blocks(k):
    mask = block_tril_mask((3, 2), 3, k=k)
    assert mask.shape == (9, 6)
    for (row, column), value in np.ndenumerate(np.asarray(mask)):
        assert value == (column // 2 <= row // 3 + k)


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_mask_is_true_on_one_colour(parity):
    mask = checkerboard_mask((2, 3, 4), parity=parity)
    assert isinstance(mask, np.ndarray)
    assert (mask.shape, mask.dtype) == ((2, 3, 4), bool)
    for (_, row, column), value in np.ndenumerate(mask):
        assert value == ((row + column) % 2 == parity)


def test_channel_mask_is_true_in_the_first_channels_or_in_the_others():
    for keep, expected in [(None, [1, 1, 0, 0, 0]), (3, [1, 1, 1, 0, 0]), (0, [0] * 5), (5, [1] * 5)]:
        mask, other = (channel_mask((5, 2, 3), keep=keep, parity=parity) for parity in (0, 1))
        assert isinstance(mask, np.ndarray)
        assert (mask.shape, mask.dtype) == ((5, 2, 3), bool)
        np.testing.assert_array_equal(mask, np.asarray(expected, bool)[:, None, None] & np.ones((5, 2, 3), bool))
        np.testing.assert_array_equal(other, ~mask)


def test_masks_can_be_built_inside_jit():
    def build(ranks):
        return rank_based_mask(ranks, ranks), block_diag_mask((1, 2), 2), block_tril_mask((1, 2), 2)

    inside, outside = jax.jit(build)(jnp.arange(3)), build(jnp.arange(3))
    jax.tree.map(np.testing.assert_array_equal, inside, outside)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"in_ranks must be a vector, got shape \(1, 1\)"):
        rank_based_mask(jnp.ones((1, 1)), jnp.ones(1))
    with pytest.raises(ValueError, match=r"out_ranks must be a vector, got shape \(\)"):
        rank_based_mask(jnp.ones(1), 1)
    for shape in [(2, 0), (2, -1)]:
        with pytest.raises(ValueError, match="block_shape must be"):
            block_diag_mask(shape, 2)
    with pytest.raises(ValueError, match="n_blocks must be an integer of at least 1, got 0"):
        block_tril_mask((1, 1), 0)


def test_bad_images_and_parities_are_named(unchecked_annotations):
    image: Any = (2, 3)
    for mask in (checkerboard_mask, channel_mask):
        with pytest.raises(ValueError, match=r"\(channels, height, width\), got \(2, 3\)"):
            mask(image)
        with pytest.raises(ValueError, match="parity must be 0 or 1, got 2"):
            mask((1, 2, 2), parity=2)
    with pytest.raises(ValueError, match="keep must be at most the number of channels, 2, got 3"):
        channel_mask((2, 1, 1), keep=3)
