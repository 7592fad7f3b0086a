"""Continuous flows: their equation, its solver, and the losses that are made for them."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from jaxtyping import Array

from contract_tools import EPS
from flowlib import flows
from flowlib.bijections import (
    Affine,
    Chain,
    ContinuousFlow,
    Flip,
    InDataUnits,
    Invert,
    Scan,
    backward_batch,
    forward_batch,
)
from flowlib.distributions import Normal, StandardNormal, Transformed
from flowlib.nn import TimeMLP
from flowlib.train import FlowMatchingLoss, HutchinsonLoss, fit_to_data

X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
MATRIX = np.array([[0.3, -1.1], [0.8, -0.4]])
ROWS = np.random.default_rng(0).standard_normal((5, 2))
POINTS = jnp.asarray(ROWS)


class Linear(eqx.Module):
    """dx/dt = A x + b, with a closed form; b is the condition where there is one."""

    matrix: Array

    def __call__(self, t, x, condition):
        return self.matrix.astype(x.dtype) @ x + (0 if condition is None else condition.astype(x.dtype))


class Accelerating(eqx.Module):
    """dx/dt = 2 rate t x, so that x(1) = exp(rate) x(0); beyond 100 it has no value."""

    rate: Array

    def __call__(self, t, x, condition):
        return jnp.where(jnp.abs(x) < 100, 2 * self.rate * t * x, jnp.nan)


def linear(**options):
    return ContinuousFlow(Linear(jnp.asarray(MATRIX)), 2, **options)


def gradient(flow, x):
    def loss(flow):
        y, log_det = forward_batch(flow, x)
        return (y**2).sum() + log_det.value.sum()

    return eqx.filter_jit(eqx.filter_grad(loss))(flow)


def matched(loss, flow, x, key=None):
    return loss.per_row(*eqx.partition(flow, eqx.is_inexact_array), x, key=jr.key(3) if key is None else key)


def test_a_linear_field_gives_the_matrix_exponential_and_the_trace():
    y, log_det = forward_batch(linear(), POINTS)
    np.testing.assert_allclose(y, ROWS @ scipy.linalg.expm(MATRIX).T, atol=1e-8 if X64 else 1e-5)
    np.testing.assert_allclose(log_det.value, np.trace(MATRIX), atol=1e-8 if X64 else 1e-5)
    x, back = backward_batch(linear(), y)
    np.testing.assert_allclose(x, ROWS, atol=1e-8 if X64 else 1e-5)
    np.testing.assert_allclose(back.value, -np.trace(MATRIX), atol=1e-8 if X64 else 1e-5)


def test_the_field_sees_the_condition_of_its_row():
    """dx/dt = A x + b has the end exp(A) x + A^-1 (exp(A) - 1) b."""
    b = np.random.default_rng(1).standard_normal((5, 2))
    y, _ = forward_batch(linear(cond_shape=2), POINTS, jnp.asarray(b))
    ends = scipy.linalg.expm(MATRIX)
    np.testing.assert_allclose(y, ROWS @ ends.T + b @ np.linalg.solve(MATRIX, ends - np.eye(2)).T, atol=1e-5)


@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_the_gradient_is_that_of_the_matrix_exponential(adjoint):
    def exact(matrix):
        return ((POINTS @ jax.scipy.linalg.expm(matrix).T) ** 2).sum() + len(ROWS) * jnp.trace(matrix)

    expected = jax.grad(exact)(jnp.asarray(MATRIX))
    found = gradient(linear(adjoint=adjoint, max_steps=64), POINTS).field.matrix
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_row_that_fails_is_nan_and_leaves_the_others_alone():
    """In value, log-det and gradient; a field without a value, too few steps, and an event that is not finite."""
    flow = ContinuousFlow(Accelerating(jnp.asarray(1.0)), 1, max_steps=64)
    x = jnp.asarray([[0.5], [80.0], [jnp.nan], [1.0]])
    y, log_det = forward_batch(flow, x)
    np.testing.assert_array_equal(np.isnan(y[:, 0]), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(log_det.value), [False, True, True, False])
    np.testing.assert_allclose(y[0], 0.5 * np.e, rtol=1e-5)

    def total(rate, rows):
        y, _ = forward_batch(eqx.tree_at(lambda flow: flow.field.rate, flow, rate), rows)
        return jnp.where(jnp.isnan(y), 0, y).sum()

    # d/drate of exp(rate) (0.5 + 1).
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(1.0), x), 1.5 * np.e, rtol=1e-4)
    short = ContinuousFlow(Linear(jnp.asarray(30 * MATRIX)), 2, max_steps=4)
    assert np.isnan(Transformed(StandardNormal((2,)), short).log_prob(ROWS[0]))
    loud = ContinuousFlow(short.field, 2, max_steps=4, throw=True)
    with pytest.raises(RuntimeError, match="more than max_steps=4 steps"):
        loud.transform(ROWS[0])


def test_draws_with_densities_are_those_without_and_have_their_log_prob():
    flow = flows.ffjord(jr.key(0), base_dist=StandardNormal((2,)), nn_width=8)
    arrays, rest = eqx.partition(flow, eqx.is_inexact_array)
    rng = np.random.default_rng(2)
    arrays = jax.tree.map(lambda a: a + jnp.asarray(rng.standard_normal(a.shape), a.dtype), arrays)
    flow = eqx.combine(arrays, rest)
    x, log_prob = flow.sample_and_log_prob(jr.key(1), 64)
    np.testing.assert_allclose(flow.log_prob(x), log_prob, atol=1e-3)
    np.testing.assert_allclose(flow.sample(jr.key(1), 64), x, rtol=20 * EPS, atol=20 * EPS)
    assert np.abs(log_prob - StandardNormal((2,)).log_prob(x)).max() > 0.1


DERIVATIVES = []


@jax.custom_jvp
def push(matrix, x):
    return matrix.astype(x.dtype) @ x


@push.defjvp
def _push_jvp(primals, tangents):
    DERIVATIVES.append(None)
    return jax.jvp(push.fun, primals, tangents)


class Watched(Linear):
    """dx/dt = A x, and a note of each derivative that is traced."""

    def __call__(self, t, x, condition):
        return push(self.matrix, x)


def test_draws_are_solved_for_without_the_divergence():
    one = ContinuousFlow(Watched(jnp.asarray(MATRIX)), 2)
    layer = Chain([one, Flip((2,))])
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]) if eqx.is_inexact_array(leaf) else leaf, layer)
    flow = Transformed(StandardNormal((2,)), Scan(stack))
    z = StandardNormal((2,)).sample(jr.key(1), 5)
    step = scipy.linalg.expm(MATRIX)[::-1]
    expected = np.asarray(z) @ (step @ step).T
    np.testing.assert_allclose(flow.sample(jr.key(1), 5), expected, atol=1e-4)
    np.testing.assert_allclose(flow.from_base(z), expected, atol=1e-4)
    np.testing.assert_allclose(flow.to_base(jnp.asarray(expected, float)), z, atol=1e-4)
    solution = one.follow(z[0], probe=z[0], log_det=False)
    assert np.isnan(solution.log_det)
    assert solution.energy is None
    assert not DERIVATIVES
    np.testing.assert_allclose(
        flow.log_prob(z), StandardNormal((2,)).log_prob(flow.to_base(z)) - 2 * np.trace(MATRIX), atol=1e-4
    )
    assert DERIVATIVES


def test_hutchinsons_estimates_have_the_exact_loss_as_their_mean():
    """Of a linear field with A + A' not diagonal, over the four probes there are; not every estimate is exact."""
    flow = Transformed(StandardNormal((2,)), linear())
    x = jnp.asarray(ROWS[:1])
    probes = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    found = jax.vmap(lambda probe: linear().follow(x[0], backwards=True, probe=probe).log_det)(probes)
    np.testing.assert_allclose(found.mean(), -np.trace(MATRIX), atol=1e-5)
    assert np.ptp(found) > 0.1
    losses = matched(HutchinsonLoss(), flow, jnp.tile(x, (400, 1)))
    assert len(np.unique(np.round(losses, 3))) == 2
    assert abs(losses.mean() + flow.log_prob(x[0])) < 4 * losses.std() / 20


