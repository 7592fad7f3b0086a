"""Squeezes against loops, the logit of pixels against its formula, and the composition of multi-scale flows."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logit

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT
from flowlib.bijections import forward_batch
from flowlib.masks import checkerboard_mask


def numbered(*shape):
    """An image whose every element is different."""
    return np.arange(np.prod(shape), dtype=FLOAT).reshape(shape)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_squeeze_of_channels_first_is_pixel_unshuffle(factor):
    channels, height, width = 2, 2 * factor, 3 * factor
    x = numbered(channels, height, width)
    y = bij.Squeeze(x.shape, factor).transform(x)
    assert y.shape == bij.Squeeze(x.shape, factor).out_shape == (channels * factor**2, 2, 3)
    for (c, row, column), value in np.ndenumerate(x):
        channel = c * factor**2 + row % factor * factor + column % factor
        assert y[channel, row // factor, column // factor] == value


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_squeeze_of_channels_last_is_space_to_depth(factor):
    height, width, channels = 2 * factor, 3 * factor, 2
    x = numbered(height, width, channels)
    squeeze = bij.Squeeze(x.shape, factor, layout="HWC")
    y = squeeze.transform(x)
    assert y.shape == squeeze.out_shape == (2, 3, channels * factor**2)
    for (row, column, c), value in np.ndenumerate(x):
        channel = (row % factor * factor + column % factor) * channels + c
        assert y[row // factor, column // factor, channel] == value


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 2), (3, 2, 6)])
def test_checkerboard_squeeze_packs_the_squares_of_each_colour_along_the_row(shape):
    x = numbered(*shape)
    channels, height, width = shape
    squeeze = bij.CheckerboardSqueeze(shape)
    y = squeeze.transform(x)
    assert y.shape == squeeze.out_shape == (2 * channels, height, width // 2)
    for (c, row, column), value in np.ndenumerate(x):
        colour = (row + column) % 2
        assert y[colour * channels + c, row, column // 2] == value
    np.testing.assert_array_equal(np.sort(y[:channels].ravel()), np.sort(x[checkerboard_mask(shape)]))


@pytest.mark.parametrize(
    "squeeze",
    [bij.Squeeze((2, 4, 6)), bij.Squeeze((6, 9, 2), 3, layout="HWC"), bij.CheckerboardSqueeze((2, 3, 4))],
    ids=["CHW", "HWC", "checkerboard"],
)
def test_squeezes_move_elements_without_gathers_and_come_back_exactly(squeeze):
    x = numbered(*squeeze.shape)
    y, log_det = squeeze.transform_and_log_det(x)
    back, inverse_log_det = squeeze.inverse_and_log_det(y)
    np.testing.assert_array_equal(back, x)
    assert log_det == inverse_log_det == 0
    for method, point in [(squeeze.transform, x), (squeeze.inverse, y)]:
        assert not _indexes(jax.vmap(method), jnp.asarray(point)[None])


def _indexes(fn, *args):
    """Whether the program gathers or scatters."""
    lowered = jax.jit(fn).lower(*args).as_text()
    return "gather" in lowered or "scatter" in lowered


def test_the_search_for_gathers_finds_those_of_indexed():
    part = bij.Indexed(bij.Affine(jnp.zeros(2), jnp.ones(2)), slice(0, 2), (4,))
    assert _indexes(jax.vmap(part.transform), jnp.ones((1, 4)))


@pytest.mark.parametrize(("interval", "alpha"), [((0.0, 1.0), 0.0), ((0.0, 256.0), 0.05), ((-3.0, -1.0), 0.3)])
def test_logit_of_pixels_is_the_formula_of_the_paper(interval, alpha):
    low, high = interval
    x = np.linspace(low, high, 9)[1:-1] if alpha == 0 else np.linspace(low, high, 9)
    p = alpha + (1 - 2 * alpha) * (x - low) / (high - low)
    bijection = bij.Logit((len(x),), interval=interval, alpha=alpha)
    y, log_det = bijection.transform_and_log_det(x.astype(FLOAT))
    np.testing.assert_allclose(y, logit(p), rtol=100 * EPS, atol=100 * EPS)
    expected = (np.log((1 - 2 * alpha) / (high - low)) - np.log(p) - np.log1p(-p)).sum()
    np.testing.assert_allclose(log_det, expected, rtol=100 * EPS)
    np.testing.assert_allclose(bijection.inverse(y), x, atol=100 * EPS * (abs(low) + abs(high)))


def test_logit_ends_where_p_is_0_or_1():
    assert np.isnan(bij.Logit().transform(0.0))
    assert np.isnan(bij.Logit().transform(1.0))
    # p = 0.1 + 0.8 u, which is 0 at u = -1/8.
    bijection = bij.Logit(alpha=0.1)
    assert np.isfinite(bijection.transform(-0.1249))
    assert np.isnan(bijection.transform(-0.1251))
    assert np.isfinite(bijection.transform(1.1249))
    assert np.isnan(bijection.transform(1.1251))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_multiscale_is_its_levels_written_out(layout):
    """Each level changes the first half of the channels that the one above it left."""
    channels, height, width = 2, 4, 8
    shape = (channels, height, width) if layout == "CHW" else (height, width, channels)
    wanted = bij.multiscale_shapes(shape, 2, layout=layout)
    rng = np.random.default_rng(0)
    shifts = [rng.standard_normal(s).astype(FLOAT) for s in wanted]
    flow = bij.multiscale([bij.Loc(s) for s in shifts], shape=shape, layout=layout)
    assert flow.shape == flow.out_shape == shape

    x = rng.standard_normal(shape).astype(FLOAT)
    outer = bij.Squeeze(shape, layout=layout)
    z = np.array(outer.transform(x)) + shifts[0]
    half = z.shape[outer_axis(layout)] // 2
    first = (slice(0, half),) if layout == "CHW" else (..., slice(0, half))
    inner = bij.Squeeze(z[first].shape, layout=layout)
    z[first] = inner.inverse(np.asarray(inner.transform(z[first])) + shifts[1])
    np.testing.assert_allclose(flow.transform(x), outer.inverse(z), atol=10 * EPS)


def outer_axis(layout):
    return 0 if layout == "CHW" else 2


def test_multiscale_shapes_are_those_that_remain():
    assert bij.multiscale_shapes((3, 32, 16), 3) == [(12, 16, 8), (24, 8, 4), (48, 4, 2)]
    assert bij.multiscale_shapes((32, 16, 3), 2, layout="HWC") == [(16, 8, 12), (8, 4, 24)]
    assert bij.multiscale_shapes((2, 9, 18), 2, factor=3) == [(18, 3, 6), (81, 1, 2)]


def test_multiscale_of_identities_is_the_identity_and_neither_gathers_nor_scatters():
    shape = (3, 8, 4)
    flow = bij.multiscale([bij.Identity(s) for s in bij.multiscale_shapes(shape, 2)], shape=shape)
    x = jr.normal(jr.key(0), (5, *shape))
    np.testing.assert_array_equal(jax.vmap(flow.transform)(x), x)
    assert not _indexes(lambda x: forward_batch(flow, x), x)
    assert not _indexes(jax.vmap(flow.transform), x)


def test_errors_name_the_sizes():
    with pytest.raises(ValueError, match="multiples of 2, got 5 and 4"):
        bij.Squeeze((1, 5, 4))
    with pytest.raises(ValueError, match="multiples of 3, got 6 and 4"):
        bij.Squeeze((6, 4, 3), 3, layout="HWC")
    with pytest.raises(ValueError, match=r"\('C', 'H', 'W'\), got \(4, 4\)"):
        bij.Squeeze((4, 4))
    with pytest.raises(ValueError, match="factor must be an integer of at least 1, got 0"):
        bij.Squeeze((1, 4, 4), 0)
    with pytest.raises(ValueError, match="an even width, got 3"):
        bij.CheckerboardSqueeze((1, 2, 3))
    with pytest.raises(ValueError, match="finite low < high, got"):
        bij.Logit(interval=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"alpha in \[0, 1/2\), got 0.5"):
        bij.Logit(alpha=0.5)


def test_an_unknown_layout_is_named(unchecked_annotations):
    layout: Any = "WHC"
    with pytest.raises(ValueError, match=r"layout to be one of .*, got 'WHC'"):
        bij.Squeeze((1, 2, 2), layout=layout)


def test_multiscale_names_the_level_that_does_not_fit(unchecked_annotations):
    identity = bij.Identity((4, 1, 3))
    with pytest.raises(ValueError, match="number of levels must be an integer of at least 1, got 0"):
        bij.multiscale([], shape=(1, 2, 2))
    with pytest.raises(ValueError, match=r"At level 1 of 2 of a multi-scale flow: .* multiples of 2, got 1 and 3"):
        bij.multiscale([identity, identity], shape=(1, 2, 6))
    with pytest.raises(ValueError, match=r"At level 0 of 2 .* even number of channels to split, got 9"):
        bij.multiscale_shapes((1, 3, 3), 2, factor=3)
    with pytest.raises(ValueError, match=r"steps that keep the shape \(4, 1, 1\), got \(4, 1, 3\) -> \(4, 1, 3\)"):
        bij.multiscale([identity], shape=(1, 2, 2))
    not_one: Any = "steps"
    with pytest.raises(TypeError, match="multiscale expected a bijection, got str"):
        bij.multiscale([not_one], shape=(1, 2, 2))
