"""Densities at the ends of their supports, and points as far from a set as rounded data are."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import flowlib.distributions as dst
from flowlib.bijections import Invert, Stereographic, StickBreaking
from flowlib.flows import simplex_flow, sphere_flow

FLOAT = jnp.result_type(float)


def at(dist, *points):
    return np.asarray(dist.log_prob(np.asarray(points, FLOAT)))


def test_dirichlet_on_the_edges_of_the_simplex():
    # SciPy has no value where a part of 0 has a concentration below 1.
    np.testing.assert_allclose(at(dst.Dirichlet(np.ones(2)), [0, 1], [1, 0]), [0, 0], atol=1e-6)
    np.testing.assert_allclose(at(dst.Dirichlet(np.ones(3)), [0, 0.5, 0.5]), np.log(2), rtol=1e-5)
    assert at(dst.Dirichlet(np.full(3, 0.5)), [0, 0.5, 0.5], [0, 1, 0]).tolist() == [np.inf, np.inf]
    for a in ([2.0, 3.0, 1.5], [1.0, 3.0, 2.0], [1.0, 1.0, 4.0]):
        for x in ([0, 0.25, 0.75], [0.25, 0.75, 0], [0, 0, 1]):
            expected = stats.dirichlet(a).logpdf(x)
            np.testing.assert_allclose(
                at(dst.Dirichlet(np.array(a)), x), expected, rtol=1e-5, atol=1e-6, err_msg=f"{a} {x}"
            )
    # A factor of 0 and one of infinity.
    assert at(dst.Dirichlet(np.array([0.5, 2.0, 1.0])), [0, 0, 1]) == -np.inf
    assert at(dst.Dirichlet(np.ones(2)), [-0.1, 1.1], [0.2, 0.7]).tolist() == [-np.inf, -np.inf]


def test_the_gradient_on_an_edge_of_the_simplex():
    x = jnp.asarray([0.0, 0.25, 0.75])
    grads = jax.grad(lambda a: dst.Dirichlet(a).log_prob(x))(jnp.ones(3))
    # digamma(3) - digamma(1) + log x; the first goes with log 0.
    np.testing.assert_allclose(grads[1:], 1.5 + np.log([0.25, 0.75]), rtol=1e-4)
    assert grads[0] < -50
    grads = jax.vmap(jax.grad(dst.Dirichlet(np.array([1.0, 2.0, 3.0])).log_prob))(
        jnp.stack([x, jnp.array([0.5, 0, 0.5])])
    )
    assert not np.isnan(grads).any()


# A family, its arguments, the one of SciPy, and its ends.
ENDS = [
    *((dst.Beta, ab, stats.beta(*ab), (0, 1)) for ab in ((1.0, 1.0), (1.0, 2.0), (2.0, 1.0), (3.0, 2.0))),
    *((dst.Gamma, (a, 2.0), stats.gamma(a, scale=2.0), (0,)) for a in (0.5, 1.0, 1.5)),
    (dst.Exponential, (3.0,), stats.expon(scale=1 / 3), (0,)),
    (dst.Uniform, (-1.5, 2.5), stats.uniform(-1.5, 4.0), (-1.5, 2.5)),
    (dst.LogNormal, (0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3)), (0,)),
    (partial(dst.Truncated, dst.Normal(), -1.0, 2.0), (), stats.truncnorm(-1, 2), (-1, 2)),
    (partial(dst.Truncated, dst.Exponential(), 0.0, 2.0), (), stats.truncexpon(2.0), (0, 2)),
    (lambda: dst.Folded(dst.Normal()), (), stats.halfnorm(), (0,)),
    (lambda: dst.VmapMixture(eqx.filter_vmap(dst.Exponential)(jnp.array([3.0, 3.0])), jnp.ones(2)), (),
     stats.expon(scale=1 / 3), (0,)),
]  # fmt: skip


def test_densities_at_the_ends_are_those_of_scipy():
    for family, arguments, reference, ends in ENDS:
        x, dist = np.asarray(ends, FLOAT), family(*arguments)
        expected = reference.logpdf(x.astype(np.float64))
        np.testing.assert_allclose(dist.log_prob(x), expected, rtol=2e-6, atol=1e-6, err_msg=str(dist))
        beyond = np.array([min(ends) - 0.1, *(max(ends) + 0.1 for _ in ends[1:])], FLOAT)
        assert np.isneginf(dist.log_prob(beyond)).all(), dist


def rounded(rows, decimals):
    return np.round(np.asarray(rows, np.float64), decimals).astype(FLOAT)


@pytest.mark.parametrize("decimals", [4, 6])
def test_rounded_data_are_on_the_simplex_and_the_sphere(decimals, key):
    rng = np.random.default_rng(0)
    for parts in (3, 12):
        x = rounded(np.maximum(rng.dirichlet(np.full(parts, 3.0), 300), 1e-3), 9)
        x = rounded(x / x.sum(1, keepdims=True), decimals)
        dist = dst.Dirichlet(np.full(parts, 3.0))
        expected = stats.dirichlet(np.full(parts, 3.0)).logpdf((x / x.sum(1, keepdims=True, dtype=np.float64)).T)
        np.testing.assert_allclose(dist.log_prob(x), expected, atol=0.05)
    flow = simplex_flow(key, dim=3, flow_layers=1, nn_width=4)
    x = rounded(rng.dirichlet(np.full(3, 3.0), 100), decimals)
    assert np.isfinite(flow.log_prob(x)).all()
    directions = rng.standard_normal((100, 3))
    directions = rounded(directions / np.linalg.norm(directions, axis=1, keepdims=True), decimals)
    np.testing.assert_allclose(dst.UniformSphere(3).log_prob(directions), -np.log(4 * np.pi), rtol=1e-6)
    assert np.isfinite(sphere_flow(key, dim=3, flow_layers=1, nn_width=4).log_prob(directions)).all()
    for base, bijection, points in (
        (dst.StandardNormal((2,)), StickBreaking(3), x),
        (dst.StandardNormal((2,)), Stereographic(2), directions),
    ):
        exact = points / (points.sum(1, keepdims=True) if bijection.codomain.kind == "simplex" else
                          np.linalg.norm(points, axis=1, keepdims=True))  # fmt: skip
        pushed = dst.Transformed(base, bijection)
        np.testing.assert_allclose(pushed.log_prob(points), pushed.log_prob(exact), atol=0.02)


def test_what_is_no_rounding_is_outside():
    assert np.isneginf(dst.Dirichlet(np.ones(3)).log_prob(np.array([0.3, 0.3, 0.398])))
    assert np.isneginf(dst.UniformSphere(3).log_prob(np.array([0.0, 0.0, 1.002])))
    flow = dst.Transformed(dst.Dirichlet(np.ones(3)), Invert(StickBreaking(3)))
    assert np.isfinite(flow.log_prob(flow.sample(jr.key(0), 5))).all()
