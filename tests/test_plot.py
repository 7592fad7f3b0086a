"""What the plots draw, looked up in the artists: on axes given or new, showing nothing and changing no setting."""

import functools
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

import flowlib
from flowlib.bijections import Affine, Chain, Flip, InDataUnits, Permute
from flowlib.distributions import Dequantized, Gamma, MultivariateNormal, Normal, StandardNormal, Transformed
from flowlib.flows import coupling_flow
from flowlib.support import Integers
from flowlib.train import EpochHistory, StepHistory

mpl.use("Agg")

# The type checker knows the artists of axes by their base classes only.
plot: Any = flowlib.plot

KEY = jr.key(0)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Nothing is shown, no setting is changed, and each test closes its figures."""

    def show(*args, **kwargs):
        raise AssertionError("a plot was shown")

    monkeypatch.setattr(plt, "show", show)
    plt.close("all")  # what other tests left open
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def noisy(tree, scale=0.3):
    def add(leaf):
        return leaf + scale * jr.normal(jr.key(leaf.size), leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(add, tree)


@functools.cache
def flow(cond_dim=None):
    """Two layers with permutations, and the units of the data."""
    made = coupling_flow(KEY, base_dist=StandardNormal((2,)), cond_dim=cond_dim, flow_layers=2, nn_width=4)
    assert made.units is not None
    return Transformed(
        made.base_dist, InDataUnits(noisy(made.units.bijection), jnp.array([2.0, -1.0]), jnp.array([1.5, 1.0]))
    )


@functools.cache
def images(channels=1):
    shape = (channels, 3, 4)
    return Transformed(StandardNormal(shape), Affine(jr.uniform(KEY, shape), 0.2 * jnp.ones(shape)))


@functools.cache
def events():
    return flow().sample(jr.key(1), 40)


@functools.cache
def three():
    return Transformed(StandardNormal((3,)), Affine(jnp.zeros(3), 1.0))


SMALL = {"resolution": 20}
EPOCHS = EpochHistory(True)
EPOCHS.update(train=[3.0, 2.0, 1.5, 1.2], val=[3.1, 1.9, 1.8, 2.5])

DRAWN = {
    "density": lambda ax: plot.plot_density(flow(), data=events(), samples=30, key=KEY, ax=ax, **SMALL),
    "density of one number": lambda ax: plot.plot_density(
        Normal(), data=events()[:, 0], samples=events()[:, 1], ax=ax, **SMALL
    ),
    "contours": lambda ax: plot.plot_density(flow(), samples=30, key=KEY, levels=5, filled=False, ax=ax, **SMALL),
    "grid": lambda ax: plot.plot_warped_grid(flow(), lines=4, resolution=5, ax=ax),
    "losses": lambda ax: plot.plot_losses(EPOCHS, ax=ax),
    "steps": lambda ax: plot.plot_losses(np.arange(100.0), ax=ax),
    "images": lambda ax: plot.plot_images(np.zeros((5, 4, 4)), ax=ax),
    "temperatures": lambda ax: plot.plot_temperatures(images(), KEY, n=2, ax=ax),
    "interpolation": lambda ax: plot.plot_interpolation(flow(), events()[0], events()[1], steps=3, ax=ax),
    "interpolated images": lambda ax: plot.plot_interpolation(
        images(), jnp.zeros((1, 3, 4)), jnp.ones((1, 3, 4)), ax=ax
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_drawn_into_the_axes_given_or_into_one_new_figure(name):
    figure, (left, right) = plt.subplots(1, 2)
    assert DRAWN[name](left) is left
    assert left.has_data()
    assert not right.has_data()
    assert plt.get_fignums() == [figure.number]
    ax = DRAWN[name](None)
    assert len(plt.get_fignums()) == 2
    assert ax.figure.axes == [ax]
    assert ax.figure.get_facecolor() == to_rgba("white")
    ax.figure.canvas.draw()


def test_pixels_of_the_density_are_the_density_at_their_centres():
    ax = plot.plot_density(flow(), limits=((-2.0, 6.0), (-5.0, 3.0)), **SMALL)
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    pixels = np.asarray(image.get_array())
    assert pixels.shape == (20, 20)
    for row, column in [(0, 0), (9, 10), (12, 4)]:
        centre = [left + (column + 0.5) * (right - left) / 20, bottom + (row + 0.5) * (top - bottom) / 20]
        np.testing.assert_allclose(pixels[row, column], np.exp(flow().log_prob(np.array(centre))), rtol=1e-3)
    # The limits are the centres of the outer pixels.
    np.testing.assert_allclose([left + (right - left) / 40, top - (top - bottom) / 40], [-2, 3], atol=1e-6)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 6), (-5, 3))


def test_contours_are_at_the_levels_given():
    ax = plot.plot_density(flow(), data=events(), levels=[0.01, 0.05, 0.1], filled=False, **SMALL)
    assert not ax.images
    contours = next(artist for artist in ax.collections if hasattr(artist, "levels"))
    np.testing.assert_allclose(contours.levels, [0.01, 0.05, 0.1])


def test_data_and_samples_lie_over_the_density():
    ax = plot.plot_density(flow(), data=events(), samples=30, key=KEY, **SMALL)
    data, samples = ax.collections
    np.testing.assert_array_equal(data.get_offsets(), events())
    np.testing.assert_array_equal(samples.get_offsets(), flow().sample(KEY, 30))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["data", "samples"]


def test_limits_hold_the_data_or_else_samples():
    ax = plot.plot_density(flow(), data=events() + 100, samples=events(), **SMALL)
    for low_high, column in zip((ax.get_xlim(), ax.get_ylim()), np.asarray(events() + 100).T, strict=True):
        assert low_high[0] < np.quantile(column, 0.01) < np.quantile(column, 0.99) < low_high[1]
        assert low_high[1] - low_high[0] < 2 * np.ptp(np.asarray(events()), axis=0).max()
    ax = plot.plot_density(flow(), **SMALL)
    assert ax.get_xlim()[0] < 2 < ax.get_xlim()[1]
    assert ax.get_aspect() == 1


def test_coordinates_of_unlike_ranges_have_scales_of_their_own():
    ax = plot.plot_density(Normal(jnp.array([1e4, 0.3]), jnp.array([200.0, 0.05])), **SMALL)
    assert ax.get_aspect() == "auto"
    assert ax.get_xlim()[1] - ax.get_xlim()[0] > 100 * (ax.get_ylim()[1] - ax.get_ylim()[0])


@pytest.mark.parametrize("shape", [(), (1,)])
def test_events_of_one_number_are_a_curve_with_histograms(shape):
    dist = Gamma(jnp.full(shape, 3.0), jnp.full(shape, 1.0))
    data = dist.sample(KEY, 500)
    ax = plot.plot_density(dist, data=data, samples=200, key=KEY, limits=(0.0, 30.0), resolution=50)
    (curve,) = ax.lines
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    np.testing.assert_allclose(y, np.exp(dist.log_prob(x.reshape(-1, *shape))), rtol=1e-4, atol=1e-6)
    for histogram in ax.patches:
        heights, edges, _ = histogram.get_data()
        np.testing.assert_allclose((heights * np.diff(edges)).sum(), 1, rtol=1e-6)


def test_a_conditional_density_is_that_at_the_condition():
    conditional = flow(cond_dim=3)
    condition = jnp.array([1.0, -2.0, 3.0])
    ax = plot.plot_density(conditional, condition=condition, limits=(-1, 1), **SMALL)
    corner = np.asarray(ax.images[0].get_array())[0, 0]
    np.testing.assert_allclose(corner, np.exp(conditional.log_prob(-np.ones(2), condition)), rtol=1e-4)
    assert plot.plot_layers(conditional, key=KEY, n=5, condition=condition)[-1].collections[0].get_offsets().shape == (
        5,
        2,
    )
    assert plot.plot_warped_grid(conditional, condition=condition, lines=3, resolution=4).collections


def in_the_order_of_the_data(values):
    """The layers of `flow()` exchange the coordinates once each, its units do not."""
    return [values[0], np.asarray(values[1])[:, ::-1], values[2], values[3]]


@pytest.mark.parametrize("direction", ["sample", "data"])
def test_layers_have_a_panel_each_with_points_in_their_colours(direction):
    panels = plot.plot_layers(flow(), key=KEY, n=30, direction=direction)
    titles = {
        "sample": ["base", "0: Coupling", "1: Coupling", "2: InDataUnits"],
        "data": ["data", "2: InDataUnits⁻¹", "1: Coupling⁻¹", "0: Coupling⁻¹"],
    }
    points = in_the_order_of_the_data(flow().sample_layer_values(KEY, 30).values)
    order = 1 if direction == "sample" else -1
    assert [ax.get_title() for ax in panels] == titles[direction]
    for ax, expected in zip(panels, points[::order], strict=True):
        (cloud,) = ax.collections
        np.testing.assert_array_equal(cloud.get_offsets(), expected)
        np.testing.assert_array_equal(cloud.get_facecolors(), panels[0].collections[0].get_facecolors())
        assert ax.get_aspect() == 1
    assert len(plt.get_fignums()) == 1
    np.testing.assert_allclose(panels[::order][-1].collections[0].get_offsets(), flow().sample(KEY, 30), rtol=1e-5)


def test_given_events_are_followed_to_the_base():
    _, axes = plt.subplots(2, 3)
    panels = plot.plot_layers(flow(), events(), color_by="quadrant", axes=axes)
    assert list(panels) == list(axes.flat[:4])
    assert len(plt.get_fignums()) == 1
    np.testing.assert_allclose(panels[0].collections[0].get_offsets(), flow().to_base(events()), rtol=1e-6)
    np.testing.assert_array_equal(panels[-1].collections[0].get_offsets(), events())
    colours = panels[-1].collections[0].get_facecolors()
    right, up = (np.asarray(flow().to_base(events())) > np.median(flow().to_base(events()), axis=0)).T
    quadrant = 2 * right + up
    assert len(np.unique(colours, axis=0)) == len(np.unique(quadrant))
    assert all(len(np.unique(colours[quadrant == q], axis=0)) == 1 for q in np.unique(quadrant))
    values = plot.plot_layers(flow(), events(), color_by=np.arange(40.0), axes=axes)[0].collections[-1].get_array()
    np.testing.assert_array_equal(values, np.arange(40))


def test_colours_by_angle_go_around_the_circle_in_equal_steps():
    angles = np.linspace(-np.pi, np.pi, 13)
    events = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1)[:-1])
    panel = plot.plot_layers(Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), 1.0)), events)[0]
    colours = panel.collections[0].get_facecolors()[:, :3]
    steps = np.linalg.norm(np.diff(colours, axis=0, append=colours[:1]), axis=1)
    assert steps.min() > 0.4 * steps.max()
    luminance = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]
    assert luminance.max() < 1.6 * luminance.min()


def test_permutations_move_no_point():
    swap = Permute(jnp.array([1, 0]))
    layers = [Flip((2,)), Affine(jnp.zeros(2), 1.0), swap, Chain([Flip((2,)), swap]), Permute(jnp.array([0, 1]))]
    panels = plot.plot_layers(Transformed(StandardNormal((2,)), Chain(layers)), key=KEY, n=5)
    for ax in panels:
        np.testing.assert_array_equal(ax.collections[0].get_offsets(), panels[-1].collections[0].get_offsets())


def test_an_animation_starts_at_the_base_ends_at_the_data_and_saves(tmp_path):
    figure, ax = plt.subplots(figsize=(1, 1))
    animation = plot.animate_layers(flow(), key=KEY, n=10, frames_per_layer=2, frames_between=1, ax=ax)
    (cloud,) = ax.collections
    points = in_the_order_of_the_data(flow().sample_layer_values(KEY, 10).values)
    np.testing.assert_array_equal(cloud.get_offsets(), points[0])
    assert ax.get_title() == "base"
    assert plt.get_fignums() == [figure.number]
    # The base twice, and then two frames on the way and one of rest for each of three layers.
    shown = []
    animation.save(
        tmp_path / "flow.gif", writer="pillow", progress_callback=lambda *_: shown.append(cloud.get_offsets())
    )
    np.testing.assert_allclose(shown[2], (np.asarray(points[0]) + points[1]) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shown[-1], points[-1], rtol=1e-6)
    assert len(shown) == 2 + 3 * 3
    assert ax.get_title() == "2: InDataUnits"
    with Image.open(tmp_path / "flow.gif") as image:
        assert image.n_frames > 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_lines_of_a_grid_are_the_images_of_straight_ones():
    ax = plot.plot_warped_grid(flow(), limits=((-1, 1), (-2, 2)), lines=3, resolution=5)
    upright, level = (np.array(lines.get_segments()) for lines in ax.collections)
    assert upright.shape == level.shape == (3, 5, 2)
    np.testing.assert_allclose(upright[0, -1], flow().from_base(jnp.array([-1.0, 2.0])), rtol=1e-4)
    np.testing.assert_allclose(level[2, 1], flow().from_base(jnp.array([-0.5, 2.0])), rtol=1e-4)
    ax = plot.plot_warped_grid(flow().bijection, limits=((-1, 1), (-2, 2)), lines=3, resolution=5)
    np.testing.assert_allclose(ax.collections[0].get_segments(), upright, rtol=1e-4)


@pytest.mark.parametrize("losses", [EPOCHS, dict(EPOCHS), ("dist", EPOCHS)], ids=["history", "dictionary", "result"])
def test_losses_of_epochs_are_two_curves_and_the_best_epoch(losses):
    ax = plot.plot_losses(losses)
    train, val, best = ax.lines
    np.testing.assert_array_equal(train.get_ydata(), EPOCHS["train"])
    np.testing.assert_array_equal(val.get_ydata(), EPOCHS["val"])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 1.8)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")


def test_losses_without_validation_are_judged_by_the_training():
    ax = plot.plot_losses({"train": [2.0, np.nan, 1.0, 1.5], "val": []})
    _, best = ax.lines
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 1.0)
    assert plot.plot_losses({"train": [], "val": []}).lines[0:] == []


def test_losses_of_an_ensemble_are_curves_for_each_member_with_one_legend():
    ax = plot.plot_losses([EPOCHS, {"train": [2.0, 1.0], "val": [2.0, 1.5]}])
    assert len(ax.lines) == 6
    assert len(ax.get_legend().get_texts()) == 2


def test_losses_of_steps_have_a_running_mean():
    history = StepHistory(np.random.default_rng(0).normal(size=200).tolist())
    ax = plot.plot_losses((None, history), window=50)
    each, mean = ax.lines
    np.testing.assert_array_equal(each.get_ydata(), history)
    x, y = np.asarray(mean.get_xdata()), np.asarray(mean.get_ydata())
    assert (x[0], x[-1]) == (49, 199)
    np.testing.assert_allclose([y[0], y[-1]], [np.mean(history[:50]), np.mean(history[-50:])], atol=1e-12)
    assert ax.get_xlabel() == "step"
    assert len(plot.plot_losses(history[:10]).lines) == 1


def tiles(ax, rows, columns, height, width):
    """The images of a picture, (rows, columns, height, width, ...), and whether all between them is white."""
    picture = np.asarray(ax.images[0].get_array())
    assert picture.shape[:2] == (rows * (height + 1) + 1, columns * (width + 1) + 1)
    assert (picture[:: height + 1] == 1).all()
    assert (picture[:, :: width + 1] == 1).all()
    inner = picture[1:, 1:].reshape(rows, height + 1, columns, width + 1, -1)[:, :-1, :, :-1]
    return inner.swapaxes(1, 2).squeeze(-1) if inner.shape[-1] == 1 else inner.swapaxes(1, 2)


def test_images_stand_in_rows_from_the_left():
    pixels = np.random.default_rng(0).uniform(size=(5, 3, 4))
    found = tiles(plot.plot_images(pixels), 2, 3, 3, 4)
    np.testing.assert_array_equal(found.reshape(6, 3, 4)[:5], pixels)
    np.testing.assert_array_equal(found[1, 2], 1)
    np.testing.assert_array_equal(tiles(plot.plot_images(pixels[:, None], n_columns=5), 1, 5, 3, 4)[0], pixels)
    colours = np.stack([pixels, pixels**2, 1 - pixels], axis=1)
    found = tiles(plot.plot_images(colours, n_columns=1), 5, 1, 3, 4)
    np.testing.assert_array_equal(found[:, 0], np.moveaxis(colours, 1, -1))


def test_values_of_black_and_white():
    def drawn(pixels, **options):
        return tiles(plot.plot_images(pixels, **options), 1, 1, 1, 2).ravel()

    np.testing.assert_allclose(drawn(np.array([[[0, 51]]], np.uint8)), [0, 0.2])
    np.testing.assert_allclose(drawn(np.array([[[0.2, 0.7]]])), [0.2, 0.7])
    np.testing.assert_allclose(drawn(np.array([[[-1.0, 3.0]]])), [0, 1])
    np.testing.assert_allclose(drawn(np.array([[[-1.0, 1.0]]]), limits=(0, 2)), [0, 0.5])
    np.testing.assert_allclose(drawn(np.array([[[7.0, 7.0]]])), [0, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_for_each_temperature_of_the_same_draws(channels):
    dist = images(channels)
    ax = plot.plot_temperatures(dist, KEY, temperatures=(0.5, 1.0), n=3, limits=(-1, 3))
    cold, plain = tiles(ax, 2, 3, 3, 4) * 4 - 1
    if channels == 1:
        cold, plain = cold[..., None], plain[..., None]
    z = dist.base_dist.sample(KEY, 3)
    np.testing.assert_allclose(np.moveaxis(plain, -1, 1), dist.sample(KEY, 3), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(cold, -1, 1), dist.from_base(z / 2), rtol=1e-5, atol=1e-5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.5", "1"]
    # At the middle row of each image.
    np.testing.assert_array_equal(ax.get_yticks(), [2, 6])


def test_black_and_white_are_the_ends_of_the_range_of_whole_numbers():
    """Whatever is drawn: few draws have both, and those of a poor flow lie far beyond."""
    dist = images(1)
    whole = Dequantized(dist, values=Integers(-2, 2))
    ax = plot.plot_temperatures(whole, KEY, temperatures=(1.0,), n=3)
    wanted = np.clip((np.asarray(dist.sample(KEY, 3))[:, 0] + 2) / 4, 0, 1)
    np.testing.assert_allclose(tiles(ax, 1, 3, 3, 4)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_an_interpolation_passes_from_one_event_to_the_other(path):
    ax = plot.plot_interpolation(flow(), events()[:2], events()[2:4], steps=5, path=path)
    line, dots = np.array(ax.lines[0].get_xydata()), np.array(ax.lines[1].get_xydata())
    assert len(ax.lines) == 4
    np.testing.assert_allclose(line[[0, -1]], events()[jnp.array([0, 2])], atol=1e-4)
    np.testing.assert_array_equal(dots, line[[0, -1]])
    first, middle, last = (np.asarray(flow().to_base(point)) for point in (events()[0], line[2], events()[2]))
    if path == "linear":
        np.testing.assert_allclose(middle, (first + last) / 2, atol=1e-4)
    else:
        lengths = [np.linalg.norm(z) for z in (first, middle, last)]
        np.testing.assert_allclose(lengths[1], (lengths[0] + lengths[2]) / 2, rtol=1e-4)
        # On the arc between the two, halfway.
        first_half, second_half = [
            middle @ z / (lengths[1] * length) for z, length in [(first, lengths[0]), (last, lengths[2])]
        ]
        np.testing.assert_allclose(first_half, second_half, atol=1e-4)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_an_interpolation_between_parallel_points_is_straight(path):
    dist = Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), 1.0))
    ax = plot.plot_interpolation(dist, jnp.zeros(2), jnp.ones(2), steps=3, path=path)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [0.5, 0.5], [1, 1]], atol=1e-6)


def test_ends_of_an_interpolation_of_images_are_the_images():
    start, end = images().sample(KEY, (2, 3))
    found = tiles(plot.plot_interpolation(images(), start, end, steps=4, limits=(-2, 2)), 3, 4, 3, 4) * 4 - 2
    np.testing.assert_allclose(found[:, 0], start[:, 0], atol=1e-5)
    np.testing.assert_allclose(found[:, -1], end[:, 0], atol=1e-5)


def test_the_flow_inside_a_distribution_of_whole_numbers_is_drawn():
    inner = Transformed(StandardNormal((3, 4)), Affine(jnp.full((3, 4), 5.0), 2.0))
    whole = Dequantized(inner)
    start, end = whole.sample(KEY, 2)
    found = tiles(plot.plot_interpolation(whole, start, end, steps=3, limits=(0, 20)), 1, 3, 3, 4)[0] * 20
    np.testing.assert_allclose(found[[0, -1]], np.stack([start, end]) + 0.5, atol=1e-4)
    plane = Dequantized(Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), 4.0)), columns=[True, False])
    panels = plot.plot_layers(plane, jnp.array([[1.0, 2.0], [3.0, 4.5]]))
    np.testing.assert_array_equal(panels[-1].collections[0].get_offsets(), [[1.5, 2], [3.5, 4.5]])


BAD = {
    "density of three": (lambda: plot.plot_density(three()), r"\(1,\) or \(2,\), got events of shape \(3,\)"),
    "density of data of three": (lambda: plot.plot_density(flow(), data=jnp.ones((5, 3))), "data expected events"),
    "samples without a key": (lambda: plot.plot_density(flow(), samples=5), "needs a key to draw 5 samples"),
    "limits": (lambda: plot.plot_density(flow(), limits=(2, 1)), r"limits expected \(low, high\)"),
    "limits of three": (lambda: plot.plot_density(flow(), limits=(1, 2, 3)), r"limits expected \(low, high\)"),
    "conditions": (lambda: plot.plot_density(flow(3), condition=jnp.ones((4, 3))), r"shape \(3,\), got \(4, 3\)"),
    "no condition": (lambda: plot.plot_density(flow(3)), r"one of shape \(3,\), got none"),
    "useless condition": (lambda: plot.plot_density(flow(), condition=jnp.ones(3)), r"condition none, got \(3,\)"),
    "layers of three": (lambda: plot.plot_layers(three(), key=KEY), r"plot_layers can draw .* \(3,\)"),
    "animated three": (lambda: plot.animate_layers(three(), key=KEY), "animate_layers can draw"),
    "no events": (lambda: plot.plot_layers(flow()), "needs events, or a key"),
    "few axes": (lambda: plot.plot_layers(flow(), key=KEY, axes=plt.subplots(1, 3)[1]), "at least 4, .* got 3"),
    "colours": (lambda: plot.plot_layers(flow(), key=KEY, color_by="z"), 'color_by expected "angle", "quadrant"'),
    "few colours": (lambda: plot.plot_layers(flow(), events(), color_by=[1, 2]), "for each of 40 points, got 2"),
    "grid of three": (lambda: plot.plot_warped_grid(three()), "plot_warped_grid can draw events of two numbers"),
    "grid of three by a bijection": (lambda: plot.plot_warped_grid(three().bijection), "can draw events of two"),
    "images of two channels": (lambda: plot.plot_images(np.zeros((2, 2, 3, 3))), r"got \(2, 2, 3, 3\)"),
    "one image": (lambda: plot.plot_images(np.zeros((3, 3))), "plot_images expected images of shape"),
    "temperatures of points": (lambda: plot.plot_temperatures(flow(), KEY), r"got events of shape \(2,\)"),
    "no temperature": (lambda: plot.plot_temperatures(images(), KEY, temperatures=(0.0,)), "must be positive"),
    "interpolation of three": (lambda: plot.plot_interpolation(three(), jnp.ones(3), jnp.ones(3)), r"got .* \(3,\)"),
    "ends": (lambda: plot.plot_interpolation(flow(), events()[0], events()[:2]), "start and end expected one shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_drawn_is_a_one_line_error(name):
    draw, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("unchecked_annotations")
def test_what_is_no_flow_is_a_one_line_error():
    for draw in (plot.plot_layers, plot.plot_warped_grid):
        with pytest.raises(TypeError, match="expected a flow, a Transformed distribution, got StandardNormal"):
            draw(StandardNormal(()))
    with pytest.raises(TypeError, match="plot_density expected a distribution, got int"):
        plot.plot_density(3)
    with pytest.raises(TypeError, match="expected the losses that a fit returned, got str"):
        plot.plot_losses("loss")
    with pytest.raises(ValueError, match='direction expected "sample" or "data"'):
        plot.plot_layers(flow(), key=KEY, direction="up")
    with pytest.raises(ValueError, match='path expected "linear" or "spherical"'):
        plot.plot_interpolation(flow(), events()[0], events()[1], path="round")


@pytest.mark.parametrize("name", DRAWN)
def test_without_matplotlib_one_line_says_what_to_install(name, monkeypatch):
    for module in [module for module in sys.modules if module.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"^flowlib.plot needs matplotlib: pip install flowlib\[plot\]$"):
        DRAWN[name](None)


class Table:
    """As much of a table as the plots ask for."""

    def __init__(self, values, columns):
        self._values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)


def test_a_marginal_of_named_columns_is_that_of_the_distribution():
    dist = MultivariateNormal(jnp.array([0.0, 5.0, -2.0]), jnp.diag(jnp.array([1.0, 4.0, 0.25])))
    table = Table(np.asarray(dist.sample(KEY, 200)), ["a", "b", "c"])
    ax = plot.plot_density(dist, data=table, columns=["b"], key=KEY)
    x, density = ax.lines[0].get_data()
    np.testing.assert_allclose(density, np.exp(Normal(5.0, 2.0).log_prob(x)), atol=0.02)
    assert ax.get_xlabel() == "b"
    both = plot.plot_density(dist, data=table, columns=("c", 1), limits=[(-4, 0), (-2, 12)])
    image = both.images[0].get_array()
    mid = np.unravel_index(np.argmax(image), image.shape)
    np.testing.assert_allclose(np.asarray(mid) / image.shape, 0.5, atol=0.15)
    assert (both.get_xlabel(), both.get_ylabel()) == ("c", "b")
    with pytest.raises(ValueError, match="names among"):
        plot.plot_density(dist, data=table, columns=["d"])
    with pytest.raises(ValueError, match="one or two columns, got 3"):
        plot.plot_density(dist, columns=[0, 1, 2])


def test_pairs_show_data_below_the_diagonal_and_draws_above():
    dist = MultivariateNormal(jnp.zeros(3), jnp.eye(3))
    rows = np.asarray(dist.sample(KEY, 50)) + [0.0, 10.0, 0.0]
    axes = plot.plot_pairs(dist, Table(rows, ["a", "b", "c"]), key=KEY, columns=["a", "b"])
    assert axes.shape == (2, 2)
    below, above = axes[1, 0].collections[0].get_offsets(), axes[0, 1].collections[0].get_offsets()
    np.testing.assert_allclose(np.sort(below[:, 1]), np.sort(rows[:, 1]), rtol=1e-6)
    np.testing.assert_allclose(above, dist.sample(KEY, 50)[:, [1, 0]], rtol=1e-6)
    assert (axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel()) == ("a", "b")
    assert axes[1, 0].get_ylim() == axes[0, 1].get_xlim()
    assert plot.plot_pairs(dist, rows).shape == (3, 3)
    with pytest.raises(ValueError, match=r"axes expected an array of shape \(3, 3\)"):
        plot.plot_pairs(dist, rows, axes=plt.subplots(2, 2)[1])
    with pytest.raises(ValueError, match="vectors"):
        plot.plot_pairs(Normal(), rows)
