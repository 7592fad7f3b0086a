"""Facts peculiar to distributions: SciPy's values, closed forms, samplers, ends of supports, bad parameters.

Samplers are tested by Kolmogorov-Smirnov at a false-alarm rate of 1e-6 a coordinate, about 1e-4 for
the whole file; keys are fixed, so that a test which passes passes always.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special as sps
import scipy.stats as stats

import cases_distributions
import flowlib.bijections as bij
import flowlib.distributions as dst
import registry
from flowlib.parameters import count_parameters, freeze, unfreeze
from flowlib.support import Positive, Real

X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
FLOAT = np.float64 if X64 else np.float32
EPS = float(np.finfo(FLOAT).eps)
FALSE_ALARM = 1e-6


def no_slack(*params: float) -> float:
    return 1.0


def root_slack(*params: float) -> float:
    """A relative rounding error in a large shape parameter moves the density by about its root."""
    return 1 + max(params) ** 0.5


def scipy_error(*params: float) -> float:
    """SciPy subtracts logarithms of large Gamma functions."""
    return 1e-14 * max(params)


@dataclass(frozen=True, eq=False)
class Family:
    """A family beside SciPy's: `make(*params)`, `reference(*params)`, and parameter values, one row each."""

    name: str
    make: Callable
    reference: Callable
    rows: Sequence[tuple[float, ...]]
    slack: Callable[..., float] = no_slack
    cdf_tolerance: Callable[..., float] = lambda *params: 40 * EPS

    @property
    def id(self) -> str:
        return self.name

    @property
    def params(self) -> np.ndarray:
        return np.array(self.rows, FLOAT)

    @property
    def frozen(self) -> list:
        """SciPy's distributions, at the parameters as they are in the precision of the run."""
        return [self.reference(*map(float, row)) for row in self.params]

    def points(self) -> np.ndarray:
        """Quantiles, the origin, far out and NaN, in the precision of the run; a row for each row of `rows`."""
        levels = [1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999]
        bulk = np.array([s.ppf(levels) for s in self.frozen])
        # XLA takes subnormal numbers for zero.
        bulk = np.where(np.abs(bulk) < np.finfo(FLOAT).tiny, np.finfo(FLOAT).tiny, bulk)
        far = np.broadcast_to([0.0, 1.0, -1.0, 1e6, -1e6, np.nan], (len(self.rows), 6))
        return np.concatenate([bulk, far], axis=1).astype(FLOAT)


LEVELS = np.array([0.0, 1e-6, 0.01, 0.3, 0.5, 0.75, 0.99, 1.0, -0.1, 1.1, np.nan], FLOAT)
LOC_SCALE = [(0.0, 1.0), (1.5, 0.25), (-200.0, 30.0)]
STUDENT = [(0.1, 0.0, 1.0), (0.5, 1.5, 0.25), (1.0, -2.0, 3.0), (2.5, 0.0, 1.0), (30.0, 1.0, 2.0), (60.0, 0.0, 1.0)]
STUDENT += [(1e4, 0.0, 1.0), (1e6, 1.5, 0.25)]
GAMMA = [(0.1, 1.0), (0.5, 2.0), (1.0, 3.0), (5.0, 0.25), (90.0, 1.0), (150.0, 2.0), (1e4, 0.5), (1e6, 1.0)]
BETA = [(0.1, 0.1), (0.5, 3.0), (1.0, 1.0), (1.0, 4.0), (4.0, 1.0), (20.0, 30.0), (1e3, 3.0), (1e4, 2e4)]

FAMILIES = [
    Family("Normal", dst.Normal, stats.norm, LOC_SCALE),
    Family(
        "LogNormal",
        dst.LogNormal,
        lambda loc, scale: stats.lognorm(s=scale, scale=np.exp(loc)),
        [(0.0, 1.0), (1.0, 0.25), (-3.0, 2.0)],
    ),
    Family("Gumbel", dst.Gumbel, stats.gumbel_r, LOC_SCALE),
    Family("Cauchy", dst.Cauchy, stats.cauchy, LOC_SCALE),
    Family("Laplace", dst.Laplace, stats.laplace, LOC_SCALE),
    Family("Logistic", dst.Logistic, stats.logistic, LOC_SCALE),
    Family("StudentT", dst.StudentT, stats.t, STUDENT),
    Family(
        "Uniform",
        dst.Uniform,
        lambda minval, maxval: stats.uniform(minval, maxval - minval),
        [(0.0, 1.0), (-3.0, 5.0), (1000.0, 1000.5)],
    ),
    Family("Exponential", dst.Exponential, lambda rate: stats.expon(scale=1 / rate), [(1.0,), (1e-3,), (50.0,)]),
    Family("Gamma", dst.Gamma, lambda a, scale: stats.gamma(a, scale=scale), GAMMA, root_slack),
    Family("Beta", dst.Beta, stats.beta, BETA, root_slack, lambda a, b: (4 if X64 else 3) * EPS * (a + b + 20)),
]