def test_hutchinsons_estimates_reach_into_the_layers_of_a_scan():
    """Two linear fields, each before a flip, under an inverse: the sum of their traces, and their energies too."""
    layer = Chain([linear(), Flip((2,))])
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]) if eqx.is_inexact_array(leaf) else leaf, layer)
    flow = Transformed(StandardNormal((2,)), Invert(Scan(stack)))
    x = jnp.tile(POINTS[:1], (400, 1))
    losses = matched(HutchinsonLoss(), flow, x)
    assert len(np.unique(np.round(losses, 3))) == 4
    assert abs(losses.mean() + flow.log_prob(x[0])) < 4 * losses.std() / 20
    costly = matched(HutchinsonLoss(kinetic=1.0), flow, x)
    first, second = linear().follow(x[0], probe=x[0]), linear()
    after = first.x[::-1]
    second = eqx.tree_at(lambda flow: flow.field.matrix, second, 0.5 * linear().field.matrix).follow(after, probe=after)
    np.testing.assert_allclose(costly - losses, (first.energy + second.energy) / 2, rtol=1e-4)


def test_kinetic_energy_is_that_of_the_path():
    """dx/dt = x ends at x with the start x / e, and has the energy x^2 (1 - e^-2) / 2."""
    flow = Transformed(StandardNormal((1,)), Invert(ContinuousFlow(Linear(-jnp.ones((1, 1))), 1)))
    x = jnp.asarray([[0.5], [2.0]])
    plain, costly = (matched(HutchinsonLoss(kinetic=kinetic), flow, x) for kinetic in (0.0, 3.0))
    np.testing.assert_allclose(plain, -flow.log_prob(x), atol=1e-5)
    np.testing.assert_allclose(costly - plain, 3 * x[:, 0] ** 2 * (1 - np.exp(-2.0)) / 2, rtol=1e-4)


