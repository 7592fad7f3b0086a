"""Linear maps by their factors, against NumPy and SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.linalg import expm

import contract_tools as tools
import flowlib.bijections as bij
from contract_tools import FLOAT, X64, generator, perturb
from flowlib import count_parameters

TOLERANCE = 1e-10 if X64 else 2e-5


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def numbers(*shape):
    return generator("numbers", shape).standard_normal(shape).astype(FLOAT)


def reflection(vector):
    vector = np.asarray(vector, np.float64)
    return np.eye(len(vector)) - 2 * np.outer(vector, vector) / (vector @ vector)


def packed_orthogonal(packed):
    """The product of the reflections that LAPACK packs below the diagonal."""
    dim = len(packed)
    product = np.eye(dim)
    for i in range(dim - 1):
        product = product @ reflection(np.eye(dim)[i] + np.tril(packed, -1)[:, i])
    return product


def by_hand(bijection):
    """The matrix from the fields and the formula of the docstring, in float64."""
    if isinstance(bijection, bij.HouseholderProduct):
        product = np.eye(bijection.shape[0])
        for vector in bijection.vectors:
            product = reflection(vector) @ product
        return product
    if isinstance(bijection, bij.Rotation):
        (dim,) = bijection.shape
        a = np.zeros((dim, dim))
        a[np.tril_indices(dim, -1)] = bijection.skew
        a, identity = a - a.T, np.eye(dim)
        return expm(a) if bijection.kind == "exponential" else np.linalg.inv(identity - a) @ (identity + a)
    if isinstance(bijection, bij.DiagonalLowRank):
        packed = np.asarray(bijection.packed, np.float64)
        dim, rank = packed.shape
        h = np.eye(dim)
        for vector in bijection.vectors:
            h = h @ reflection(vector)
        small = packed[:rank]
        c = (np.tril(small, -1) + np.eye(rank)) @ (np.triu(small, 1) + np.diag(np.exp(np.diag(small))))
        u, v = h @ np.concatenate([c - np.eye(rank), packed[rank:]]), h[:, :rank]
        close(np.eye(rank) + v.T @ u, c)
        return np.diag(np.exp(np.asarray(bijection.log_scale, np.float64))) @ (np.eye(dim) + u @ v.T)
    packed = np.asarray(bijection.packed, np.float64)
    diagonal = np.diag(np.where(bijection.positive, 1, -1) * np.exp(np.diag(packed)))
    if isinstance(bijection, bij.QRLinear):
        return packed_orthogonal(packed) @ (np.triu(packed, 1) + diagonal)
    return packed_orthogonal(packed) @ diagonal @ packed_orthogonal(packed.T).T


def maps(dim, key):
    """Of each class, with random parameters."""
    made = [
        bij.HouseholderProduct(numbers(4, dim)),
        bij.Rotation(dim),
        bij.Rotation(dim, kind="exponential"),
        bij.QRLinear(dim),
        bij.SVDLinear(dim),
        bij.DiagonalLowRank(key, dim=dim, rank=min(dim, 3)),
    ]
    return [perturb(bijection, generator("noise", i), 1.5 / dim) for i, bijection in enumerate(made)]


# Compiled whole: a matrix alone is an operation after another, each of them a program.
matrix_of = eqx.filter_jit(lambda bijection: bijection.matrix)


@eqx.filter_jit
def both_ways(bijections, x):
    return [(b.matrix, b.transform_and_log_det(x), b.inverse_and_log_det(x)) for b in bijections]


def test_each_map_is_the_matrix_of_its_formula(key):
    x, bijections = numbers(6), maps(6, key)
    for bijection, found in zip(bijections, both_ways(bijections, x), strict=True):
        expected = by_hand(bijection)
        matrix, (y, log_det), (back, inverse_log_det) = found
        close(matrix, expected)
        close(y, expected @ x)
        close(log_det, np.linalg.slogdet(expected)[1])
        close(back, np.linalg.solve(expected, x), 10 * TOLERANCE)
        close(inverse_log_det, -np.linalg.slogdet(expected)[1])


def test_a_product_of_reflections_is_the_chain_of_them():
    vectors = numbers(3, 4)
    chain = bij.Chain([bij.Householder(vector) for vector in vectors])
    close(bij.HouseholderProduct(vectors).transform(numbers(4)), chain.transform(numbers(4)))


def test_many_nearly_parallel_reflections_lose_no_digits():
    rng = generator("parallel")
    for spread in (0.0, 1e-6, 1e-3):
        vectors = (np.ones(8) + spread * rng.standard_normal((40, 8))).astype(FLOAT)
        bijection = bij.HouseholderProduct(vectors)
        close(matrix_of(bijection), by_hand(bijection), 20 * TOLERANCE)


def test_a_reflection_whose_vector_became_zero_does_nothing():
    bijection = bij.HouseholderProduct(numbers(2, 3))
    bijection = eqx.tree_at(lambda b: b.vectors, bijection, bijection.vectors.at[0].set(0))
    close(matrix_of(bijection), reflection(bijection.vectors[1]))
    grads = eqx.filter_grad(lambda b: b.transform(numbers(3)).sum())(bijection)
    assert np.isfinite(grads.vectors).all()


@pytest.mark.parametrize("size", [0.1, 10.0, 300.0])
def test_rotations_stay_orthogonal_however_large_their_numbers(size):
    for kind in ("cayley", "exponential"):
        bijection = perturb(bij.Rotation(5, kind=kind), generator(kind), size)
        matrix = np.asarray(matrix_of(bijection), np.float64)
        close(matrix @ matrix.T, np.eye(5), (1 + size) * TOLERANCE)
        close(np.linalg.det(matrix), 1, (1 + size) * TOLERANCE)


def test_a_plane_turns_by_the_angle_that_the_exponential_was_given():
    turn = eqx.tree_at(lambda b: b.skew, bij.Rotation(2, kind="exponential"), jnp.asarray([0.7], FLOAT))
    close(turn.transform(np.array([1, 0], FLOAT)), [np.cos(0.7), np.sin(0.7)])
    turn = eqx.tree_at(lambda b: b.skew, bij.Rotation(2), jnp.asarray([np.tan(0.35)], FLOAT))
    close(turn.transform(np.array([1, 0], FLOAT)), [np.cos(0.7), np.sin(0.7)])


@pytest.mark.parametrize("make", [bij.QRLinear, bij.SVDLinear], ids=lambda make: make.__name__)
def test_matrix_given_is_the_matrix_that_comes_out(make, key):
    zeros_below = np.triu(numbers(4, 4)) + 3 * np.eye(4)
    inits = [
        numbers(4, 4),
        -np.eye(4),
        np.eye(4)[::-1],
        np.diag([1.0, -2.0, 3.0, 4.0]),
        zeros_below,
        np.array([[-2.0]]),
    ]
    inside = eqx.filter_jit(lambda init: make(len(init), init=init))
    for init in inits:
        init = init.astype(FLOAT)
        bijection = make(len(init), init=init)
        close(matrix_of(bijection), init)
        assert count_parameters(bijection) == init.size
    tools.assert_same_tree(inside(inits[0].astype(FLOAT)), make(4, init=inits[0].astype(FLOAT)))
    half = make(2, init=jnp.asarray([[1, 2], [4, 1]], jnp.bfloat16))
    assert half.packed.dtype == jnp.bfloat16


@eqx.filter_jit
def matrices_and_gradients(bijections, target):
    def total(bijections):
        matrices = [bijection.matrix for bijection in bijections]
        return sum((matrix * target).sum() for matrix in matrices), matrices

    grads, matrices = eqx.filter_grad(total, has_aux=True)(bijections)
    return matrices, grads


def test_maps_start_as_the_identity_and_their_gradients_leave_it(key):
    bijections = [
        bij.QRLinear(4),
        bij.SVDLinear(4),
        bij.Rotation(4),
        bij.Rotation(4, kind="exponential"),
        bij.DiagonalLowRank(key, dim=4, rank=2),
        bij.InvertibleLinear(key, dim=4, init=np.eye(4)),
    ]
    for matrix, grads in zip(*matrices_and_gradients(bijections, numbers(4, 4)), strict=True):
        close(matrix, np.eye(4))
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(eqx.filter(grads, eqx.is_inexact_array))) > 1e-3


def test_lu_without_a_permutation_is_kept_by_an_identity_as_init(key):
    bijection = perturb(bij.InvertibleLinear(key, dim=5, init=np.eye(5)), generator("lu"), 0.5)
    np.testing.assert_array_equal(bijection.plu.permutation, np.arange(5))
    matrix = np.asarray(matrix_of(bijection), np.float64)
    minors = [np.linalg.det(matrix[:i, :i]) for i in range(1, 6)]
    assert min(minors) > 0


def test_determinant_of_a_badly_conditioned_map_stays_exact():
    """The log-det is a sum of parameters; the matrix by itself would have lost it."""
    scales = np.array([-30.0, 0.0, 30.0], FLOAT)
    bijection = eqx.tree_at(lambda b: b.packed, bij.SVDLinear(3), jnp.asarray(np.diag(scales)) + 0.3 * (1 - np.eye(3)))
    bijection = jax.tree.map(lambda a: a.astype(FLOAT) if eqx.is_inexact_array(a) else a, bijection)
    assert abs(float(bijection.transform_and_log_det(np.ones(3, FLOAT))[1])) < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bij.HouseholderProduct(np.ones(3)), r"shape \(count, dim\), got shape \(3,\)"),
        (lambda: bij.HouseholderProduct(np.ones((0, 3))), r"shape \(count, dim\), got shape \(0, 3\)"),
        (lambda: bij.HouseholderProduct(np.eye(3)[:, :2]), "rows other than zero, got 0"),
        (lambda: bij.HouseholderProduct(np.full((1, 2), np.nan)), "params must be finite"),
        (lambda: bij.Rotation(0), "dim must be an integer of at least 1, got 0"),
        (lambda: bij.Rotation(2, kind="euler"), "one of .*'exponential'.*, got 'euler'"),  # pyright: ignore
        (lambda: bij.QRLinear(2, init=np.ones((2, 2))), "QRLinear expected an invertible matrix as init"),
        (lambda: bij.SVDLinear(2, init=np.eye(3)), r"shape \(2, 2\) as init, got shape \(3, 3\)"),
        (lambda: bij.DiagonalLowRank(jr.key(0), dim=2, rank=3), "rank of at most dim, 2, got 3"),
        (lambda: bij.DiagonalLowRank(jr.key(0), dim=2, rank=0), "rank must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_one_line_errors(make, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
