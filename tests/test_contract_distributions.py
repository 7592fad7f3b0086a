"""Every distribution of `cases.py`, premade flows included, keeps the contract of a distribution; one test a promise.

Statistical tests are seeded, so that one which passes passes always. With other seeds a correct sampler would be
accused at the rates that the tests state, together less than once in 10^4 runs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as stats

import cases
import contract_tools as tools
from contract_tools import EPS, FLOAT, X64, density_study, measure_density
from flowlib.support import Real, Subset
from registry import select

each_distribution = pytest.mark.parametrize("case", select(cases.DISTRIBUTIONS), ids=lambda case: case.id)
each_flow = pytest.mark.parametrize("case", select(cases.FLOWS), ids=lambda case: case.id)


def abstract_condition(s, batch, dtype=None):
    if s.condition is None:
        return None
    return jax.ShapeDtypeStruct(batch + s.condition.shape[1:], dtype or s.condition.dtype)


# Shapes.


@each_distribution
def test_results_have_the_shape_sample_shape_then_condition_batch_then_event(case):
    """From every method, for int and tuple sample shapes and for typed and legacy keys; traced, not compiled."""
    s = density_study(case)
    for name, sample_shape, batch, key in [
        ("sample", (), (2, 3), jr.key(0)),
        ("sample_and_log_prob", 4, (3,), jr.PRNGKey(0)),
        ("sample", (2, 1), (), jr.PRNGKey(0)),
        ("sample_and_log_prob", (0,), (2,), jr.key(0)),
    ]:
        batch = batch if s.condition is not None else ()
        leading = (sample_shape if isinstance(sample_shape, tuple) else (sample_shape,)) + batch
        method = getattr(s.dist, name)
        found = eqx.filter_eval_shape(
            lambda k, c, m=method, n=sample_shape: m(k, n, c), key, abstract_condition(s, batch)
        )
        expected = [leading + s.dist.shape, leading]
        assert [r.shape for r in jax.tree.leaves(found)] == expected[: 1 if name == "sample" else 2]


@each_distribution
def test_log_prob_broadcasts_batches_as_numpy_does(case):
    s = density_study(case)
    pairs = [((), ()), ((3,), ()), ((2, 3), ()), ((0,), ())]
    if s.condition is not None:
        pairs += [((), (4,)), ((3, 1), (4,)), ((2, 1, 3), (4, 1))]
    for batch, condition_batch in pairs:
        x = jax.ShapeDtypeStruct(batch + s.dist.shape, FLOAT)
        log_prob = eqx.filter_eval_shape(s.dist.log_prob, x, abstract_condition(s, condition_batch))
        assert log_prob.shape == np.broadcast_shapes(batch, condition_batch)
    if s.condition is not None:
        table = measure_density(s.dist, s.x, s.condition).broadcast
        for shift in range(4):
            condition = np.roll(s.condition[:4], -shift, axis=0)
            row = measure_density(s.dist, s.x[:4], condition).log_prob
            expected = table[np.arange(4), (np.arange(4) + shift) % 4]
            np.testing.assert_allclose(row, expected, rtol=100 * EPS, atol=100 * EPS)


# Dtypes.


@each_distribution
def test_dtype_of_parameters_is_that_of_draws(case):
    """Densities keep float32 at least; integers become the default float."""
    s = density_study(case)
    has_arrays = any(map(eqx.is_inexact_array, jax.tree.leaves(s.dist)))
    for dtype in [jnp.float32, jnp.bfloat16, jnp.float16] + [jnp.float64] * X64:
        dist = jax.tree.map(lambda leaf, t=dtype: _cast(leaf, t), s.dist)
        condition = abstract_condition(s, (), None if s.case.condition else dtype)
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
        x = jax.ShapeDtypeStruct(s.dist.shape, dtype)
        assert eqx.filter_eval_shape(lambda d, x, c: d.log_prob(x, c), dist, x, condition).dtype == wide
        if has_arrays and dtype == jnp.bfloat16:
            x, log_prob = eqx.filter_eval_shape(lambda d, c: d.sample_and_log_prob(jr.key(0), 2, c), dist, condition)
            assert (x.dtype, log_prob.dtype) == (dtype, wide)
    whole = jax.ShapeDtypeStruct(s.dist.shape, jnp.int32)
    assert eqx.filter_eval_shape(s.dist.log_prob, whole, abstract_condition(s, ())).dtype == FLOAT
    assert s.drawn[0].dtype == s.drawn[1].dtype == FLOAT


def _cast(leaf, dtype):
    if not eqx.is_array(leaf):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, dtype if eqx.is_inexact_array(leaf) else leaf.dtype)


# Errors.


@each_distribution
def test_bad_input_is_a_one_line_error_with_expected_and_got(case, unchecked_annotations):
    s = density_study(case)
    d, x, c, key = s.dist, s.x[0], s.one_condition, jr.key(0)
    for method in (d.sample, d.sample_and_log_prob):
        for bad in (0, None, np.zeros(2), jnp.zeros(3), "key", jr.split(key, 2)):
            _raises(TypeError, ["key"], method, bad, (), c)
        for bad in (-1, (2, -3), 1.5, "two"):
            _raises(ValueError, ["sample_shape", repr(bad)], method, key, bad, c)
        _raises_on_conditions(d, lambda condition, m=method: m(key, (), condition), c)
    wrong = (*d.shape, 7)
    if d.shape:
        _raises(ValueError, [str(wrong)], d.log_prob, np.ones(wrong), c)
        _raises(ValueError, ["()"], d.log_prob, 1.0, c)
    _raises(TypeError, ["dtype"], d.log_prob, np.full(d.shape, "a"), c)
    _raises(TypeError, ["complex"], d.log_prob, np.ones(d.shape, complex), c)
    _raises_on_conditions(d, lambda condition: d.log_prob(x, condition), c)
    if c is not None:
        _raises(ValueError, ["(3,)", "(2,)"], d.log_prob, np.stack([x] * 3), np.stack([c] * 2))


def _raises_on_conditions(d, call, condition):
    if condition is None:
        _raises(ValueError, [type(d).__name__, "unconditional"], call, np.ones(3))
        return
    wrong = (*d.cond_shape, 9)
    _raises(ValueError, ["condition", "none"], call, None)
    if d.cond_shape:  # of scalars it is a batch
        _raises(ValueError, ["condition", str(wrong)], call, np.ones(wrong, condition.dtype))
    _raises(TypeError, ["condition"], call, np.full(d.cond_shape, "a"))


def _raises(kind, wanted, method, *args):
    with pytest.raises(kind) as caught:
        method(*args)
    message = str(caught.value)
    assert "\n" not in message
    for part in wanted:
        assert part in message, f"{part!r} is not in {message!r}"


# Values.


@each_distribution
def test_draws_lie_in_the_support_and_carry_their_density(case):
    s = density_study(case)
    x, log_prob = s.drawn
    assert tools.members(s.dist.support, x).all()
    expected = s.log_prob(s.dist, x)
    # The density of a draw and that of its rounding differ by the slope of the density times the rounding.
    error = np.abs(log_prob - expected) / (1 + np.abs(expected))
    assert np.quantile(error, 0.99) < (1e-7 if X64 else 1e-3)
    assert error.max() < (1e-4 if X64 else 0.1)


@each_distribution
def test_sample_agrees_with_sample_and_log_prob_for_one_key(case):
    s = density_study(case)
    key = jr.key(3)
    plain = s.dist.sample(key, s.many, s.one_condition)
    paired, _ = s.dist.sample_and_log_prob(key, s.many, s.one_condition)
    np.testing.assert_allclose(plain, paired, rtol=1e3 * EPS, atol=1e3 * EPS)
    # Another key gives other draws, and draws differ from each other.
    different = len(np.unique(np.asarray(plain).reshape(s.many, -1)[:, 0]))
    if s.dist.support.kind == "integers":
        assert different > 2
        return
    assert different > 0.9 * s.many
    some, others = np.asarray(plain)[:20].reshape(20, 1, -1), s.drawn[0].reshape(1, s.many, -1)
    assert not (some == others).all(-1).any()


@each_distribution
def test_density_outside_the_support_is_minus_infinity(case):
    """Infinite coordinates included; the gradient there is 0 and spoils no other row's."""
    s = density_study(case)
    outside = s.x[:2].copy().reshape(2, -1)
    outside[0, 0], outside[1, -1] = np.inf, -np.inf
    outside = outside.reshape(s.x[:2].shape)
    if not isinstance(s.dist.support, Subset):
        outside = np.concatenate([outside, tools.outsiders(s.dist.support, s.x)])
    n = len(outside)
    together = measure_density(s.dist, np.concatenate([outside, s.x[n:]]), s.condition)
    alone = measure_density(s.dist, s.x, s.condition, counted=np.arange(s.n) >= n)
    assert (together.log_prob[:n] == -np.inf).all()
    assert (together.grad_x[:n] == 0).all()
    pairs = [(together.log_prob[n:], alone.log_prob[n:]), (together.grad_x[n:], alone.grad_x[n:])]
    for one, other in [*pairs, *zip(together.grad_params, alone.grad_params, strict=True)]:
        np.testing.assert_allclose(one, other, rtol=0, atol=1e3 * EPS * (1 + np.abs(other).max(initial=0)))