each_family = pytest.mark.parametrize("case", FAMILIES, ids=lambda family: family.id)


@eqx.filter_jit
def _evaluate(make, params, x, levels):
    """Everything at once for each row of parameters; gradients are those in the arguments of the constructor."""

    def one(params, x):
        dist = make(*params)
        log_prob = jax.value_and_grad(lambda params, x: make(*params).log_prob(x), (0, 1))
        value, (in_params, in_x) = jax.vmap(log_prob, (None, 0))(params, x)
        out = {"log_prob": value, "in_params": in_params, "in_x": in_x}
        out |= {"mean": dist.mean, "variance": dist.variance, "entropy": dist.entropy()}
        out["cdf"], out["cdf_slope"] = jax.vmap(jax.value_and_grad(dist.cdf))(x)
        out["quantile"] = jax.vmap(dist.quantile)(levels)
        return out

    return jax.vmap(one)(params, x)


@cache
def evaluated(family: Family) -> dict[str, np.ndarray]:
    result = _evaluate(family.make, jnp.asarray(family.params), jnp.asarray(family.points()), jnp.asarray(LEVELS))
    return jax.tree.map(np.asarray, result)


def close(actual, expected, tolerance, what: object = ""):
    """Equal, NaN and infinite together, or within tolerance of 1 + |expected|."""
    actual, expected = np.broadcast_arrays(np.asarray(actual, np.float64), np.asarray(expected, np.float64))
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        near = np.abs(actual - expected) <= tolerance * (1 + np.abs(expected))
    assert (same | near).all(), f"{what}: got {actual[~(same | near)]}, expected {expected[~(same | near)]}"


# Agreement with SciPy.


@each_family
def test_log_prob_is_that_of_scipy(case):
    with np.errstate(all="ignore"):
        expected = [s.logpdf(x.astype(float)) for s, x in zip(case.frozen, case.points(), strict=True)]
    for params, value, wanted in zip(case.rows, evaluated(case)["log_prob"], expected, strict=True):
        # Gumbel's far lower tail is not representable.
        wanted = np.where(wanted < np.finfo(FLOAT).min, -np.inf, wanted)
        close(value, wanted, 50 * EPS * case.slack(*params) + scipy_error(*params), params)


@each_family
def test_gradients_of_log_prob_are_differences_of_scipys(case):
    """In x and in every argument, in the bulk; the ends of a uniform do not train."""
    result = evaluated(case)
    for i, (params, x) in enumerate(zip(case.params.astype(float), case.points()[:, 1:8].astype(float), strict=True)):
        s = case.reference(*params)
        slack = (1e-9 / EPS if X64 else 100) * EPS * case.slack(*params) ** 2
        width = np.abs(x - x[3])
        width[3] = width[2]
        # Steps that stay on the support. The median of a Laplace is its kink.
        step = 1e-5 * np.minimum(width, np.minimum(x - s.support()[0], s.support()[1] - x))
        smooth = np.arange(7) != 3 if case.name == "Laplace" else step > 0
        with np.errstate(all="ignore"):
            difference = (s.logpdf(x + step) - s.logpdf(x - step)) / (2 * step)
        close((result["in_x"][i, 1:8] * width)[smooth], (difference * width)[smooth], 1e-4 + slack, params)
        for k in range(len(params)):
            nudge = np.zeros(len(params))
            nudge[k] = 1e-5 * max(abs(params[k]), 1e-3)
            low, high = case.reference(*(params - nudge)), case.reference(*(params + nudge))
            with np.errstate(all="ignore"):
                difference = (high.logpdf(x) - low.logpdf(x)) / (2 * nudge[k])
            if case.name == "Uniform":
                difference = np.zeros(7)
            actual = result["in_params"][i, 1:8, k] * params[k]
            close(actual[smooth], (difference * params[k])[smooth], 1e-4 + slack, (params, k))


@each_family
def test_gradients_are_finite_wherever_they_are_representable(case):
    """A million away too; a pole, and an exponential that overflows, are infinite but never NaN."""
    result, x = evaluated(case), case.points()[:, :-1]
    infinite_is_right = np.zeros(x.shape, bool)
    if case.name in ("Gamma", "Beta"):
        infinite_is_right = (x == 0) | (x == 1)
    if case.name == "Gumbel":
        infinite_is_right = x == -1e6
    in_x, *in_params = result["in_x"][:, :-1], *np.moveaxis(result["in_params"][:, :-1], -1, 0)
    assert not np.isnan(in_x).any()
    for grad in (in_x, *in_params):
        assert np.isfinite(grad[~infinite_is_right]).all(), x[~infinite_is_right & ~np.isfinite(grad)]


