"""Random numbers drawn in few operations."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy import stats

from flowlib._random import draw_together, shuffled


def test_arrays_drawn_together_are_parts_of_one_draw():
    shapes = [(2, 3), (), (0,), (4,)]
    parts = draw_together(jr.normal, jr.key(0), shapes)
    assert [part.shape for part in parts] == shapes
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), jr.normal(jr.key(0), (11,)))


def test_a_shuffle_keeps_each_row():
    rows = jnp.arange(5, 1005, dtype=jnp.int32)
    order = shuffled(jr.key(1), rows)
    assert order.dtype == rows.dtype
    np.testing.assert_array_equal(np.sort(order), rows)


def test_all_orders_are_as_likely():
    orders = np.stack([shuffled(key, jnp.arange(3)) for key in jr.split(jr.key(2), 600)])
    counts = np.bincount(orders @ [9, 3, 1], minlength=27)
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001
