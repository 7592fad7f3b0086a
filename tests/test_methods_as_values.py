"""Methods that are handed on: to other processes, and to transformations that they have no rule for."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from multiprocessing import get_context

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from flowlib.bijections import Gradient
from flowlib.distributions import Mixture, Normal, StandardNormal, VmapMixture
from flowlib.flows import coupling_flow

KEY = jr.key(0)
X = np.array([[0.1, 0.2], [1.0, -1.0]], jnp.result_type(float))


def flow(gradient: Gradient = "store"):
    return coupling_flow(KEY, base_dist=StandardNormal((2,)), flow_layers=2, nn_width=3, gradient=gradient)


def test_bound_methods_pickle_and_copy():
    dist = flow()
    for method in (dist.log_prob, dist.to_base, partial(dist.log_prob, condition=None)):
        for again in (pickle.loads(pickle.dumps(method)), deepcopy(method)):
            np.testing.assert_array_equal(again(X), method(X))
    transform = pickle.loads(pickle.dumps(dist.bijection.transform))
    np.testing.assert_array_equal(transform(X[0]), dist.bijection.transform(X[0]))
    sample = pickle.loads(pickle.dumps(dist.sample))
    np.testing.assert_array_equal(sample(KEY, 2), dist.sample(KEY, 2))


def test_a_pool_maps_a_density():
    dist = flow()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(dist.log_prob, X))
    np.testing.assert_allclose(found, dist.log_prob(X), rtol=1e-6)


class Other(eqx.Module):
    """No module of flowlib: it pickles as before."""

    number: int

    def plus(self, other):
        return self.number + other


def test_methods_of_other_modules_pickle_as_before():
    assert pickle.loads(pickle.dumps(Other(3).plus))(4) == 7


def test_forward_mode_through_rebuilding_says_what_to_do():
    rebuilt = flow("rebuild")
    message = r'gradient="rebuild".* reverse mode only .*Use gradient="store" or "recompute"'
    for forward in (
        lambda: jax.jvp(rebuilt.log_prob, (X[0],), (X[0],)),
        lambda: jax.jacfwd(rebuilt.log_prob)(X[0]),
        lambda: jax.jit(jax.jacfwd(rebuilt.log_prob))(X[0]),
        lambda: jax.linearize(rebuilt.log_prob, X[0])[1](X[0]),
    ):
        with pytest.raises(TypeError, match=message):
            forward()
    # Forward over reverse mode, and reverse mode by rows, are those of the layers stored.
    for transform in (jax.hessian, lambda f: jax.vmap(jax.grad(f))):
        x = X[0] if transform is jax.hessian else X
        np.testing.assert_allclose(transform(rebuilt.log_prob)(x), transform(flow().log_prob)(x), atol=1e-5)


@pytest.mark.parametrize("kind", ["unlike", "alike"])
def test_a_weight_of_zero_has_the_right_gradient_inside_jit(kind):
    locs = np.array([0.0, 1.0, -2.0])

    def log_prob(weights, x=0.3):
        if kind == "unlike":
            return Mixture([Normal(loc) for loc in locs], weights).log_prob(x)
        return VmapMixture(eqx.filter_vmap(Normal)(jnp.asarray(locs, float)), weights).log_prob(x)

    weights = jnp.array([0.0, 0.25, 0.5])
    value, grads = jax.jit(jax.value_and_grad(log_prob))(weights)
    densities = scipy.stats.norm.pdf(0.3, locs)
    total = np.asarray(weights) @ densities
    np.testing.assert_allclose(value, np.log(total / 0.75), rtol=1e-5)
    # Of log(sum w p / sum w).
    np.testing.assert_allclose(grads, densities / total - 1 / 0.75, rtol=1e-4)
    with pytest.raises(ValueError, match="weights must be positive"):
        log_prob(weights)