def test_flow_matching_is_about_the_field_between_base_and_data_in_the_units_of_the_flow():
    """The same losses, whatever the units of the data, and in whichever direction time runs."""

    class Straight(eqx.Module):
        shift: Array

        def __call__(self, t, x, condition):
            return self.shift * (1 + t)

    shift = jnp.asarray([0.3, -0.2])
    plain = ContinuousFlow(Straight(shift), 2)
    x = POINTS
    losses = matched(FlowMatchingLoss(), Transformed(StandardNormal((2,)), plain), x)
    units = InDataUnits(plain, jnp.asarray([100.0, -3.0]), jnp.asarray([50.0, 0.1]))
    there = 50 * x[:, :1] + 100, 0.1 * x[:, 1:] - 3
    again = matched(FlowMatchingLoss(), Transformed(StandardNormal((2,)), units), jnp.concatenate(there, 1))
    np.testing.assert_allclose(again, losses, rtol=1e-3)
    # Before the field the base is moved, after it the data.
    around = Chain([Affine(jnp.ones(2), 2 * jnp.ones(2)), plain, Flip((2,))])
    base = Normal(-0.5 * jnp.ones(2), 0.5 * jnp.ones(2))
    again = matched(FlowMatchingLoss(), Transformed(base, around), x[:, ::-1])
    np.testing.assert_allclose(again, losses, rtol=1e-4)

    class Turned(eqx.Module):
        shift: Array

        def __call__(self, t, x, condition):
            return -self.shift * (2 - t)

    turned = Transformed(StandardNormal((2,)), Invert(ContinuousFlow(Turned(shift), 2)))
    np.testing.assert_allclose(matched(FlowMatchingLoss(), turned, x), losses, rtol=1e-4)


def test_flow_matching_trains_the_field_alone():
    flow = Transformed(Normal(jnp.zeros(2), jnp.ones(2)), Chain([linear(), Affine(jnp.zeros(2), jnp.ones(2))]))
    params, static = eqx.partition(flow, eqx.is_inexact_array)
    grads = jax.grad(lambda params: FlowMatchingLoss()(params, static, POINTS, key=jr.key(0)))(params)
    moved = {path[0].name for path, leaf in jax.tree.leaves_with_path(grads) if np.any(np.asarray(leaf) != 0)}
    assert moved == {"bijection"}
    layers = eqx.combine(grads, static).bijection
    assert sum(bool(np.any(np.asarray(leaf) != 0)) for leaf in jax.tree.leaves(eqx.filter(layers, eqx.is_array))) == 1


