"""Radial and Sylvester maps, against their formulas in NumPy, SciPy's roots and planar maps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq

import flowlib.bijections as bij
from contract_tools import FLOAT, X64, generator, perturb
from flowlib.distributions import StandardNormal
from flowlib.flows import radial_flow, sylvester_flow

TOLERANCE = 1e-9 if X64 else 3e-5


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def numbers(*shape):
    return generator("numbers", shape).standard_normal(shape).astype(FLOAT)


def bounded(free):
    """The bound of the slopes, in NumPy."""
    return 0.999 * (np.log1p((np.e - 1) * np.exp(np.asarray(free, np.float64))) - 1)


@eqx.filter_jit
def both_ways(bijection, x):
    return jax.vmap(bijection.transform_and_log_det)(x), jax.vmap(bijection.inverse_and_log_det)(x)


def test_a_radial_map_is_its_formula_and_the_inverse_solves_it():
    radial = perturb(bij.Radial(jr.key(0), dim=3), generator("radial"))
    centre = np.asarray(radial.params[:3], np.float64)
    a, b_over_a = 1 + bounded(radial.params[3]), bounded(radial.params[4])
    b, x = a * b_over_a, numbers(20, 3)
    (y, log_det), (back, inverse_log_det) = both_ways(radial, x)
    r = np.linalg.norm(x - centre, axis=1)
    close(y, x + (b / (a + r))[:, None] * (x - centre))
    close(log_det, 2 * np.log(1 + b / (a + r)) + np.log(1 + b * a / (a + r) ** 2))
    t = np.linalg.norm(x - centre, axis=1)
    roots = np.array([brentq(lambda r, t=t: r + b * r / (a + r) - t, 0, t + a + abs(b), xtol=1e-14) for t in t])
    close(back, centre + (x - centre) * (roots / t)[:, None])
    close(inverse_log_det, -2 * np.log(1 + b / (a + roots)) - np.log(1 + b * a / (a + roots) ** 2))


@pytest.mark.parametrize("free", [-1e4, -3.0, 0.0, 3.0, 1e4])
def test_a_radial_map_is_invertible_however_strong_it_is(free):
    radial = bij.Radial(jr.key(0), dim=2)
    radial = eqx.tree_at(lambda b: b.params, radial, jnp.asarray([0.5, -1.0, -1.0, free], FLOAT))
    x = np.concatenate([[[0.5, -1.0]], 10.0 ** np.arange(-3, 4)[:, None] * [0.6, -0.8] + [0.5, -1.0]]).astype(FLOAT)
    y = jax.vmap(radial.transform)(x)
    back = np.asarray(jax.vmap(radial.inverse)(y))
    # Where it draws inwards the map is flat near the centre, a thousandth at least.
    np.testing.assert_allclose(back, x, rtol=100 * TOLERANCE, atol=100 * TOLERANCE)
    grads = jax.vmap(jax.grad(lambda x: radial.transform_and_log_det(x)[1]))(x)
    assert np.isfinite(grads).all()


def factors(sylvester):
    """Q, R, S and b from the fields, in NumPy."""
    (dim,), units, count = sylvester.shape, sylvester.units, sylvester.reflections
    params = np.asarray(sylvester.params, np.float64)
    q = np.eye(dim)
    for v in params[: count * dim].reshape(count, dim):
        q = q @ (np.eye(dim) - 2 * np.outer(v, v) / (v @ v))
    packed = params[count * dim : -units].reshape(units, units + 1)
    overlaps, positive = bounded(np.diag(packed, 1)), 1 + bounded(np.diag(packed))
    outer = np.triu(packed[:, 1:], 1) + np.diag(overlaps / positive)
    inner = np.tril(packed[:, :-1], -1).T + np.diag(positive)
    return q[:, :units], outer, inner, params[-units:]


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        ("orthogonal", {"rank": 2}, 2),
        ("orthogonal", {}, 4),
        ("householder", {"reflections": 3}, 3),
        ("householder", {}, 4),
        ("triangular", {}, 0),
    ],
)
def test_a_sylvester_map_is_its_formula(kind, options, count):
    sylvester = perturb(bij.Sylvester(jr.key(0), dim=4, kind=kind, **options), generator(kind))
    assert sylvester.reflections == count
    q, outer, inner, bias = factors(sylvester)
    x = numbers(20, 4)
    (y, log_det), (back, inverse_log_det) = both_ways(sylvester, x)
    a = x @ q @ inner.T + bias
    close(y, x + np.tanh(a) @ outer.T @ q.T)
    jacobian = np.eye(4) + np.einsum("dk,nk,ke->nde", q @ outer, 1 - np.tanh(a) ** 2, inner @ q.T)
    close(log_det, np.linalg.slogdet(jacobian)[1])
    a = back @ q @ inner.T + bias
    close(back + np.tanh(a) @ outer.T @ q.T, x, 10 * TOLERANCE)
    jacobian = np.eye(4) + np.einsum("dk,nk,ke->nde", q @ outer, 1 - np.tanh(a) ** 2, inner @ q.T)
    close(inverse_log_det, -np.linalg.slogdet(jacobian)[1], 10 * TOLERANCE)


def test_a_sylvester_map_of_one_unit_is_a_planar_one():
    sylvester = perturb(bij.Sylvester(jr.key(0), dim=3, kind="orthogonal", rank=1), generator("one"))
    q, outer, inner, bias = factors(sylvester)
    w, overlap = inner[0, 0] * q[:, 0], outer[0, 0] * inner[0, 0]
    # The u of a planar map before its bound, so that w . u becomes the overlap.
    free = np.log(np.expm1(overlap / 0.999 + 1)) - np.log(np.e - 1)
    u = outer[0, 0] * q[:, 0] + (free - overlap) * w / (w @ w)
    params = jnp.asarray(np.concatenate([w, u, bias]), FLOAT)
    planar = eqx.tree_at(lambda b: b.params, bij.Planar(jr.key(0), dim=3), params)
    for one, other in zip(*(both_ways(map_, numbers(5, 3)) for map_ in (sylvester, planar)), strict=True):
        close(one[0], other[0], 5 * TOLERANCE)
        close(one[1], other[1], 5 * TOLERANCE)


@pytest.mark.parametrize("constructor", [radial_flow, sylvester_flow])
def test_layers_of_a_new_flow_have_unlike_gradients(constructor):
    """Else they would stay alike for ever."""
    flow = constructor(jr.key(0), base_dist=StandardNormal((3,)), flow_layers=2)
    x = 2 + numbers(50, 3)
    grads = eqx.filter_grad(lambda flow: flow.log_prob(x).mean())(flow)
    first, second = jax.tree.leaves(eqx.filter(grads.bijection.bijection, eqx.is_inexact_array))[0]
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bij.Radial(jr.key(0), dim=0), "dim must be an integer of at least 1, got 0"),
        (lambda: bij.Sylvester(jr.key(0), dim=2, kind="lu"), "one of .*'triangular'.*, got 'lu'"),  # pyright: ignore
        (lambda: bij.Sylvester(jr.key(0), dim=2, kind="orthogonal", rank=3), "rank of at most dim, 2, got 3"),
        (lambda: bij.Sylvester(jr.key(0), dim=2, rank=1), "rank with kind='orthogonal' only, got 1"),
        (
            lambda: bij.Sylvester(jr.key(0), dim=2, kind="triangular", reflections=1),
            "reflections with kind='householder' only, got 1",
        ),
        (
            lambda: sylvester_flow(jr.key(0), base_dist=StandardNormal((2,)), reflections=0),
            "reflections must be an integer of at least 1, got 0",
        ),
        (
            lambda: sylvester_flow(jr.key(0), base_dist=StandardNormal((2,)), gradient="rebuild"),
            "cannot rebuild the inputs of Sylvester",
        ),
        (lambda: radial_flow(jr.key(0), base_dist=StandardNormal((2,)), cond_dim=0), "cond_dim must be .*, got 0"),
    ],
)
def test_bad_arguments_are_one_line_errors(make, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
