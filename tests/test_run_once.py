"""What is compiled without optimisations takes no derivatives, which have been seen to be wrong there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib import flows
from flowlib._run_once import compiles_quickly, run_once
from flowlib.distributions import StandardNormal, init_from_data
from flowlib.train import fit_ensemble_to_data, fit_to_data
from train_tools import gaussian

TAKES_DERIVATIVES = ["grad", "value_and_grad", "vjp", "jvp", "linearize", "jacfwd", "jacrev", "hessian"]


@pytest.fixture
def _no_derivatives(monkeypatch):
    for name in TAKES_DERIVATIVES:
        real = getattr(jax, name)

        def guarded(*args, real=real, name=name, **kwargs):
            assert not compiles_quickly(), f"jax.{name} in what is compiled without optimisations"
            return real(*args, **kwargs)

        monkeypatch.setattr(jax, name, guarded)
    jax.clear_caches()


@pytest.mark.usefixtures("_no_derivatives")
def test_nothing_that_runs_once_takes_a_derivative():
    # Guards what is below: it does see a derivative.
    with pytest.raises(AssertionError, match=r"jax\.grad in"):
        run_once(lambda x: jax.grad(jnp.sin)(x))(jnp.ones(()))
    base, rows = StandardNormal((2,)), np.random.default_rng(0).normal(size=(30, 2))
    arguments = {"base_dist": base, "flow_layers": 2, "nn_width": 4}
    made = flows.masked_autoregressive_flow(jr.key(0), **arguments)
    init_from_data(made, jnp.asarray(rows, jnp.result_type(float)))
    fit_to_data(jr.key(1), gaussian(), rows, max_epochs=1, show_progress=False)
    fit_to_data(jr.key(1), gaussian(), [(rows,)], max_epochs=1, show_progress=False)
    fit_ensemble_to_data(jr.key(1), lambda key: gaussian(), rows, members=2, max_epochs=1, show_progress=False)


def test_a_derivative_of_what_runs_once_is_compiled_well():
    levels = []

    @run_once
    def function(x):
        levels.append(compiles_quickly())
        return jnp.sin(x).sum()

    x = jnp.linspace(0.1, 0.9, 5)
    function(x)
    np.testing.assert_allclose(jax.grad(function)(x), np.cos(x), rtol=1e-5)
    np.testing.assert_allclose(eqx.filter_jit(jax.grad(function))(x + 1), np.cos(x + 1), rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(function, (x,), (jnp.ones(5),))[1], np.cos(x).sum(), rtol=1e-5)
    # A trace may be shared, but never one of an unoptimised program with another.
    assert levels[0]
    assert not any(levels[1:])
