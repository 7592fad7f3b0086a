"""Linear maps by their PLU factors, and activation normalisation, against NumPy and a convolution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from contract_tools import EPS, FLOAT, X64, generator, perturb
from flowlib import count_parameters, freeze
from flowlib.bijections import ActNorm, InvertibleConv1x1, InvertibleLinear

TOLERANCE = 1e-10 if X64 else 1e-4


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def matrix_of(plu):
    """P L (U + diag(s)) from the fields, in NumPy."""
    packed = np.asarray(plu.packed, np.float64)
    dim = len(packed)
    permutation = np.zeros((dim, dim))
    permutation[np.arange(dim), np.asarray(plu.permutation)] = 1
    s = np.where(plu.positive, 1, -1) * np.exp(np.diag(packed))
    return permutation @ (np.tril(packed, -1) + np.eye(dim)) @ (np.triu(packed, 1) + np.diag(s))


@pytest.mark.parametrize("dim", [1, 2, 5, 20])
def test_linear_is_the_product_with_its_matrix(dim, key):
    bijection = perturb(InvertibleLinear(key, dim=dim), generator("plu", dim), 0.3 / dim)
    expected = matrix_of(bijection.plu)
    close(bijection.matrix, expected)
    x = generator("x").standard_normal(dim).astype(FLOAT)
    y, log_det = bijection.transform_and_log_det(x)
    close(y, expected @ x)
    close(log_det, np.linalg.slogdet(expected)[1])
    back, log_det = bijection.inverse_and_log_det(x)
    close(back, np.linalg.solve(expected, x))
    close(log_det, -np.linalg.slogdet(expected)[1])


def test_matrix_given_is_the_matrix_that_comes_out(key):
    init = generator("init").standard_normal((6, 6)).astype(FLOAT)
    bijection = InvertibleLinear(key, dim=6, init=init)
    close(bijection.matrix, init)
    close(bijection.transform(np.eye(6, dtype=FLOAT)[2]), init[:, 2])
    inside = eqx.filter_jit(lambda init: InvertibleLinear(key, dim=6, init=init))(init)
    close(inside.matrix, init)


def test_a_matrix_in_half_precision_stays_in_it(key):
    init = jnp.asarray([[1, 2], [4, 1]], jnp.bfloat16)
    bijection = InvertibleLinear(key, dim=2, init=init)
    assert bijection.plu.packed.dtype == jnp.bfloat16
    close(bijection.matrix, init.astype(FLOAT), 0.05)


def test_a_small_but_invertible_matrix_is_taken(key):
    init = np.array([[0, 1e-10], [1e10, 1]], FLOAT)
    bijection = InvertibleLinear(key, dim=2, init=init)
    np.testing.assert_allclose(bijection.matrix, init, rtol=1e-5)
    close(bijection.transform_and_log_det(np.ones(2, FLOAT))[1], 0, 1e-4)


def test_default_matrix_is_a_rotation_or_reflection_with_the_haar_distribution(key):
    n, dim = 3000, 3
    make = eqx.filter_jit(eqx.filter_vmap(lambda key: InvertibleLinear(key, dim=dim).matrix))
    matrices = np.asarray(make(jr.split(key, n)), np.float64)
    close(matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(dim), matrices.shape), 1e-5)
    # Without the correction of signs, LAPACK's diagonal has one sign.
    assert np.abs(matrices.mean(0)).max() < 5 / np.sqrt(n * dim)
    assert np.abs((matrices**2).mean(0) - 1 / dim).max() < 5 / np.sqrt(n)
    assert abs(np.linalg.det(matrices).mean()) < 5 / np.sqrt(n)


def test_noise_moves_neither_permutation_nor_signs(key):
    bijection = InvertibleLinear(key, dim=4)
    moved = perturb(bijection, generator("moved"), 3.0)
    assert count_parameters(bijection) == 16
    assert np.sign(np.linalg.det(matrix_of(moved.plu))) == np.sign(np.linalg.det(matrix_of(bijection.plu)))
    np.testing.assert_array_equal(moved.plu.permutation, bijection.plu.permutation)


def test_matrix_of_a_frozen_map_can_be_read(key):
    bijection = InvertibleLinear(key, dim=3)
    np.testing.assert_array_equal(freeze(bijection).matrix, bijection.matrix)


def test_conv_is_a_convolution_with_one_pixel(key):
    shape = (4, 3, 5)
    bijection = perturb(InvertibleConv1x1(key, shape=shape), generator("conv"), 0.1)
    images = jnp.asarray(generator("images").standard_normal((6, *shape)), FLOAT)
    kernel = jnp.asarray(matrix_of(bijection.plu), FLOAT)[:, :, None, None]
    expected = jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", precision="highest")
    y, log_det = jax.vmap(bijection.transform_and_log_det)(images)
    close(y, expected)
    close(log_det, np.full(6, 15 * np.linalg.slogdet(matrix_of(bijection.plu))[1]))
    close(jax.vmap(bijection.inverse)(y), images)
    close(bijection.matrix, matrix_of(bijection.plu))


def test_conv_and_linear_with_one_matrix_agree_at_each_pixel(key):
    init = generator("init").standard_normal((3, 3)).astype(FLOAT)
    image = generator("image").standard_normal((3, 2, 2)).astype(FLOAT)
    y = InvertibleConv1x1(key, shape=(3, 2, 2), init=init).transform(image)
    linear = InvertibleLinear(key, dim=3, init=init)
    close(y[:, 1, 0], linear.transform(image[:, 1, 0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda key: InvertibleLinear(key, dim=2, init=np.ones((2, 3))), r"shape \(2, 2\) as init, got shape \(2, 3\)"),
        (lambda key: InvertibleLinear(key, dim=3, init=np.eye(2)), r"shape \(3, 3\) as init, got shape \(2, 2\)"),
        (lambda key: InvertibleLinear(key, dim=2, init=np.ones((2, 2))), "invertible matrix as init, got a singular"),
        (lambda key: InvertibleLinear(key, dim=2, init=np.array([[0.1, 0.2], [0.3, 0.6]])), "got a singular"),
        (lambda key: InvertibleLinear(key, dim=2, init=np.zeros((2, 2))), "got a singular"),
        (lambda key: InvertibleLinear(key, dim=2, init=np.full((2, 2), np.nan)), "init must be finite"),
        (lambda key: InvertibleLinear(key, dim=0), "dim must be an integer of at least 1, got 0"),
        (lambda key: InvertibleConv1x1(key, shape=(3, 2)), r"shape \(channels, height, width\), got \(3, 2\)"),
        (lambda key: InvertibleConv1x1(key, shape=(3, 2, 2), init=np.eye(2)), r"InvertibleConv1x1 expected .*\(3, 3\)"),
    ],
)
def test_bad_arguments_are_one_line_errors(make, message, key, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make(key)
    assert "\n" not in str(caught.value)


def test_act_norm_shifts_and_scales_each_channel():
    loc, scale = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    norm = eqx.tree_at(
        lambda norm: (norm.loc, norm.log_scale), ActNorm((2, 3, 1)), (jnp.asarray(loc), jnp.asarray(np.log(scale)))
    )
    x = generator("x").standard_normal((2, 3, 1))
    y, log_det = norm.transform_and_log_det(x)
    close(y, (x - loc[:, None, None]) / scale[:, None, None])
    close(log_det, -3 * np.log(scale).sum())
    close(norm.inverse(x), loc[:, None, None] + scale[:, None, None] * x)


def test_act_norm_starts_as_the_identity():
    x = generator("x").standard_normal((2, 3)).astype(FLOAT)
    y, log_det = ActNorm((2, 3)).transform_and_log_det(x)
    np.testing.assert_array_equal(y, x)
    assert abs(float(log_det)) < EPS
    assert ActNorm((2, 3)).loc.shape == (2,)
    assert ActNorm().loc.shape == ()