@pytest.mark.parametrize("size", [1, 3])
def test_optimal_pairs_are_those_of_scipy(size):
    """Far from the origin too; and the search ends where a row is no number."""
    rng = np.random.default_rng(4)
    x, z = 1000 + 0.5 * rng.standard_normal((12, size)), rng.standard_normal((12, size))
    cost = ((x[:, None] - z) ** 2).sum(-1)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    from flowlib.train._flow_matching import cheapest_pairs

    found = cheapest_pairs(jnp.asarray(x), jnp.asarray(z))
    np.testing.assert_array_equal(found, columns[np.argsort(rows)])
    x[3] = np.nan
    assert sorted(cheapest_pairs(jnp.asarray(x), jnp.asarray(z))) == list(range(12))


@pytest.mark.parametrize(("coupling", "cond_dim"), [("independent", 1), ("optimal", None)])
def test_flow_matching_reaches_a_normal_density(coupling, cond_dim):
    """In one dimension: in the units of the data with a condition, which moves the mean; else in those of the base."""
    rng = np.random.default_rng(5)
    mean, scale, slope = (0.7, 0.5, 0) if cond_dim is None else (1000, 200, 300)
    c = rng.uniform(-1, 1, (4000, 1))
    x = mean + slope * c + scale * rng.standard_normal((4000, 1))
    flow = flows.ffjord(jr.key(0), base_dist=StandardNormal((1,)), cond_dim=cond_dim, nn_width=16, nn_depth=1)
    options = {"max_epochs": 60, "batch_size": 200, "learning_rate": 1e-2, "ema": 0.99, "show_progress": False}
    data = x if cond_dim is None else (x, c)
    standardise = cond_dim is not None
    fitted, losses = fit_to_data(
        jr.key(1), flow, data, loss_fn=FlowMatchingLoss(coupling), standardise=standardise, **options
    )
    at, given = np.linspace(-1.5, 1.5, 7), np.linspace(0.8, -0.8, 7)[:, None]
    rows = mean + slope * given + scale * at[:, None]
    found = fitted.log_prob(rows) if cond_dim is None else fitted.log_prob(rows, given)
    np.testing.assert_allclose(found, Normal(0.0, scale).log_prob(scale * at), atol=0.2)
    assert losses["train"][-1] < losses["train"][0]


BAD = {
    "field": (lambda: ContinuousFlow(3, 2), TypeError, "callable, got int"),  # pyright: ignore[reportArgumentType]
    "tolerance": (lambda: linear(tolerance=0.0), ValueError, "positive tolerance, got 0.0"),
    "steps": (lambda: linear(max_steps=0), ValueError, "max_steps"),
    "adjoint": (lambda: linear(adjoint="euler"), ValueError, "got 'euler'"),
    "coordinates": (
        lambda: ContinuousFlow(TimeMLP(jr.key(0), 1, width=2, depth=0), 0),
        ValueError,
        r"got shape \(0,\)",
    ),
    "field shape": (lambda: ContinuousFlow(Linear(jnp.ones((3, 2))), 2).transform(ROWS[0]), ValueError, r"got \(3,\)"),
    "coupling": (lambda: FlowMatchingLoss("best"), ValueError, "got 'best'"),  # pyright: ignore[reportArgumentType]
    "kinetic": (lambda: HutchinsonLoss(kinetic=-1.0), ValueError, "got -1.0"),
    "no field": (
        lambda: FlowMatchingLoss().check(Transformed(StandardNormal((2,)), Flip((2,))), POINTS),
        ValueError,
        "got one without",
    ),
    "two fields": (
        lambda: FlowMatchingLoss().check(Transformed(StandardNormal((2,)), Chain([linear(), linear()])), POINTS),
        ValueError,
        "exactly one ContinuousFlow, got 2",
    ),
    "no flow": (lambda: HutchinsonLoss().check(StandardNormal((2,)), POINTS), TypeError, "got StandardNormal"),
    "no key": (
        lambda: FlowMatchingLoss()(*eqx.partition(Transformed(StandardNormal((2,)), linear()), eqx.is_array), POINTS),
        ValueError,
        "expected a key",
    ),
    "conditional pairs": (
        lambda: FlowMatchingLoss("optimal").check(
            Transformed(StandardNormal((2,)), linear(cond_shape=2)), POINTS, POINTS
        ),
        ValueError,
        'coupling="independent"',
    ),
}


@pytest.mark.parametrize(("build", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(build, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_without_diffrax_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"^continuous flows need diffrax: pip install flowlib\[ode\]$"):
        linear()
