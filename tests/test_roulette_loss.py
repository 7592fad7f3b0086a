"""The estimates of `RouletteLoss`, against determinants, the exact loss and its gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree

import flowlib.bijections as bij
import flowlib.tasks
from contract_tools import FLOAT, X64, generator, perturb
from flowlib import nn
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows import residual_flow
from flowlib.train import MaximumLikelihoodLoss, RouletteLoss, fit_to_data

BASE = StandardNormal((3,))
ROWS, REPEATS = 50, 400


def numbers(*shape):
    return jnp.asarray(0.3 * generator("numbers", shape).standard_normal(shape), FLOAT)


def steep(tree):
    """Jacobians -R' S R of the networks, with R at its bound and small biases: slopes near -0.9, and a slow series."""

    def is_network(node):
        return isinstance(node, nn.LipschitzMLP)

    def steeper(node):
        if not is_network(node):
            return node
        first, biases = node.weights[0], tuple(0.1 * bias for bias in node.biases)
        return eqx.tree_at(lambda n: (n.weights, n.biases), node, ((first, -first.swapaxes(-1, -2)), biases))

    return jax.tree.map(steeper, perturb(tree, generator("roulette"), 1.5), is_leaf=is_network)


def residual(dim=3, **options):
    return steep(bij.Residual(jr.key(0), dim=dim, **{"nn_width": 6, "nn_depth": 1, **options}))


def scanned(**options):
    options = {"flow_layers": 2, "nn_width": 6, "nn_depth": 1, **options}
    flow = residual_flow(jr.key(0), base_dist=BASE, **options)
    # The units stay at the identity.
    return eqx.tree_at(lambda flow: flow.bijection.bijection, flow, replace_fn=steep)


def mixed():
    """Residual layers in both directions, alone and in chains, under units of data, with another layer between."""
    chain = bij.Invert(bij.Chain([residual(), bij.Flip((3,)), bij.Affine(jnp.ones(3), 2 * jnp.ones(3))]))
    inside = bij.Chain([residual(nn_width=2), chain])
    return Transformed(BASE, bij.InDataUnits(inside, 0.1, jnp.asarray([0.5, 1.0, 2.0])))


def embedding(label):
    return jnp.stack([label, label**2]).astype(FLOAT)


FLOWS = {
    "invert": (lambda: scanned(), None),
    "not inverted": (lambda: scanned(invert=False), None),
    "conditional": (lambda: scanned(cond_dim=2), numbers(ROWS, 2)),
    "embedded": (lambda: scanned(cond_dim=2, embedding=embedding, raw_cond_shape=()), jnp.arange(ROWS) % 3),
    "mixed": (mixed, None),
}


@eqx.filter_jit
def repeated(flow, arrays, loss, repeats=REPEATS):
    """The loss of rows and the gradient of its mean, exact and for many keys."""
    params, static = eqx.partition(flow, eqx.is_inexact_array)

    def total(params, loss, key):
        values = loss.per_row(params, static, *arrays, key=key)
        return values.mean(), values

    (_, exact), gradient = jax.value_and_grad(total, has_aux=True)(params, MaximumLikelihoodLoss(), None)

    def once(key):
        (_, values), gradient = jax.value_and_grad(total, has_aux=True)(params, loss, key)
        return values, ravel_pytree(gradient)[0]

    return exact, ravel_pytree(gradient)[0], *jax.lax.map(once, jr.split(jr.key(1), repeats))


def standard_errors_off(draws, expected):
    """How many standard errors the mean of draws is from what it should be, where they differ at all."""
    draws, expected = np.asarray(draws, np.float64), np.asarray(expected, np.float64)
    error, spread = np.abs(draws.mean(0) - expected), draws.std(0) / np.sqrt(len(draws))
    rounding = (1e-10 if X64 else 1e-4) * (1 + np.abs(expected))
    return np.maximum(error - rounding, 0) / np.maximum(spread, rounding)


@pytest.mark.parametrize("name", FLOWS)
def test_mean_of_losses_and_gradients_is_the_exact_one(name):
    make, condition = FLOWS[name]
    arrays = (numbers(ROWS, 3), *([] if condition is None else [condition]))
    exact, exact_gradient, losses, gradients = repeated(make(), arrays, RouletteLoss(exact_terms=1))
    assert np.std(losses, axis=0).min() > 0.01
    assert standard_errors_off(losses, exact).max() < 4
    assert standard_errors_off(losses.mean(1), exact.mean()) < 4
    assert standard_errors_off(gradients, exact_gradient).max() < 4
    # Not every parameter has a share in an estimate; most of them do.
    assert (np.std(gradients, axis=0) > 1e-4).mean() > 0.5


def test_estimates_of_a_layer_need_the_probabilities_of_their_terms():
    """By powers of its Jacobian: the mean is the series with, and would be far off without these weights."""
    layer, x = residual(), numbers(1, 3)
    jacobian = np.asarray(jax.jacfwd(layer.network)(x[0]), np.float64)
    assert 0.6 < np.linalg.norm(jacobian, 2) < 0.9
    k = np.arange(1, 200)
    terms = np.array([(-1) ** (i + 1) * np.trace(np.linalg.matrix_power(jacobian, i)) / i for i in k])
    reached = 0.85 ** np.maximum(k - 2, 0)
    rows = jnp.tile(x, (100_000, 1))
    _, found = layer.estimate_batch(jr.key(2), rows, exact_terms=2, stop_probability=0.15)
    exact = np.linalg.slogdet(np.eye(3) + jacobian)[1]
    np.testing.assert_allclose(terms.sum(), exact, atol=1e-8)
    assert standard_errors_off(found, exact) < 4
    for unweighted in ((terms * reached).sum(), terms[:2].sum()):
        assert standard_errors_off(found, unweighted) > 8