@each_family
def test_cdf_is_that_of_scipy_and_its_slope_the_density(case):
    result = evaluated(case)
    for i, (params, s, x) in enumerate(zip(case.rows, case.frozen, case.points(), strict=True)):
        x = x.astype(float)
        tolerance = case.cdf_tolerance(*params) * case.slack(*params)
        with np.errstate(all="ignore"):
            close(result["cdf"][i], s.cdf(x), tolerance + scipy_error(*params), params)
            density = np.exp(s.logpdf(x))
        assert not np.isnan(result["cdf_slope"][i][:9]).any()
        spread = np.abs(x[1:8] - x[1:8].mean()).mean()
        # The slope of the normal expansion for large parameters is not exact.
        close(result["cdf_slope"][i, 1:8] * spread, density[1:8] * spread, 10 * tolerance + 1e-5, params)


@each_family
def test_quantiles_are_those_of_scipy_and_outside_nan(case):
    searched = case.name in ("StudentT", "Gamma", "Beta")
    for params, s, value in zip(case.rows, case.frozen, evaluated(case)["quantile"], strict=True):
        levels = LEVELS[:8].astype(float)
        assert np.isnan(value[8:]).all()
        if not searched:
            close(value[:8], s.ppf(levels), 50 * EPS, params)
            continue
        # Those that are searched reach their probability to the error of the cdf, and as far as x can be rounded;
        # the least and the greatest number of the search stand for all beyond.
        x, info = value[:8].astype(float), np.finfo(FLOAT)
        close(x[[0, 7]], s.support(), 0, params)
        with np.errstate(all="ignore"):
            rounding = np.nan_to_num(EPS * np.abs(x[1:7]) * s.pdf(x[1:7]), posinf=0).max()
            beyond = s.cdf(-float(info.max) / 8) if case.name == "StudentT" else s.cdf(float(info.tiny))
            beyond += s.sf(1 - float(info.epsneg)) if case.name == "Beta" else 0
        tolerance = case.cdf_tolerance(*params) * case.slack(*params) + scipy_error(*params)
        close(s.cdf(x[1:7]), levels[1:7], tolerance + 4 * rounding + beyond, params)


@each_family
def test_moments_and_entropy_are_those_of_scipy(case):
    result = evaluated(case)
    for i, (params, s) in enumerate(zip(case.rows, case.frozen, strict=True)):
        mean, variance = s.stats("mv")
        if case.name == "StudentT" and params[0] <= 1:
            # SciPy calls it infinite, but the integral has no value.
            mean = np.nan
        close(result["mean"][i], mean, 50 * EPS, params)
        close(result["variance"][i], variance, 100 * EPS, params)
        close(result["entropy"][i], s.entropy(), 100 * EPS + 100 * scipy_error(*params), params)


@each_family
def test_coordinates_are_independent_and_arguments_broadcast(case):
    params = case.params[:3].astype(FLOAT)
    # Arguments of shapes (3, 1) and (2,): an event of shape (3, 2) whose columns are alike.
    args = [params[:, k, None] if k == 0 else params[:, k, None] * np.ones(2, FLOAT) for k in range(params.shape[1])]
    if len(args) == 1:
        args = [args[0] * np.ones(2, FLOAT)]
    dist = case.make(*args)
    assert dist.shape == (3, 2)
    x = np.stack([s.ppf([0.2, 0.6]) for s in case.frozen[:3]]).astype(FLOAT)
    expected = sum(s.logpdf(row.astype(float)).sum() for s, row in zip(case.frozen[:3], x, strict=True))
    close(dist.log_prob(x), expected, 500 * EPS * case.slack(*params.ravel()))
    close(dist.entropy(), 2 * sum(s.entropy() for s in case.frozen[:3]), 100 * EPS + 1e-8 * X64)
    assert dist.mean.shape == dist.variance.shape == dist.cdf(x).shape == (3, 2)


# Samplers.


def kolmogorov_smirnov(uniform: np.ndarray) -> None:
    """Columns that should be independent and uniform on (0, 1)."""
    uniform = np.asarray(uniform, np.float64).reshape(len(uniform), -1)
    assert np.isfinite(uniform).all()
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > FALSE_ALARM
    if uniform.shape[1] > 1:
        # Correlations are normal with standard deviation 1 / sqrt(n): beyond 5.5 of them once in 2e7.
        correlation = np.corrcoef(uniform.T) - np.eye(uniform.shape[1])
        assert np.abs(correlation).max() < 5.5 / np.sqrt(len(uniform))


