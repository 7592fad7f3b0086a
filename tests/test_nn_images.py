"""The networks of images, against plain NumPy."""

import copy
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.tree_util import Partial

import flowlib
from contract_tools import EPS, assert_same_tree, perturb
from flowlib._arrays import cast_floats
from flowlib.nn import ConvNet, ConvResNet, GatedAttentionNet
from flowlib.nn._convolution import convolve

RNG = np.random.default_rng(0)
# Of unequal height and width.
SHAPE = (3, 4, 2)
NETS: dict[str, Any] = {
    "ConvNet": Partial(ConvNet, width=4, activation=jnp.tanh),
    "ConvResNet": Partial(ConvResNet, width=4, depth=2, activation=jnp.tanh),
    "GatedAttentionNet": Partial(GatedAttentionNet, width=4, depth=2, heads=2, image_shape=SHAPE[1:]),
}
each_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape))


def noisy(tree: Any, scale: float = 0.5) -> Any:
    return perturb(tree, np.random.default_rng(1), scale)


def in_float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# The formulas in NumPy, on images with channels last.


def convolved(x, kernel):
    height, width = kernel.shape[:2]
    padded = np.pad(x, [((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2), (0, 0)])
    y = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = np.tensordot(padded[i : i + height, j : j + width], kernel, 3)
    return y


def layer(convolution, x, index: Any = ...):
    """A convolution of the network, or of a stack of blocks."""
    weight, bias = convolution.weight[index], convolution.bias[index]
    if convolution.scale is not None:
        weight = convolution.scale[index] * weight / np.sqrt((weight**2).sum((0, 1, 2)))
    return convolved(x, weight) + bias


def shift(net, condition, place):
    return 0 if condition is None else 10 * np.arcsinh(condition / 10) @ net.shifts.weight[:, place]


def conv_net(net, x, condition):
    for i, convolution in enumerate(net.layers[:-1]):
        x = np.tanh(layer(convolution, x) + shift(net, condition, i))
    return layer(net.layers[-1], x)


def conv_res_net(net, x, condition):
    h = layer(net.first, x) + shift(net, condition, 0)
    total = layer(net.first_skip, h)
    for i in range(2):
        inside = layer(net.blocks.inner, np.tanh(h), i) + shift(net, condition, i + 1)
        h = h + layer(net.blocks.outer, np.tanh(inside), i)
        total = total + layer(net.blocks.skip, h, i)
    return layer(net.last, np.tanh(total))


def elu_of_both(x):
    x = np.concatenate([x, -x], -1)
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def gate(x):
    value, gate = np.split(x, 2, -1)
    return value / (1 + np.exp(-gate))


def normalised(norm, x, i):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return norm.gain[i] * x + norm.bias[i]


def attended(x, heads):
    """Pixel by pixel and head by head."""
    pixels = x.reshape(-1, x.shape[-1])
    queries, keys, values = (np.split(part, heads, axis=1) for part in np.split(pixels, 3, axis=1))
    mixed = np.zeros((len(pixels), pixels.shape[1] // 3))
    size = mixed.shape[1] // heads
    for head, pixel in np.ndindex(heads, len(pixels)):
        weights = np.exp(keys[head] @ queries[head][pixel] / np.sqrt(size))
        mixed[pixel, head * size : (head + 1) * size] = weights @ values[head] / weights.sum()
    return mixed.reshape(*x.shape[:2], -1)


def gated_attention_net(net, x, condition):
    x = layer(net.first, x) + shift(net, condition, 0)
    blocks = net.blocks
    for i in range(2):
        h = layer(blocks.convolution, elu_of_both(x), i) + shift(net, condition, i + 1)
        x = normalised(blocks.convolution_norm, x + gate(layer(blocks.convolution_gate, elu_of_both(h), i)), i)
        h = attended(layer(blocks.queries_keys_values, x + net.position, i), 2)
        x = normalised(blocks.attention_norm, x + gate(layer(blocks.attention_gate, h, i)), i)
    return layer(net.last, x)


FORMULAS = {"ConvNet": conv_net, "ConvResNet": conv_res_net, "GatedAttentionNet": gated_attention_net}


@each_net
@pytest.mark.parametrize("cond_dim", [None, 2])
def test_it_is_the_formula(make, cond_dim, key):
    net = noisy(make(key, 3, 5, cond_dim=cond_dim))
    x, condition = 3 * normal(*SHAPE), None if cond_dim is None else normal(cond_dim)
    arrays = in_float64((eqx.filter(net, eqx.is_array), x, condition))
    squashed = 10 * np.arcsinh(arrays[1] / 10)
    expected = FORMULAS[type(net).__name__](arrays[0], squashed.transpose(1, 2, 0), arrays[2]).transpose(2, 0, 1)
    np.testing.assert_allclose(net(x, condition), expected, rtol=0, atol=2000 * EPS)


@each_net
def test_its_output_starts_at_0_at_no_saddle(make, key):
    net = make(key, 3, 5, cond_dim=2)
    x, condition = normal(*SHAPE), normal(2)
    assert net(x, condition).shape == (5, *SHAPE[1:])
    assert (net(1e6 * x, condition) == 0).all()
    last = eqx.filter_grad(lambda net: net(x, condition).sum())(net)
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(last))


@each_net
def test_every_parameter_every_channel_and_the_condition_count(make, key):
    net = noisy(make(key, 3, 5, cond_dim=2))
    x, condition = normal(*SHAPE), normal(2)
    weights = normal(5, *SHAPE[1:])
    grads = jax.grad(lambda args: (weights * net(*args)).sum())((x, condition))
    assert all((grad != 0).all() for grad in grads)
    grads = eqx.filter_grad(lambda net: (weights * net(x, condition)).sum())(net)
    assert all((grad != 0).any() and jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads))


@each_net
def test_a_batch_is_the_images_one_by_one(make, key):
    net = noisy(make(key, 3, 5, cond_dim=2))
    x, conditions = normal(6, *SHAPE), normal(6, 2)
    last = x.transpose(0, 2, 3, 1)
    for condition, axis in ((conditions, 0), (conditions[:1], None)):
        single = jax.vmap(net, (0, axis))(x, condition if axis == 0 else condition[0])
        np.testing.assert_allclose(net.batch(last, condition), single.transpose(0, 2, 3, 1), rtol=0, atol=500 * EPS)


@pytest.mark.parametrize(
    ("make", "reach"), [(NETS["ConvNet"], 2), (Partial(ConvResNet, width=4, depth=1, activation=jnp.tanh), 3)]
)
def test_an_output_sees_the_pixels_within_reach_and_no_others(make, reach, key):
    net = noisy(make(key, 1, 1))
    for shape in ((9, 12), (12, 9)):
        x, pixel = normal(1, *shape), (4, 5)
        seen = jax.grad(lambda x, pixel=pixel: net(x)[0][pixel])(x)[0] != 0
        rows, columns = (np.abs(np.arange(n) - at) <= reach for n, at in zip(shape, pixel, strict=True))
        np.testing.assert_array_equal(seen, np.outer(rows, columns))


def test_attention_reaches_every_pixel_and_knows_where_it_is(key):
    net = noisy(GatedAttentionNet(key, 1, 1, width=4, depth=1, heads=2, image_shape=(9, 12)))
    x = normal(1, 9, 12)
    assert (jax.grad(lambda x: net(x)[0, 4, 5])(x) != 0).all()
    # Without positions, away from the borders, an image of one colour stays one.
    flat, blind = jnp.ones((1, 9, 12)), eqx.tree_at(lambda net: net.position, net, jnp.zeros((9, 12, 4)))
    np.testing.assert_allclose(blind(flat)[0, 3:6, 3:9], blind(flat)[0, 4, 4], rtol=0, atol=100 * EPS)
    assert jnp.std(net(flat)[0, 3:6, 3:9]) > 1e-3


def test_a_weight_of_zeros_has_finite_gradients(key):
    net = noisy(ConvResNet(key, 1, 1, width=2, depth=1))
    net = eqx.tree_at(lambda net: net.blocks.inner.weight, net, jnp.zeros((1, 3, 3, 2, 2)))
    grads = eqx.filter_grad(lambda net: net(jnp.ones((1, 2, 3))).sum())(net)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_weight_normalisation_changes_no_weight_at_the_start(key):
    plain, normed = (noisy_last(ConvResNet(key, 2, 1, width=3, depth=2, weight_norm=on)) for on in (False, True))
    x = normal(2, 3, 4)
    assert plain.blocks.inner.scale is None
    assert normed.blocks.inner.scale.shape == (2, 3)
    np.testing.assert_allclose(plain(x), normed(x), rtol=0, atol=100 * EPS)


def noisy_last(net):
    return eqx.tree_at(lambda net: net.last, net, noisy(net.last))


# Convolutions.


def a_batch(n=6, height=24, width=20):
    """More pixels than the gradient of the kernel takes at a time."""
    return normal(n, height, width, 2), normal(3, 3, 2, 3), normal(n, height, width, 3)


@pytest.mark.parametrize("size", [(3, 3), (2, 4), (1, 5)])
def test_a_convolution_is_the_sum_over_its_window(size):
    x, kernel = normal(2, 5, 4, 2), normal(*size, 2, 3)
    expected = np.stack([convolved(np.asarray(image), np.asarray(kernel)) for image in x])
    np.testing.assert_allclose(convolve(x, kernel), expected, rtol=0, atol=100 * EPS)


def test_the_gradients_of_a_convolution_are_its_transposes():
    """It is linear in each argument: <g, x * k> = <dx, x> = <dk, k>, for every k and x in place of these."""
    x, kernel, g = a_batch()
    dx, dkernel = jax.jit(jax.vjp(convolve, x, kernel)[1])(g)
    for other_x, other_kernel in [(normal(*x.shape), kernel), (x, normal(*kernel.shape))]:
        y = np.stack([convolved(np.asarray(image), np.asarray(other_kernel)) for image in other_x])
        pairing = (
            (np.asarray(dx) * other_x).sum() if other_kernel is kernel else (np.asarray(dkernel) * other_kernel).sum()
        )
        np.testing.assert_allclose(pairing, (np.asarray(g) * y).sum(), rtol=0, atol=5e4 * EPS)


def test_a_convolution_has_both_modes_second_derivatives_and_maps_over_either_argument():
    x, kernel, g = normal(2, 3, 4, 2), normal(3, 3, 2, 3), normal(2, 3, 4, 3)

    def cubed(x, kernel):
        return (g * convolve(x, kernel) ** 3).sum()

    def plain(x, kernel):
        y = sum(
            jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])[:, i : i + 3, j : j + 4] @ kernel[i, j]
            for i in range(3) for j in range(3)
        )  # fmt: skip
        return (g * y**3).sum()

    def summary(f):
        tangents = (jnp.cos(x), jnp.cos(kernel))
        stack = jnp.stack([kernel, -2 * kernel])
        return (
            jax.jvp(f, (x, kernel), tangents)[1],
            jax.jvp(jax.grad(f, argnums=(0, 1)), (x, kernel), tangents)[1],
            jax.grad(lambda kernel: jax.jvp(lambda x: f(x, kernel), (x,), tangents[:1])[1])(kernel),
            jax.vmap(jax.grad(f, argnums=(0, 1)), (None, 0))(x, stack),
            jax.vmap(jax.grad(lambda x, kernel: f(x[None].repeat(2, 0), kernel), argnums=1), (0, None))(x, kernel),
        )

    for one, other in zip(
        *(jax.tree.leaves(jax.jit(summary, static_argnums=0)(f)) for f in (cubed, plain)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=2000 * EPS * np.abs(other).max())


def equations(jaxpr):
    """Every equation of a program, those of its loops included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr | Jaxpr):
                    yield from equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices have fast convolutions of every layout")
def test_all_convolutions_of_a_gradient_have_the_layout_that_is_fast_inside_loops():
    """On a CPU: channels of images last, of kernels last but one; others take some 50 times as long there."""
    x, kernel, g = a_batch()

    def loss(x, kernel):
        y, _ = jax.lax.scan(lambda x, _: (convolve(x, kernel) @ normal(3, 2), None), x, None, length=2)
        return (y * g[..., :2]).sum()

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel)
    found = [
        e.params["dimension_numbers"] for e in equations(program.jaxpr) if e.primitive.name == "conv_general_dilated"
    ]
    assert len(found) >= 3
    for numbers in found:
        assert (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def test_only_what_is_differentiated_is_convolved():
    x, kernel, g = a_batch()
    for argnum in (0, 1):
        program = jax.make_jaxpr(jax.grad(lambda *args: (g * convolve(*args)).sum(), argnums=argnum))(x, kernel)
        names = [e.primitive.name for e in equations(program.jaxpr)]
        # The one forward, whose value is not used, and the one backward.
        assert names.count("conv_general_dilated") == 2


# Trees.


@each_net
@pytest.mark.parametrize("cond_dim", [None, 2])
def test_it_builds_inside_transformations_and_is_saved_pickled_and_copied(make, cond_dim, key, tmp_path):
    make = Partial(make, in_channels=3, out_channels=5, cond_dim=cond_dim)
    net = make(key)
    shapes = eqx.filter_eval_shape(make, key)
    stack = eqx.filter_jit(eqx.filter_vmap(make))(jr.split(key, 2))
    assert jax.tree.structure(net) == jax.tree.structure(shapes) == jax.tree.structure(stack)
    for one, many in zip(*(jax.tree.leaves(eqx.filter(t, eqx.is_array)) for t in (net, stack)), strict=True):
        assert many.shape == (2, *one.shape)
        assert one.dtype == jnp.result_type(float)
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(eqx.filter(stack, eqx.is_array)))
    flowlib.save(tmp_path / "net", net)
    for again in (flowlib.load(tmp_path / "net"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert_same_tree(again, net)


@each_net
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_computes_in_the_dtype_of_its_input(make, dtype, key):
    net = cast_floats(make(key, 3, 5, cond_dim=2), dtype)
    x, condition = jax.ShapeDtypeStruct(SHAPE, dtype), jax.ShapeDtypeStruct((2,), dtype)
    assert eqx.filter_eval_shape(net, x, condition).dtype == dtype


@pytest.mark.parametrize("depth", [0, 1])
def test_few_blocks_will_do(depth, key):
    for net in (
        ConvResNet(key, 2, 3, width=4, depth=depth, cond_dim=1),
        GatedAttentionNet(key, 2, 3, width=4, depth=depth, image_shape=(1, 3), cond_dim=1),
    ):
        y = noisy(net)(normal(2, 1, 3), jnp.ones(1))
        assert (y != 0).all()


# Errors.


@each_net
def test_an_image_or_a_condition_of_another_shape_is_one_clear_line(make, key, unchecked_annotations):
    net, label = make(key, 3, 5), make.func.__name__
    conditional = make(key, 3, 5, cond_dim=2)
    for bad in ((2, 4, 2), (4, 2), (1, 3, 4, 2)):
        with pytest.raises(
            ValueError, match=rf"^{label} expected an image of shape \(3, height, width\), got \({bad[0]}, "
        ):
            net(jnp.zeros(bad))
    x = jnp.zeros(SHAPE)
    with pytest.raises(ValueError, match=rf"^{label} expected no condition, got \(2,\): see its cond_dim"):
        net(x, jnp.zeros(2))
    with pytest.raises(ValueError, match=rf"^{label} expected a condition of shape \(2,\), got none: see its cond_dim"):
        conditional(x)
    with pytest.raises(
        ValueError, match=rf"^{label} expected a condition of shape \(2,\), got \(3,\): see its cond_dim"
    ):
        conditional(x, jnp.zeros(3))


def test_attention_is_for_one_image_shape(key):
    net = NETS["GatedAttentionNet"](key, 3, 5)
    with pytest.raises(ValueError, match=r"expected images of image_shape \(4, 2\), got \(2, 4\)"):
        net(jnp.zeros((3, 2, 4)))


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        (ConvNet, {"in_channels": 0}, "in_channels must be an integer of at least 1, got 0"),
        (ConvNet, {"kernel_sizes": (3,)}, r"kernel_sizes expected two sizes at least, got \(3,\)"),
        (ConvNet, {"kernel_sizes": (3, 0)}, "kernel_sizes must be an integer of at least 1, got 0"),
        (ConvNet, {"cond_dim": 0}, "cond_dim must be an integer of at least 1, got 0"),
        (ConvResNet, {"depth": -1}, "depth must be an integer of at least 0, got -1"),
        (ConvResNet, {"out_channels": 2.0}, r"out_channels must be an integer of at least 1, got 2\.0"),
        (GatedAttentionNet, {"heads": 3}, "expected a width that is a multiple of heads=3, got 4"),
        (GatedAttentionNet, {"image_shape": (4,)}, r"image_shape expected \(height, width\), got \(4,\)"),
    ],
)
def test_a_bad_size_is_one_clear_line(kind, sizes, message, key, unchecked_annotations):
    sizes = {"in_channels": 2, "out_channels": 2, "width": 4, **sizes}
    if kind is not ConvNet:
        sizes.setdefault("depth", 1)
    if kind is GatedAttentionNet:
        sizes.setdefault("image_shape", (4, 2))
    with pytest.raises(ValueError, match=message):
        kind(key, **sizes)
