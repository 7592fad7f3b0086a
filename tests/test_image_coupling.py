"""Coupling layers of images: what they keep, what their networks see, and in which order these give parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.tree_util import Partial

import flowlib
from contract_tools import EPS, perturb
from flowlib.bijections import (
    Affine,
    Chain,
    Coupling,
    Exp,
    Householder,
    Identity,
    ImageCoupling,
    Loc,
    RationalQuadraticSpline,
    Scan,
    TanhAffine,
    forward_batch,
)
from flowlib.distributions import StandardNormal, Transformed
from flowlib.masks import channel_mask, checkerboard_mask
from flowlib.nn import ConvNet, ConvResNet

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 5)
SMALL = Partial(ConvNet, width=3, activation=jnp.tanh)
SPLINE = RationalQuadraticSpline(knots=3, interval=2.0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape))


def noisy(tree: Any, scale: float = 0.3) -> Any:
    return perturb(tree, np.random.default_rng(1), scale)


def coupling(key, **options):
    return ImageCoupling(key, **{"shape": SHAPE, "transformer": Affine(), "conditioner": SMALL, **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"keep": 2}, {"mask": checkerboard_mask(SHAPE)}, {"mask": RNG.random(SHAPE) < 0.4}],
    ids=["half", "keep", "checkerboard", "any"],
)
@pytest.mark.parametrize("transformer", [SPLINE, TanhAffine()], ids=["spline", "own"])
def test_what_is_kept_stays_and_nothing_else_sees_what_is_changed(options, transformer, key):
    layer = noisy(coupling(key, transformer=transformer, **options))
    mask = options.get("mask", channel_mask(SHAPE, keep=options.get("keep")))
    x, kept = normal(*SHAPE), np.asarray(mask).ravel()
    y = layer.transform(x)
    np.testing.assert_array_equal(y.ravel()[kept], x.ravel()[kept])
    assert (y.ravel()[~kept] != x.ravel()[~kept]).all()
    jacobian = np.asarray(jax.jacfwd(layer.transform)(x)).reshape(x.size, x.size)
    np.testing.assert_array_equal(jacobian[kept], np.eye(x.size)[kept])
    inside = jacobian[np.ix_(~kept, ~kept)]
    np.testing.assert_array_equal(inside, np.diag(np.diag(inside)))
    assert (jacobian[np.ix_(~kept, kept)] != 0).any(axis=1).all(), "a parameter depends on nothing"


@pytest.mark.parametrize("mask", [None, checkerboard_mask((1, 2, 5))], ids=["channels", "mask"])
def test_it_starts_as_its_transformer_whose_log_det_counts_what_is_changed(mask, key):
    layer = coupling(key, transformer=Affine(1.0, 3.0), mask=mask)
    changed = np.broadcast_to(~(channel_mask(SHAPE) if mask is None else mask), SHAPE)
    x = normal(*SHAPE)
    y, log_det = layer.transform_and_log_det(x)
    np.testing.assert_allclose(y, np.where(changed, 1 + 3 * x, x), rtol=10 * EPS)
    np.testing.assert_allclose(log_det, changed.sum() * np.log(3), rtol=10 * EPS)


def test_on_one_pixel_it_is_the_coupling_of_vectors(key):
    """With the same network, of 1x1 convolutions, and the same order of parameters."""
    vector = Coupling(key, transformer=SPLINE, untransformed_dim=2, dim=5, nn_width=4)
    mlp: Any = noisy(vector.conditioner)
    vector = eqx.tree_at(lambda layer: layer.conditioner, vector, mlp)
    image = ImageCoupling(
        key, transformer=SPLINE, shape=(5, 1, 1), keep=2, conditioner=Partial(ConvNet, width=4, kernel_sizes=(1, 1))
    )
    for i, linear in enumerate(mlp.layers):
        image = eqx.tree_at(
            lambda layer, i=i: (layer.conditioner.layers[i].weight, layer.conditioner.layers[i].bias),
            image,
            (linear.weight.T[None, None], linear.bias),
        )
    x = normal(5)
    y, log_det = vector.transform_and_log_det(x)
    image_y, image_log_det = image.transform_and_log_det(x[:, None, None])
    np.testing.assert_allclose(image_y[:, 0, 0], y, rtol=0, atol=200 * EPS)
    np.testing.assert_allclose(image_log_det, log_det, rtol=0, atol=200 * EPS)


class Numbered(eqx.Module):
    """The number of each output channel, and the condition, at every pixel."""

    out_channels: int = eqx.field(static=True)

    def __call__(self, x, condition=None):
        channels = jnp.arange(self.out_channels, dtype=jnp.int32).astype(x.dtype)
        channels = channels if condition is None else channels + condition[0]
        return jnp.broadcast_to(channels[:, None, None], (self.out_channels, *x.shape[1:]))


def numbered(key, in_channels, out_channels, cond_dim=None):
    assert (in_channels, cond_dim) in ((3, None), (1, 2))
    return Numbered(out_channels)


def test_a_network_gives_the_parameters_of_one_channel_after_the_other(key):
    two = Chain([Loc(0.0), Loc(0.0)])
    options = {"transformer": two, "conditioner": numbered, "shape": (3, 2, 2)}
    x = normal(3, 2, 2)
    moved = ImageCoupling(key, mask=checkerboard_mask((1, 2, 2)), **options).transform(x) - x
    # Channel c has the parameters 2 c and 2 c + 1, of which the transformer takes the sum.
    changed = ~checkerboard_mask((3, 2, 2))
    np.testing.assert_allclose(moved, (4 * np.arange(3) + 1)[:, None, None] * changed, atol=1e-5)
    layer = ImageCoupling(key, keep=1, cond_dim=2, **options)
    for condition in (np.zeros(2), np.array([0.5, 9.0])):
        moved = layer.transform(x, condition) - x
        np.testing.assert_allclose(moved[:, 0, 0], [0, 1 + 2 * condition[0], 5 + 2 * condition[0]], atol=1e-5)
    conditions = jnp.array([[0.5, 9.0], [-1.0, 0.0]])
    rows, _ = forward_batch(layer, jnp.stack([x, x]), conditions)
    np.testing.assert_allclose(rows[:, 1, 0, 0] - x[1, 0, 0], [2.0, -1.0], atol=1e-5)


def test_one_bijection_may_take_all_changed_channels_of_a_pixel(key):
    joint = Chain([Householder(jnp.array([1.0, 2.0])), Affine(jnp.ones(2))])
    layer = coupling(key, transformer=joint)
    x = normal(*SHAPE)
    y = layer.transform(x)
    for i, j in np.ndindex(2, 5):
        np.testing.assert_allclose(y[1:, i, j], joint.transform(x[1:, i, j]), rtol=0, atol=20 * EPS)


def test_layers_whose_masks_alternate_are_scanned_also_on_odd_images(key):
    masks = jnp.stack([checkerboard_mask((1, 3, 5), parity=i % 2) for i in range(4)])
    assert len(set(masks.sum((1, 2, 3)).tolist())) == 2

    def make(key, mask):
        return ImageCoupling(key, transformer=TanhAffine(), shape=(1, 3, 5), mask=mask, conditioner=SMALL)

    stack = noisy(eqx.filter_vmap(make)(jr.split(key, 4), masks))
    scan, x = Scan(stack), normal(2, 1, 3, 5)
    chain = Chain(list(scan))
    (one, log_det), (other, log_det_of_chain) = (forward_batch(b, x) for b in (scan, chain))
    np.testing.assert_allclose(one, other, rtol=0, atol=50 * EPS)
    np.testing.assert_allclose(log_det.value, log_det_of_chain.value, rtol=0, atol=200 * EPS)
    assert (one != x).all()


def test_rebuilt_gradients_are_those_of_stored_activations(key):
    def make(key):
        return coupling(key, transformer=TanhAffine(), conditioner=Partial(ConvResNet, width=3, depth=1))

    stack, x = noisy(eqx.filter_vmap(make)(jr.split(key, 3)), 0.1), normal(4, *SHAPE)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(scan):
        y, log_det = forward_batch(scan, x)
        return (y**2).mean() - log_det.value.mean()

    stored, rebuilt = (jax.tree.leaves(gradient(Scan(stack, gradient=how)).bijection) for how in ("store", "rebuild"))
    for one, other in zip(stored, rebuilt, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * (1 + np.abs(one).max()))


def test_kept_numbers_at_which_the_transformer_overflows_spoil_no_gradient(key):
    layer = coupling(key, transformer=Exp(), mask=checkerboard_mask(SHAPE))
    x = jnp.where(checkerboard_mask(SHAPE), 1e6, 0.5)
    grad = jax.grad(lambda x: layer.transform(x).sum())(x)
    np.testing.assert_allclose(grad, np.where(checkerboard_mask(SHAPE), 1, np.exp(0.5)), rtol=1e-5)


def test_values_outside_the_codomain_are_known_where_they_are_changed(key):
    layer = coupling(key, transformer=Exp(), mask=checkerboard_mask(SHAPE))
    flow = Transformed(StandardNormal(SHAPE), layer)
    kept, changed = np.argwhere(checkerboard_mask(SHAPE))[0], np.argwhere(~checkerboard_mask(SHAPE))[0]
    x = np.full((3, *SHAPE), 0.5)
    x[1][tuple(kept)] = -1
    x[2][tuple(changed)] = -1
    assert np.isneginf(flow.log_prob(x)).tolist() == [False, False, True]


def test_a_transformer_without_parameters_will_do(key):
    x = normal(*SHAPE)
    np.testing.assert_array_equal(coupling(key, transformer=Identity()).transform(x), x)


def test_the_default_network_is_that_of_glow(key):
    layer = eqx.filter_eval_shape(ImageCoupling, key, transformer=Affine(), shape=(5, 2, 2))
    assert layer.keep == 2
    assert [c.weight.shape for c in layer.conditioner.layers] == [(3, 3, 2, 64), (1, 1, 64, 64), (3, 3, 64, 6)]


def test_a_saved_flow_comes_back(key, tmp_path):
    flow = Transformed(StandardNormal(SHAPE), noisy(coupling(key, transformer=SPLINE, mask=checkerboard_mask(SHAPE))))
    x = normal(4, *SHAPE)
    flowlib.save(tmp_path / "flow", flow)
    np.testing.assert_array_equal(flowlib.load(tmp_path / "flow").log_prob(x), flow.log_prob(x))


class Transposed(eqx.Module):
    size: int = eqx.field(static=True)

    def __call__(self, x, condition=None):
        return jnp.zeros((self.size, x.shape[2], x.shape[1]))


def transposed(key, in_channels, out_channels):
    return Transposed(out_channels)


def too_wide(key, in_channels, out_channels, cond_dim):
    return ConvNet(key, in_channels, out_channels + 1, width=2, cond_dim=cond_dim)


def test_a_network_that_gives_another_shape_is_one_clear_line(key):
    x = jnp.zeros(SHAPE)
    with pytest.raises(ValueError, match=r"expected its conditioner to give shape \(4, 2, 5\), got \(4, 5, 2\)"):
        coupling(key, conditioner=transposed).transform(x)
    layer = coupling(key, mask=checkerboard_mask(SHAPE), cond_dim=2, conditioner=too_wide)
    with pytest.raises(ValueError, match=r"expected its conditioner to give shape \(6, 2, 5\), got \(7, 2, 5\)"):
        layer.transform(x, jnp.zeros(2))


BOARD = checkerboard_mask(SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 4)}, r"expected a shape \(channels, height, width\), got \(3, 4\)"),
        ({"shape": (3, 0, 4)}, r"expected a shape \(channels, height, width\), got \(3, 0, 4\)"),
        ({"shape": (1, 4, 4)}, "expected two channels at least, or a mask, got 1"),
        ({"keep": 3}, "expected keep below the number of channels 3, got 3"),
        ({"keep": 0}, "keep must be an integer of at least 1, got 0"),
        ({"keep": 1, "mask": BOARD}, "expected either keep or mask, got both"),
        ({"mask": BOARD[:, :1]}, r"of shape \(3, 2, 5\) or \(1, 2, 5\), got dtype bool and shape \(3, 1, 5\)"),
        ({"mask": np.ones(SHAPE)}, r"expected a boolean mask .*, got dtype float64 and shape \(3, 2, 5\)"),
        ({"mask": np.ones(SHAPE, bool)}, "expected a mask that is not all True"),
        ({"mask": BOARD, "transformer": [Affine()] * 3}, "a mask expected one transformer of shape"),
        ({"mask": BOARD, "transformer": Affine(jnp.ones(1))}, "a mask expected one transformer of shape"),
        ({"transformer": Affine(jnp.ones(3))}, r"transformer of shape \(\) or \(2,\), got shape \(3,\)"),
        ({"transformer": [Affine()]}, "expected 2 transformers, one a coordinate, got 1"),
        ({"cond_dim": 0}, "cond_dim must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, message, key, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        coupling(key, **options)
    assert "\n" not in str(caught.value)
    assert "ImageCoupling" in str(caught.value) or "must be" in str(caught.value)


def test_a_wrong_kind_of_argument_is_a_type_error(key, unchecked_annotations):
    with pytest.raises(TypeError, match="expected a bijection, got float"):
        coupling(key, mask=checkerboard_mask(SHAPE), transformer=2.0)
    with pytest.raises(TypeError, match="key must be a JAX PRNG key"):
        coupling(3)