@each_distribution
def test_density_at_nan_is_nan(case):
    s = density_study(case)
    spoilt = s.x.copy().reshape(s.n, -1)
    spoilt[np.arange(s.n), np.arange(s.n) % spoilt.shape[1]] = np.nan
    assert np.isnan(measure_density(s.dist, spoilt.reshape(s.x.shape), s.condition).log_prob).all()


@each_distribution
def test_densities_and_gradients_are_finite_at_special_points(case):
    """Ends, kinks, knots, their float neighbours, 0 and a million, at initial and at random parameters."""
    s = density_study(case)
    points = tools.special_rows(s.special_numbers, s.x, s.dist.shape)
    # Of part of a set it is not known which points belong.
    inside = tools.members(s.dist.support, points) & (not isinstance(s.dist.support, Subset))
    tiny = ((points != 0) & (np.abs(points) < np.finfo(FLOAT).tiny)).reshape(len(points), -1).any(1)
    for dist in (s.initial, s.dist):
        for x, is_inside, subnormal in tools.chunks(points, inside, tiny):
            record = measure_density(dist, x, None if s.condition is None else s.condition[: len(x)])
            may_be_infinite = subnormal | bool(case.infinite)
            assert not np.isnan(record.log_prob).any(), x[np.isnan(record.log_prob)][:3]
            if dist is s.dist:
                assert (np.isfinite(record.log_prob) | ~is_inside | may_be_infinite).all()
            assert (np.isfinite(record.log_prob) | (record.log_prob == -np.inf) | may_be_infinite).all()
            gradients = [record.grad_x] if record.grad_condition is None else [record.grad_x, record.grad_condition]
            for grad in gradients:
                allowed = tools.rowwise(may_be_infinite, grad)
                bad = np.where(allowed, np.isnan(grad), ~np.isfinite(grad)).reshape(len(x), -1).any(1)
                assert not bad.any(), f"at {x[bad][:3]}"
            for grad in record.grad_params:
                assert not np.isnan(grad).any(), f"a parameter's gradient at one of {x}"
                assert may_be_infinite.any() or np.isfinite(grad).all(), f"a parameter's gradient at one of {x}"