def test_with_many_exact_terms_only_the_signs_are_random():
    """v.log(I + J) v, one value for each pair of opposite signs; its gradient is exact where v v' is the identity."""
    layer, x = residual(lipschitz=0.5), numbers(1, 3)
    options = {"exact_terms": 40, "stop_probability": 0.5}
    _, found = layer.estimate_batch(jr.key(2), jnp.tile(x, (200, 1)), **options)
    logarithm = scipy.linalg.logm(np.eye(3) + np.asarray(jax.jacfwd(layer.network)(x[0]), np.float64))
    signs = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]])
    values = np.sort(np.einsum("si,ij,sj->s", signs, logarithm, signs))
    nearest = np.abs(np.asarray(found)[:, None] - values).argmin(1)
    np.testing.assert_allclose(found, values[nearest], atol=1e-9 if X64 else 1e-5)
    assert set(nearest) == {0, 1, 2, 3}
    flow = Transformed(
        StandardNormal((1,)), bij.Chain([residual(dim=1, lipschitz=0.5), bij.Invert(residual(dim=1, lipschitz=0.5))])
    )
    exact, exact_gradient, losses, gradients = repeated(flow, (numbers(ROWS, 1),), RouletteLoss(**options), 1)
    np.testing.assert_allclose(losses[0], exact, atol=1e-9 if X64 else 1e-5)
    np.testing.assert_allclose(gradients[0], exact_gradient, atol=1e-9 if X64 else 1e-5)


def test_rows_and_layers_have_draws_of_their_own():
    x = jnp.zeros((ROWS, 3), FLOAT)
    _, _, losses, _ = repeated(scanned(), (x,), RouletteLoss(), 2)
    assert len(np.unique(losses)) > ROWS


def test_recomputed_layers_have_the_same_estimates():
    x, loss = numbers(ROWS, 3), RouletteLoss()
    stored = repeated(scanned(), (x,), loss, 2)
    recomputed = repeated(scanned(gradient="recompute"), (x,), loss, 2)
    for one, other in zip(stored, recomputed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_nan_or_out_of_range_leaves_the_others_alone():
    x = numbers(ROWS, 3).at[1].set(jnp.nan).at[2].set(1e30)
    losses = RouletteLoss().per_row(*eqx.partition(scanned(), eqx.is_inexact_array), x, key=jr.key(0))
    assert np.isnan(losses[1])
    assert np.isfinite(np.delete(losses, [1, 2])).all()


def test_layers_of_a_scan_are_compiled_once():
    def program(flow_layers):
        params, static = eqx.partition(scanned(flow_layers=flow_layers), eqx.is_inexact_array)
        x = numbers(ROWS, 3)
        return jax.make_jaxpr(jax.grad(lambda params: RouletteLoss()(params, static, x, key=jr.key(0))))(params)

    assert len(str(program(8)).splitlines()) == len(str(program(2)).splitlines())


def test_a_fit_reaches_the_held_out_density_of_the_exact_loss():
    """Within 0.1 nats; in units of data far from standard, with weights that leave out rows of something else."""
    x = 100 + 20 * np.asarray(flowlib.tasks.two_moons(jr.key(5), 3000))
    data, test = np.concatenate([x[:2000], np.full((100, 2), 90.0)]), x[2000:]
    weights = np.concatenate([np.ones(2000), np.zeros(100)])
    flow = residual_flow(jr.key(0), base_dist=StandardNormal((2,)), flow_layers=4, nn_width=16)
    options = {"max_epochs": 15, "learning_rate": 1e-2, "max_patience": 15, "show_progress": False}
    scores = {}
    for loss in (MaximumLikelihoodLoss(), RouletteLoss()):
        fitted, _ = fit_to_data(jr.key(1), flow, data, loss_fn=loss, weights=weights, **options)
        scores[type(loss)] = fitted.log_prob(test).mean()
    normal = -np.log(2 * np.pi * np.e) - np.log(np.linalg.det(np.cov(test.T))) / 2
    assert scores[MaximumLikelihoodLoss] > normal + 0.2
    assert scores[RouletteLoss] > scores[MaximumLikelihoodLoss] - 0.1


def on(dist, **options):
    return RouletteLoss()(*eqx.partition(dist, eqx.is_inexact_array), numbers(4, 3), **options)


BAD = {
    "terms": (lambda: RouletteLoss(exact_terms=0), ValueError, "exact_terms must be an integer of at least 1, got 0"),
    "probability": (
        lambda: RouletteLoss(stop_probability=1.0),
        ValueError,
        r"expected stop_probability in \(0, 1\), got 1.0",
    ),
    "no key": (lambda: on(scanned()), ValueError, "RouletteLoss expected a key, got None"),
    "no layer": (
        lambda: RouletteLoss().check(Transformed(BASE, bij.Flip((3,))), numbers(4, 3)),
        ValueError,
        "expected a flow with a Residual, got one without. Build it with flowlib.flows.residual_flow.",
    ),
    "no flow": (lambda: RouletteLoss().check(BASE, numbers(4, 3)), TypeError, "with a Residual, got StandardNormal"),
}


@pytest.mark.parametrize(("build", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(build, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