@each_family
def test_draws_follow_the_density(case, key):
    """Drawn as one batch and one by one; the draws and densities of `sample_and_log_prob` are those of `sample`."""
    # The first row of some has draws that round to an end of the support or overflow.
    chosen = slice(1, 4) if len(case.rows) > 3 else slice(3)
    rows, frozen = case.params[chosen], case.frozen[chosen]
    dist = case.make(*rows.T)
    together, log_prob = dist.sample_and_log_prob(key, 4000)
    batches = [together]
    # Those with a gamma sampler draw one as a batch of one, and take long to compile.
    if case.name not in ("StudentT", "Gamma", "Beta"):
        batches.append(jax.vmap(dist.sample)(jr.split(key, 4000)))
    for x in batches:
        assert x.dtype == FLOAT
        x = np.asarray(x, np.float64)
        kolmogorov_smirnov(np.stack([s.cdf(x[:, i]) for i, s in enumerate(frozen)], axis=1))
    close(dist.sample(key, 4000), together, 100 * EPS)
    close(log_prob, dist.log_prob(together), 1e3 * EPS)
    assert np.isfinite(log_prob).all()


def test_draws_of_small_parameters_stay_off_the_poles(key):
    for dist in (dst.Beta(0.02, 0.02), dst.Gamma(0.02, 1.0)):
        draws, log_prob = dist.sample_and_log_prob(key, 5000)
        assert np.isfinite(log_prob).all()
        assert (np.asarray(draws) > 0).all()


# Integrals by quadrature.