@each_distribution
def test_density_depends_on_the_condition(case):
    s = density_study(case)
    if s.condition is not None:
        x = np.repeat(s.x[:1], s.n, 0)
        log_prob = measure_density(s.dist, x, s.condition).log_prob
        assert len(np.unique(log_prob)) >= min(s.n, len(np.unique(s.condition.reshape(s.n, -1), axis=0)))


@each_distribution
def test_draws_follow_the_density(case):
    """E[q(x)/p(x)] = 1 and E[tanh(x_i - m_i) q(x)/p(x)] = 0, over draws of p, for a normal q about m narrower than p.

    Beyond 6 standard errors once in 5e8 for each of at most six means. Elsewhere than on the reals the family's own
    tests compare with SciPy.
    """
    s = density_study(case)
    if not isinstance(s.dist.support, Real):
        return
    x, _ = s.drawn
    log_density = s.log_prob(s.dist, x)
    x = x.reshape(s.many, -1).astype(np.float64)
    # q is made from one half of the draws and the means are taken over the other.
    half = s.many // 2
    centre = np.median(x[:half], 0)
    middle = x[:half][(np.abs(x[:half] - centre) < 4 * stats.iqr(x[:half], axis=0)).all(1)]
    q = stats.multivariate_normal(centre, 0.4 * np.cov(middle.T))
    ratio = np.exp(q.logpdf(x[half:]).reshape(-1) - log_density[half:])
    # A few draws must not make up the mean, or its standard error would mean nothing.
    assert ratio.max() < 0.1 * ratio.sum()
    terms = np.concatenate([ratio[:, None] - 1, ratio[:, None] * np.tanh(x[half:] - centre)], axis=1)
    z = terms.mean(0) / (terms.std(0) / np.sqrt(len(terms)))
    assert (np.abs(z) < 6).all(), z


