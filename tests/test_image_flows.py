"""Premade flows of images: their start, that they are probabilities, conditions, gradients, and what is refused."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import flowlib
from contract_tools import X64
from flowlib.distributions import Dequantized, Transformed
from flowlib.flows import flow_plus_plus, glow, realnvp_image
from flowlib.train import fit_to_data
from registry import only_in_full

SMALL = {
    "glow": (glow, {"n_steps": 2, "nn_width": 4}),
    "realnvp_image": (realnvp_image, {"n_checkerboard": 2, "n_channelwise": 2, "nn_width": 4, "nn_depth": 1}),
    "flow_plus_plus": (
        flow_plus_plus,
        {"n_checkerboard": 1, "n_channelwise": 1, "n_after": 1, "nn_width": 4, "nn_depth": 1, "components": 2},
    ),
}
each_flow = pytest.mark.parametrize("name", list(SMALL))
# Flow++ compiles for half a minute.
each_flow_in_full = pytest.mark.parametrize(
    "name", ["glow", *(pytest.param(name, marks=only_in_full) for name in ("realnvp_image", "flow_plus_plus"))]
)
SHAPE, VALUES = (1, 2, 4), 3
RNG = np.random.default_rng(8)
IMAGES = RNG.integers(0, VALUES, (64, *SHAPE))


def make(name, **options):
    constructor, sizes = SMALL[name]
    return constructor(jr.key(0), **{"shape": SHAPE, "n_values": VALUES, "n_levels": 1, **sizes, **options})


def disturbed(tree, scale=0.1):
    """Noise on everything that trains."""
    params, static = eqx.partition(tree, eqx.is_inexact_array)
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda a: a + jnp.asarray(scale * rng.standard_normal(a.shape), a.dtype), params)
    return eqx.combine(moved, static)


@each_flow
def test_latent_array_is_the_preprocessed_image_at_first(name):
    """Exactly for affine couplings; eight logistics start within 0.015 of the identity, and there are three layers."""
    mixture = name == "flow_plus_plus"
    flow = make(name, n_values=None, **({"components": 8} if mixture else {}))
    assert isinstance(flow, Transformed)
    x = RNG.standard_normal((5, *SHAPE))
    np.testing.assert_allclose(flow.to_base(x), x, atol=0.045 if mixture else 1e-5)


@each_flow
def test_probabilities_of_all_images_sum_to_one(name):
    """Of 1 x 2 x 2 pixels with two values each, and of the images a little outside this range, where density is."""
    given = disturbed(make(name, shape=(1, 2, 2), n_values=2, preprocess="logit"))
    flow = Dequantized(given.dist, noise=given.noise)
    images = np.array(list(itertools.product(range(-1, 3), repeat=4)), float).reshape(-1, 1, 2, 2)
    log_prob = flow.lower_bound(jr.key(0), images, num_samples=1600)
    assert abs(np.exp(np.asarray(log_prob, np.float64)).sum() - 1) < 0.03
    draws = np.asarray(flow.sample(jr.key(1), 500))
    assert (draws == np.floor(draws)).all()
    assert {0.0, 1.0} <= set(np.unique(draws)) <= {-1.0, 0.0, 1.0, 2.0}
    assert set(np.unique(np.asarray(given.sample(jr.key(1), 500)))) == {0.0, 1.0}


@each_flow_in_full
def test_flow_depends_on_labels_and_refuses_others(name):
    flow = disturbed(make(name, num_classes=4))
    found = flow.lower_bound(jr.key(0), IMAGES[:1], jnp.arange(4))
    assert len(np.unique(np.asarray(found))) == 4
    assert flow.sample(jr.key(0), 2, condition=jnp.array([0, 3])).shape == (2, 2, *SHAPE)
    with pytest.raises(ValueError, match="class label from 0 to 3, got 4 at row 1"):
        flow.sample(jr.key(0), condition=jnp.array([0, 4]))
    with pytest.raises(ValueError, match="class label from 0 to 3, got 7 at row 2"):
        fit_to_data(jr.key(0), flow, (IMAGES[:4], np.array([0, 1, 7, 2])), max_epochs=1, show_progress=False)


def test_flow_depends_on_vectors():
    flow = disturbed(make("glow", cond_dim=2))
    conditions = np.array([[0.0, 1.0], [1.0, 0.0]])
    one, other = flow.lower_bound(jr.key(0), np.stack([IMAGES[0]] * 2), conditions)
    assert one != other


@each_flow_in_full
def test_fit_lowers_the_loss_and_files_keep_the_flow(name, tmp_path):
    flow = flowlib.init_from_data(make(name), IMAGES)
    # Half of the images are all zero.
    data = IMAGES * (np.arange(64) % 2).reshape(-1, 1, 1, 1)
    fitted, losses = fit_to_data(
        jr.key(1), flow, data, learning_rate=5e-3, max_epochs=8, batch_size=32, val_prop=0, show_progress=False
    )
    assert losses["train"][-1] < losses["train"][0]
    flowlib.save(tmp_path / "flow.flowlib", fitted)
    loaded = flowlib.load(tmp_path / "flow.flowlib")
    np.testing.assert_array_equal(loaded.log_prob(data[:2]), fitted.log_prob(data[:2]))


def test_init_from_data_of_whole_numbers_makes_latent_values_standard():
    flow = flowlib.init_from_data(make("glow", n_values=256), 100 + RNG.integers(0, 3, (256, *SHAPE)))
    z = np.asarray(flow.dist.to_base(100 + RNG.integers(0, 3, (256, *SHAPE)) + RNG.random((256, *SHAPE))))
    assert abs(z.mean()) < 0.1
    assert 0.9 < z.std() < 1.1


def test_noise_of_flow_plus_plus_starts_uniform_and_sees_the_image():
    noise = make("flow_plus_plus").noise
    u = RNG.random((4, *SHAPE))
    np.testing.assert_allclose(noise.log_prob(u, IMAGES[:4]), 0, atol=1e-4)
    moved = disturbed(noise, 0.3)
    assert not np.allclose(moved.log_prob(u[:1], IMAGES[:2]), moved.log_prob(u[:1], IMAGES[2:3]), atol=1e-3)


@pytest.mark.parametrize("gradient", ["recompute", "rebuild"])
def test_gradients_of_other_memory_are_those_of_stored_activations(gradient):
    x = jnp.asarray(IMAGES[:8], float)

    def grad(kind):
        flow = disturbed(make("glow", n_steps=4, gradient=kind))
        params, static = eqx.partition(flow, eqx.is_inexact_array)
        loss = eqx.filter_jit(jax.grad(lambda p: eqx.combine(p, static).lower_bound(jr.key(0), x).mean()))
        return jax.tree.leaves(loss(params))

    for one, other in zip(grad("store"), grad(gradient), strict=True):
        scale = np.abs(one).max() + 1e-3
        np.testing.assert_allclose(other / scale, one / scale, atol=1e-8 if X64 else 1e-3)


def test_second_flow_of_a_kind_compiles_nothing(caplog):
    make("glow")
    with jax.log_compiles(), caplog.at_level("WARNING"):
        make("glow")
    assert not [r for r in caplog.records if "Compiling" in r.getMessage() and "_make_levels" in r.getMessage()]


def test_unequal_axes_and_several_levels_keep_the_shape():
    shape = (3, 4, 8)
    flow = disturbed(make("glow", shape=shape, n_levels=2, n_values=None), 0.05)
    x = RNG.standard_normal((2, *shape))
    z = flow.to_base(x)
    assert z.shape == x.shape
    np.testing.assert_allclose(flow.from_base(z), x, atol=1e-9 if X64 else 1e-3)


BAD = [
    ({"shape": (1, 3, 4)}, "height and a width that are multiples of 2, got 3 and 4"),
    ({"shape": (1, 4, 4), "n_levels": 3}, "At level 2 of 3"),
    ({"shape": (28, 28)}, r"\(channels, height, width\), as in \(1, 28, 28\), got \(28, 28\)"),
    ({"n_values": 1}, "n_values must be an integer of at least 2, got 1"),
    ({"n_levels": 0}, "number of levels must be an integer of at least 1, got 0"),
    ({"cond_dim": 2, "num_classes": 3}, "got both"),
    ({"num_classes": 0}, "num_classes must be an integer of at least 1"),
    ({"preprocess": "sqrt"}, "preprocess expected one of"),
    ({"nn_width": 0}, "nn_width must be an integer of at least 1"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments_are_one_clear_line(options, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make("glow", **options)
    assert "\n" not in str(caught.value)


def test_bad_pixels_are_one_clear_line():
    flow = make("realnvp_image", n_values=256)
    for images, message in [
        (IMAGES / 255, "whole numbers from 0 to 255, got .* divided already"),
        (IMAGES + 300.0, "whole numbers from 0 to 255, got 30[0-2] at row 0"),
        (IMAGES[:, 0], r"expected x of shape \(rows, 1, 2, 4\), got \(64, 2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            fit_to_data(jr.key(0), flow, images, max_epochs=1, show_progress=False)
        assert "\n" not in str(caught.value)


def test_float_images_of_whole_numbers_are_as_good_as_integers():
    flow = make("glow")
    assert isinstance(flow, Dequantized)
    np.testing.assert_array_equal(
        flow.log_prob(IMAGES[:3].astype(np.uint8)), flow.log_prob(IMAGES[:3].astype(np.float32))
    )