def substitution(support, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of one coordinate and their weights: the trapezoidal rule in t, with x = sinh t, exp t or a sigmoid.

    Of whole numbers, these themselves.
    """
    if isinstance(support, Positive):
        t = np.linspace(-60, 12, n)
        x, slope = np.exp(t), np.exp(t)
    elif support.kind in ("interval", "circle"):
        t = np.linspace(-60, 60, n)
        lower, upper = (np.asarray(end, np.float64).ravel()[0] for end in (support.lower, support.upper))
        x, slope = lower + (upper - lower) * sps.expit(t), (upper - lower) * sps.expit(t) * sps.expit(-t)
    elif support.kind == "integers":
        return np.arange(-400.0, 400.0), np.ones(800)
    else:
        t = np.linspace(-13, 13, n)
        x, slope = np.sinh(t), np.cosh(t)
    return x, slope * (t[1] - t[0])


def integral(case: registry.Case) -> float:
    dist = case.make(jr.key(crc32(case.id.encode())))
    condition = None if dist.cond_shape is None else np.ones(dist.cond_shape, FLOAT)
    size = int(np.prod(dist.shape))
    x, weights = substitution(dist.support, 60_000 if size == 1 else 1200)
    if size == 2:
        x = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
        weights = np.outer(weights, weights).ravel()
    density = np.exp(np.asarray(dist.log_prob(x.reshape(-1, *dist.shape).astype(FLOAT), condition), np.float64))
    return float(density @ weights)


# With noise that is not uniform, `Dequantized.log_prob` is an estimate by few draws.
LEFT_OUT = ("_scalar", "Dequantized_noise")
ONE_DIMENSIONAL = [c for c in cases_distributions.DISTRIBUTIONS if c.size == 1 and not c.name.endswith(LEFT_OUT)]
# Coordinates that are independent need no integral in two dimensions.
COUPLED = {"MultivariateNormal", "VmapMixture", "VmapMixture_full", "VmapMixture_conditional", "Transformed"}
TWO_DIMENSIONAL = [case for case in cases_distributions.DISTRIBUTIONS if case.size == 2 and case.name in COUPLED]


@pytest.mark.parametrize("case", ONE_DIMENSIONAL + TWO_DIMENSIONAL, ids=lambda case: case.id)
def test_density_integrates_to_one(case):
    assert abs(integral(case) - 1) < 1e-3


# Ends of supports, far tails, NaN.


def test_log_prob_at_the_ends_of_the_support():
    inf, below, above = np.inf, np.nextafter(FLOAT(2), FLOAT(0)), np.nextafter(FLOAT(3), FLOAT(4))
    expected = [
        (dst.Uniform(2.0, 3.0), [2.0, 3.0, below, above], [0, 0, -inf, -inf]),
        (dst.Exponential(2.0), [0.0, -1e-30, -1.0], [np.log(2), -inf, -inf]),
        (dst.LogNormal(), [0.0, -1.0], [-inf, -inf]),
        (dst.Gamma(1.0, 0.5), [0.0, -1.0], [np.log(2), -inf]),
        (dst.Gamma(2.0, 1.0), [0.0], [-inf]),
        (dst.Gamma(0.5, 1.0), [0.0], [inf]),
        (dst.Beta(1.0, 1.0), [0.0, 1.0, -0.1, 1.1], [0, 0, -inf, -inf]),
        (dst.Beta(1.0, 3.0), [0.0, 1.0], [np.log(3), -inf]),
        (dst.Beta(0.5, 1.0), [0.0, 1.0], [inf, np.log(0.5)]),
    ]
    for dist, x, wanted in expected:
        close(dist.log_prob(np.array(x, FLOAT)), wanted, 50 * EPS, f"{type(dist).__name__} at {x}")


def test_gradients_at_the_ends_are_never_nan():
    """Also where a zero exponent meets the logarithm of zero."""
    for dist, ends in [
        (dst.Gamma(jnp.array([1.0, 0.5, 2.0]), 1.5), [0.0]),
        (dst.Beta(jnp.array([1.0, 0.5, 2.0]), jnp.array([2.0, 1.0, 0.5])), [0.0, 1.0]),
        (dst.Exponential(jnp.ones(3)), [0.0]),
        (dst.Uniform(jnp.zeros(3), 1.0), [0.0, 1.0]),
        (dst.LogNormal(jnp.zeros(3)), [0.0]),
    ]:
        arrays, rest = eqx.partition(dist, eqx.is_inexact_array)

        def log_prob(arrays, x, rest=rest):
            return eqx.combine(arrays, rest).log_prob(x)

        for end in ends:
            grads = jax.grad(log_prob, (0, 1))(arrays, jnp.full(3, end))
            assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(grads)), (type(dist).__name__, end)


def test_a_zero_beside_a_pole_is_zero_with_clean_gradients():
    """0 times infinity has no value; -inf is what a fit can tell from a number."""
    for dist in (dst.Gamma(jnp.array([0.5, 2.0]), 1.0), dst.Beta(jnp.array([0.5, 2.0]), 1.5)):
        arrays, rest = eqx.partition(dist, eqx.is_inexact_array)
        value, grads = jax.value_and_grad(lambda arrays, r=rest: eqx.combine(arrays, r).log_prob(jnp.zeros(2)))(arrays)
        assert value == -np.inf
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_laplace_has_a_finite_gradient_at_its_kink():
    assert jax.grad(dst.Laplace(1.5, 2.0).log_prob)(1.5) == 0


def test_far_tails_of_heavy_tailed_densities_do_not_overflow():
    """The square of the standardised value is not representable in float32, the density is."""
    x = np.array([1e6, -1e6], FLOAT)
    cauchy = dst.Cauchy(0.0, 1e-14)
    close(cauchy.log_prob(x), np.log(1e-14 / np.pi) - 2 * np.log(1e6), 100 * EPS)
    for df in (0.1, 5.0):
        expected = stats.t.logpdf(1e20, df) + 14 * np.log(10)
        close(dst.StudentT(df, 0.0, 1e-14).log_prob(x), expected, 100 * EPS)


@each_family
def test_nan_stays_nan_in_density_and_cdf(case):
    result = evaluated(case)
    assert np.isnan(result["log_prob"][:, -1]).all()
    assert np.isnan(result["cdf"][:, -1]).all()


# Parameters.


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.3, 1.0, 7.0, 1e3, 1e6])
def test_positive_parameters_start_at_their_values(scale):
    value = FLOAT(scale)
    got = [dst.Normal(0.0, value).scale, dst.LogNormal(0.0, value).scale, dst.Exponential(value).rate]
    got += [dst.StudentT(value).df, dst.Gamma(value, value).concentration, dst.Gamma(value, value).scale]
    got += [dst.Beta(value, 1.0).alpha, dst.Beta(1.0, value).beta]
    for array in got:
        assert isinstance(array, jax.Array)
        # The raw value is about log(scale), and its rounding is what remains.
        np.testing.assert_allclose(array, value, rtol=20 * EPS)


def test_properties_are_plain_arrays_of_the_shape_of_the_event():
    mvn = dst.MultivariateNormal(1.0, 2 * jnp.eye(3))
    close(mvn.loc, np.ones(3), 0)
    close(mvn.covariance, 2 * np.eye(3), 10 * EPS)
    uniform = dst.Uniform(np.array([-1.0, 2.0]), 5)
    for name, wanted in {"minval": [-1, 2], "maxval": [5, 5], "loc": [-1, 2], "scale": [6, 3]}.items():
        value = getattr(uniform, name)
        assert isinstance(value, jax.Array)
        close(value, wanted, 0)
    student = dst.StudentT(np.array([1.0, 2.0]), 0, np.array([[3.0], [4.0]]))
    assert student.df.shape == student.loc.shape == student.scale.shape == student.shape == (2, 2)


def test_very_negative_raw_parameters_keep_everything_valid():
    """The positive map never reaches zero, so logarithms stay finite and densities are no NaN."""
    for family in FAMILIES:
        dist = family.make(*family.params[0])
        arrays, rest = eqx.partition(dist, eqx.is_inexact_array)
        if family.name == "Uniform":
            continue
        drowned = eqx.combine(jax.tree.map(lambda a: a - 1e4, arrays), rest)
        names = {"Exponential": ["rate"], "Gamma": ["concentration", "scale"], "Beta": ["alpha", "beta"]}
        for name in names.get(family.name, ["scale"]):
            value = np.asarray(getattr(drowned, name))
            assert value > 0
            assert np.isfinite(np.log(value))
        assert not np.isnan(drowned.log_prob(np.array([0.25, 0.75], FLOAT))).any(), family.name


def test_ends_of_a_uniform_never_train():
    uniform = dst.Uniform(np.zeros(2), np.ones(2))
    assert count_parameters(uniform) == 0
    for dist in (uniform, unfreeze(uniform)):
        grad = eqx.filter_grad(lambda d: d.log_prob(np.full(2, 0.5)))(dist)
        assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grad))


def test_perturbed_ends_of_a_uniform_still_enclose_an_interval():
    """Noise that swaps the ends gives the interval between them."""
    swapped = jax.tree.map(lambda leaf: -leaf, dst.Uniform(1.0, 3.0))
    assert (swapped.minval, swapped.maxval) == (-3, -1)
    close(swapped.log_prob(-2.0), -np.log(2), 10 * EPS)


@each_family
def test_freezing_changes_nothing_but_training(case):
    dist, x = case.make(*case.params[0]), case.points()[0, 4]
    frozen = freeze(dist)
    assert count_parameters(frozen) == 0
    value, grad = eqx.filter_value_and_grad(lambda d: d.log_prob(x) + d.cdf(x) + d.entropy())(frozen)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grad))
    result = evaluated(case)
    close(value, result["log_prob"][0, 4] + result["cdf"][0, 4] + result["entropy"][0], 50 * EPS)


def test_arguments_of_two_precisions_promote():
    for make in (dst.Normal, dst.Uniform, dst.Gamma):
        dist = make(jnp.asarray(1.0, jnp.float16), jnp.asarray(2.0, jnp.float32))
        assert dist.log_prob(jnp.asarray(0.5, jnp.float32)).dtype == jnp.float32
        draws, log_prob = dist.sample_and_log_prob(jr.key(0))
        assert draws.dtype == log_prob.dtype == dist.mean.dtype == jnp.float32


# Errors.


BAD_PARAMETERS = [
    (partial(dst.Normal, 0, 0), "scale .*positive.*0"),
    (partial(dst.Normal, 0, -1), "scale .*positive.*-1"),
    (partial(dst.Normal, 0, np.nan), "scale .*nan"),
    (partial(dst.Normal, np.inf, 1), "loc .*finite.*inf"),
    (partial(dst.Normal, np.zeros(2), np.ones(3)), r"\(2,\).*\(3,\)"),
    (partial(dst.LogNormal, 0, 0), "scale .*positive"),
    (partial(dst.Gumbel, 0, -2), "scale .*positive"),
    (partial(dst.Cauchy, 0, 0), "scale .*positive"),
    (partial(dst.Laplace, 0, 0), "scale .*positive"),
    (partial(dst.Logistic, 0, 0), "scale .*positive"),
    (partial(dst.StudentT, 0), "df .*positive.*0"),
    (partial(dst.StudentT, -1.0), "df .*positive.*-1"),
    (partial(dst.StudentT, np.inf), "df .*finite.*inf"),
    (partial(dst.StudentT, 2, 0, 0), "scale .*positive"),
    (partial(dst.Exponential, 0), "rate .*positive"),
    (partial(dst.Exponential, np.array([1.0, np.nan])), "rate .*nan"),
    (partial(dst.Gamma, 0, 1), "concentration .*positive"),
    (partial(dst.Gamma, 1, -1), "scale .*positive"),
    (partial(dst.Beta, 0, 1), "alpha .*positive"),
    (partial(dst.Beta, 1, np.inf), "beta .*finite"),
    (partial(dst.Beta, np.ones(2), np.ones((3, 3))), r"\(2,\).*\(3, 3\)"),
    (partial(dst.Uniform, 1, 0), "maxval - minval .*positive.*-1"),
    (partial(dst.Uniform, 1, 1), "maxval - minval .*positive.*0"),
    (partial(dst.Uniform, np.nan, 1), "minval .*finite.*nan"),
    (partial(dst.Uniform, 0, np.inf), "maxval .*finite.*inf"),
    (partial(dst.Uniform, np.zeros(2), np.ones(3)), r"\(2,\).*\(3,\)"),
    (partial(dst.MultivariateNormal, 0, np.ones((2, 3))), r"square.*\(2, 3\)"),
    (partial(dst.MultivariateNormal, 0, np.ones(2)), r"square.*\(2,\)"),
    (partial(dst.MultivariateNormal, np.zeros(3), np.eye(2)), r"\(2,\).*\(3,\)"),
    (partial(dst.MultivariateNormal, 0, np.array([[1.0, 0.5], [0.2, 1.0]])), "symmetric.*0.3"),
    (partial(dst.MultivariateNormal, 0, np.array([[1.0, 2.0], [2.0, 1.0]])), "positive definite.*-1"),
    (partial(dst.MultivariateNormal, 0, np.array([[1.0, np.nan], [np.nan, 1.0]])), "covariance .*finite.*nan"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PARAMETERS)
def test_bad_parameters_are_a_one_line_error(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_bad_mixtures_are_a_one_line_error():
    parts = eqx.filter_vmap(dst.Normal)(jnp.zeros((3, 2)))
    for args, kind, message in [
        ((parts, jnp.ones(2)), ValueError, r"leading axis of 2.*\(3, 2\)"),
        ((parts, jnp.ones((3, 1))), ValueError, r"\(3, 1\)"),
        ((parts, jnp.array([1.0, 0.0, 1.0])), ValueError, "weights .*positive.*0"),
        ((parts, jnp.array([1.0, np.nan, 1.0])), ValueError, "weights .*nan"),
        ((dst.Normal(), jnp.ones(2)), ValueError, r"leading axis of 2.*\(\)"),
    ]:
        with pytest.raises(kind, match=message) as caught:
            dst.VmapMixture(*args)
        assert "\n" not in str(caught.value)


# The multivariate normal.


def test_multivariate_normal_is_that_of_scipy(key):
    rng = np.random.default_rng(0)
    factor, loc = rng.normal(size=(4, 4)), rng.normal(size=4)
    covariance = factor @ factor.T + 0.1 * np.eye(4)
    reference: Any = stats.multivariate_normal
    dist, reference = dst.MultivariateNormal(loc, covariance), reference(loc, covariance)
    x = reference.rvs(8, random_state=1)
    close(dist.log_prob(x), reference.logpdf(x), 1e3 * EPS)
    close(dist.entropy(), reference.entropy(), 100 * EPS)
    close(dist.covariance, covariance, 100 * EPS)
    close(dist.variance, np.diag(covariance), 100 * EPS)
    close(dist.mean, loc, 10 * EPS)
    draws = np.asarray(dist.sample(key, 5000), np.float64)
    kolmogorov_smirnov(stats.norm.cdf(np.linalg.solve(np.linalg.cholesky(covariance), (draws - loc).T).T))


def test_covariance_with_rounding_in_its_symmetry_is_accepted():
    covariance = np.array([[2.0, 0.3], [0.3, 1.0]], FLOAT)
    covariance[0, 1] = np.nextafter(covariance[0, 1], FLOAT(1))
    assert dst.MultivariateNormal(0.0, covariance).shape == (2,)


# Mixtures.


LOCS = np.array([[-2.0, 0.0], [1.0, 3.0], [4.0, -1.0]])
SCALES, WEIGHTS = np.array([0.5, 1.0, 2.0]), np.array([1.0, 3.0, 6.0])


def normals():
    return eqx.filter_vmap(lambda loc, scale: dst.Normal(loc, scale))(jnp.asarray(LOCS), jnp.asarray(SCALES))


def mixture_cdf(x):
    return np.einsum("k,kni->ni", WEIGHTS / 10, stats.norm.cdf((x - LOCS[:, None]) / SCALES[:, None, None]))


def test_mixture_is_the_weighted_sum_of_its_components():
    mixture = dst.VmapMixture(normals(), WEIGHTS)
    x = np.random.default_rng(0).normal(size=(20, 2)) * 4
    terms = stats.norm.logpdf(x, LOCS[:, None], SCALES[:, None, None]).sum(-1)
    close(mixture.log_prob(x), sps.logsumexp(terms + np.log(WEIGHTS / 10)[:, None], axis=0), 100 * EPS)
    close(mixture.weights, WEIGHTS / 10, 10 * EPS)
    close(mixture.cdf(x), mixture_cdf(x), 50 * EPS)
    mean = WEIGHTS @ LOCS / 10
    close(mixture.mean, mean, 50 * EPS)
    close(mixture.variance, WEIGHTS @ (SCALES[:, None] ** 2 + (LOCS - mean) ** 2) / 10, 50 * EPS)
    assert not hasattr(dst.VmapMixture(transformed_normals(), WEIGHTS), "mean")


def transformed_normals():
    """The same components with so many parameters that a batch is not drawn by copying them."""
    make = eqx.filter_vmap(lambda loc, scale: bij.TriangularAffine(loc, scale * jnp.eye(2)))
    chain = bij.Chain([make(jnp.zeros((3, 2)), jnp.ones(3)), make(jnp.asarray(LOCS), jnp.asarray(SCALES))])
    return dst.Transformed(dst.StandardNormal((2,)), chain)


@pytest.mark.parametrize("components", [normals, transformed_normals])
def test_mixture_draws_follow_its_density(components, key):
    mixture = dst.VmapMixture(components(), WEIGHTS)
    together, log_prob = mixture.sample_and_log_prob(key, 5000)
    for x in (together, jax.vmap(mixture.sample)(jr.split(key, 5000))):
        uniform = mixture_cdf(np.asarray(x, np.float64))
        for column in uniform.T:
            assert stats.kstest(column, "uniform").pvalue > FALSE_ALARM
        # The second component is alone where the second coordinate is large; coordinates come from one component.
        share = (np.asarray(x)[:, 1] > 1.5).mean()
        expected = 1 - mixture_cdf(np.array([[0.0, 1.5]]))[0, 1]
        assert abs(share - expected) < 5 * np.sqrt(expected / 5000)
        both = ((np.asarray(x)[:, 1] > 1.5) & (np.asarray(x)[:, 0] < -1.0)).mean()
        assert both < 0.02
    close(log_prob, dst.VmapMixture(normals(), WEIGHTS).log_prob(together), 1e3 * EPS)


def test_mixture_of_uniforms_is_minus_inf_between_them_with_clean_gradients():
    parts = eqx.filter_vmap(dst.Uniform)(jnp.array([0.0, 2.0]), jnp.array([1.0, 4.0]))
    mixture = dst.VmapMixture(parts, jnp.ones(2))
    x = jnp.array([0.5, 1.5, 3.0, -1.0, jnp.nan, 1.0])
    close(mixture.log_prob(x), [np.log(0.5), -np.inf, np.log(0.25), -np.inf, np.nan, np.log(0.5)], 10 * EPS)
    assert mixture.support.kind == "unknown"

    def total(mixture, x):
        log_prob = mixture.log_prob(x)
        return jnp.where(jnp.isfinite(log_prob), log_prob, 0).sum()

    grads = eqx.filter_grad(total)(mixture, x[:4])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_mixture_keeps_a_support_that_does_not_depend_on_parameters():
    parts = eqx.filter_vmap(dst.Exponential)(jnp.array([1.0, 2.0]))
    mixture = dst.VmapMixture(parts, jnp.ones(2))
    assert eqx.tree_equal(mixture.support, Positive(closed=True))
    assert isinstance(dst.VmapMixture(normals(), WEIGHTS).support, Real)
    close(mixture.log_prob(jnp.array([0.0, -1.0])), [np.log(1.5), -np.inf], 10 * EPS)


def test_mixture_of_conditional_components(key):
    """Each row has a condition of its own; a component is shifted by its own multiple of the condition."""

    def make(slope):
        linear = eqx.nn.Linear(1, 1, use_bias=False, key=jr.key(0))
        linear = eqx.tree_at(lambda layer: layer.weight, linear, slope[None, None])
        return dst.Transformed(dst.StandardNormal((1,)), bij.AdditiveCondition(linear, (1,), (1,)))

    mixture = dst.VmapMixture(eqx.filter_vmap(make)(jnp.array([2.0, -3.0])), jnp.array([1.0, 3.0]))
    assert mixture.cond_shape == (1,)
    c = np.array([[0.0], [1.0], [-2.0]])
    x = np.array([[0.5], [2.0], [5.0]])
    expected = np.log(0.25 * stats.norm.pdf(x, 2 * c) + 0.75 * stats.norm.pdf(x, -3 * c))[:, 0]
    close(mixture.log_prob(x, c), expected, 100 * EPS)
    draws = np.asarray(mixture.sample(key, 4000, c), np.float64)
    assert draws.shape == (4000, 3, 1)
    draws, c = draws[..., 0], c[:, 0]
    kolmogorov_smirnov(0.25 * stats.norm.cdf(draws - 2 * c) + 0.75 * stats.norm.cdf(draws + 3 * c))


def test_mixture_built_under_vmap_and_inside_jit():
    @eqx.filter_jit
    def log_prob(locs, x):
        mixture = dst.VmapMixture(eqx.filter_vmap(dst.Normal)(locs), jnp.ones(2))
        return mixture.log_prob(x)

    locs = jnp.array([[0.0, 2.0], [1.0, 5.0]])
    got = jax.vmap(log_prob, (0, None))(locs, jnp.asarray(0.5))
    close(got, np.log(stats.norm.pdf(0.5 - np.asarray(locs, np.float64)).mean(1)), 50 * EPS)