# Premade flows, by quadrature.


def grid(s, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and trapezoidal weights beyond the furthest draw: x = m + a sinh t in each coordinate."""
    axes, slopes = [], []
    for column in s.drawn[0].astype(np.float64).T:
        centre, width = np.median(column), 0.7 * stats.iqr(column)
        reach = max(4, 1.2 * np.arcsinh(np.abs(column - centre).max() / width))
        t = np.linspace(-reach, reach, n)
        axes.append(centre + width * np.sinh(t))
        slopes.append(width * np.cosh(t) * (t[1] - t[0]))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return points, np.prod(np.meshgrid(*slopes, indexing="ij"), 0).ravel()


@each_flow
def test_premade_flow_integrates_to_one(case):
    """As constructed, and at random parameters."""
    s = density_study(case)
    if case.size <= 2:
        for dist in (s.initial, s.dist):
            points, weights = grid(s, s.many if case.size == 1 else 320)
            assert abs(np.exp(s.log_prob(dist, points)) @ weights - 1) < 1e-3


@each_flow
def test_draws_of_a_flow_in_one_dimension_have_the_integral_of_the_density_as_cdf(case):
    """Kolmogorov-Smirnov: beyond 2.7 / sqrt(n) once in 10^6."""
    s = density_study(case)
    if case.size == 1:
        points, weights = grid(s, s.many)
        masses = np.exp(s.log_prob(s.dist, points)) * weights
        cdf = np.cumsum(masses) - masses / 2
        uniform = np.sort(np.interp(s.drawn[0][:, 0], points[:, 0], cdf))
        empirical = (np.arange(s.many) + 0.5) / s.many
        assert np.abs(uniform - empirical).max() < 2.7 / np.sqrt(s.many) + 1e-3


# Traced once.


@each_distribution
def test_second_plain_call_compiles_nothing_also_for_a_twin(case, compiles):
    s = density_study(case)
    twin = s.twin()
    x, _ = s.drawn
    first = s.log_prob(s.dist, x)
    other = None if s.condition is None else s.condition[1]
    key = jr.key(9)
    with compiles.expect_none():
        again = s.log_prob(twin, x)
        s.dist.log_prob(x[::-1].copy(), other)
        twin.sample_and_log_prob(key, s.many, other)
    np.testing.assert_array_equal(first, again)
