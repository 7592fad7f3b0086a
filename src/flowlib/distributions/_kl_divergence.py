"""How far one distribution is from another: exactly where there is a closed form, else by sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import cast_floats, check_count, check_key, float_dtype, promoted
from flowlib._module import peel, unwrap_own
from flowlib._ranks import broadcasting
from flowlib._wanted import batch_of, kind_of
from flowlib.bijections import merge_cond_shapes
from flowlib.distributions._beta import Beta
from flowlib.distributions._cauchy import Cauchy
from flowlib.distributions._dirichlet import Dirichlet
from flowlib.distributions._distribution import AbstractDistribution
from flowlib.distributions._exponential import Exponential
from flowlib.distributions._gamma import Gamma
from flowlib.distributions._gumbel import EULER, Gumbel
from flowlib.distributions._joint import Joint
from flowlib.distributions._laplace import Laplace
from flowlib.distributions._log_normal import LogNormal
from flowlib.distributions._multivariate_normal import MultivariateNormal
from flowlib.distributions._normal import Normal, StandardNormal
from flowlib.distributions._special import digamma_excess, minus_log1p, stirling_remainder
from flowlib.distributions._uniform import Uniform
from flowlib.distributions._uniform_sphere import UniformSphere
from flowlib.distributions._von_mises import VonMises, log_i0e, log_i0e_slope


class KLDivergence(NamedTuple):
    """What `kl_divergence` gives: a value in nats, and its standard error, which is 0 where the value is exact."""

    value: Array
    standard_error: Array


def kl_divergence(
    p: AbstractDistribution,
    q: AbstractDistribution,
    *,
    key: PRNGKeyArray | None = None,
    num_samples: int = 10_000,
    condition: ArrayLike | None = None,
) -> KLDivergence:
    """KL(p || q) = E[log p(x) - log q(x)] over draws x of p, in nats.

    In closed form, without a key, for two normals (`StandardNormal`, `Normal`, `MultivariateNormal`), `LogNormal`,
    `Laplace`, `Cauchy`, `Gumbel`, `Uniform`, `Beta`, `Dirichlet`, `VonMises` or `UniformSphere`, for `Exponential` and
    `Gamma`, and for two `Joint` of parts of equal shapes, part by part. Else it is the mean over draws, which is
    negative at times where the divergence is small: see the standard error. It is inf if q is 0 where p is not; an
    estimate sees that only if a draw lies there, and has no standard error then (NaN).

    Args:
        p: the distribution that is drawn from.
        q: the other, over events of the same shape.
        key: for an estimate: a JAX PRNG key, typed or legacy.
        num_samples: draws of an estimate, for each condition.
        condition: conditions, of shape `(*batch, *cond_shape)`, for whichever of the two are conditional.

    Returns:
        `value` and `standard_error`, scalars or of the batch shape of the condition.

    Raises:
        ValueError: if shapes differ, there is no closed form and no key, or a condition is missing or cannot be used.
        TypeError: if p or q is no distribution, or `key` is no key.
    """
    for name, dist in (("p", peel(p)), ("q", peel(q))):
        if not isinstance(dist, AbstractDistribution):
            raise TypeError(f"kl_divergence expected a distribution as {name}, got {kind_of(dist)}.")
    if peel(p).shape != peel(q).shape:
        raise ValueError(f"kl_divergence expected events of one shape, got {peel(p).shape} and {peel(q).shape}.")
    num_samples = check_count(num_samples, "num_samples", 2)
    cond_shape = merge_cond_shapes([peel(p).cond_shape, peel(q).cond_shape], "kl_divergence")
    if (cond_shape is None) != (condition is None):
        wanted = "no condition" if cond_shape is None else f"a condition of shape {batch_of(cond_shape)}"
        raise ValueError(f"kl_divergence expected {wanted}, got {'none' if condition is None else 'one'}.")
    pairs = _pairs(p, q)
    key = None if key is None else check_key(key)
    unknown = [
        f"{type(peel(a)).__name__} from {type(peel(b)).__name__}" for a, b in pairs if _closed_form(a, b) is None
    ]
    if unknown and key is None:
        raise ValueError(f"kl_divergence has no closed form of {unknown[0]}: give a key, for an estimate by sampling.")
    keys = [key] * len(pairs)
    if key is not None and len(pairs) > 1:
        keys = list(jr.split(key, len(pairs)))
    terms = [_of_pair(*pair, own, num_samples, condition) for pair, own in zip(pairs, keys, strict=True)]
    # Terms of independent parts: their squared errors add up.
    dtype = promoted(*(value.dtype for value, _ in terms))
    value = sum(value.astype(dtype) for value, _ in terms)
    variance = sum(error.astype(dtype) ** 2 for _, error in terms)
    return KLDivergence(jnp.asarray(value), jnp.sqrt(jnp.asarray(variance)))


def _pairs(p: Any, q: Any) -> list[tuple[Any, Any]]:
    """The two, or the parts of two joints that go together."""
    own_p, own_q = peel(p), peel(q)
    if isinstance(own_p, Joint) and isinstance(own_q, Joint):
        shapes = [[peel(part).shape for part in joint.dists] for joint in (own_p, own_q)]
        if shapes[0] == shapes[1]:
            return [pair for parts in zip(own_p.dists, own_q.dists, strict=True) for pair in _pairs(*parts)]
    return [(p, q)]


def _closed_form(p: Any, q: Any) -> Callable[[Any, Any], Any] | None:
    return _CLOSED_FORMS.get((type(peel(p)), type(peel(q))))


def _of_pair(p, q, key, num_samples, condition):
    exact = _closed_form(p, q)
    if exact is not None:
        value = _evaluate(exact, p, q)
        return value, jnp.zeros_like(value)
    return _estimate(p, q, key, num_samples, condition)


def _in_one_dtype(p, q):
    dtype = promoted(float_dtype(p, q), jnp.float32)
    return dtype, *cast_floats((p, q), dtype)


@broadcasting
@eqx.filter_jit
def _evaluate(exact, p, q):
    dtype, p, q = _in_one_dtype(p, q)
    return jnp.asarray(exact(unwrap_own(p), unwrap_own(q)), dtype)


@broadcasting
@eqx.filter_jit
def _estimate(p, q, key, num_samples, condition):
    _, p, q = _in_one_dtype(p, q)
    p, q = unwrap_own(p), unwrap_own(q)
    x, log_p = p.sample_and_log_prob(key, num_samples, None if p.cond_shape is None else condition)
    if p.cond_shape is None and q.cond_shape is not None:
        # The same draws for all conditions.
        batch_ndim = jnp.ndim(condition) - len(q.cond_shape)
        x, log_p = (jnp.expand_dims(array, range(1, 1 + batch_ndim)) for array in (x, log_p))
    log_q = q.log_prob(x, None if q.cond_shape is None else condition)
    dtype = promoted(log_p.dtype, log_q.dtype)
    difference = log_p.astype(dtype) - log_q.astype(dtype)
    return difference.mean(0), difference.std(0, ddof=1) / num_samples**0.5


# The closed forms, for plain parameters.


def _normal(p, q):
    (loc_p, scale_p), (loc_q, scale_q) = _loc_and_scale(p), _loc_and_scale(q)
    ratio = scale_p / scale_q
    away = jnp.broadcast_to(0.5 * ((loc_p - loc_q) / scale_q) ** 2, p.shape)
    return (away + jnp.broadcast_to(0.5 * (ratio**2 - 1) - jnp.log(ratio), p.shape)).sum()


def _loc_and_scale(dist):
    dtype = float_dtype(dist)
    return (jnp.zeros((), dtype), jnp.ones((), dtype)) if isinstance(dist, StandardNormal) else (dist.loc, dist.scale)


def _multivariate_normal(p, q):
    (loc_p, factor_p), (loc_q, factor_q) = _loc_and_factor(p, q), _loc_and_factor(q, p)
    columns = jnp.concatenate([factor_p, (loc_p - loc_q)[:, None]], axis=1)
    white = jax.scipy.linalg.solve_triangular(factor_q, columns, lower=True)
    log_ratio = jnp.log(jnp.diagonal(factor_q)) - jnp.log(jnp.diagonal(factor_p))
    return 0.5 * ((white**2).sum() - len(loc_p)) + log_ratio.sum()


def _loc_and_factor(dist, other):
    if isinstance(dist, MultivariateNormal):
        return dist.loc, unwrap_own(dist.bijection).triangular
    dtype = float_dtype(dist, other)
    loc, scale = (jnp.broadcast_to(array.astype(dtype), dist.shape) for array in _loc_and_scale(dist))
    return loc, jnp.diag(scale)


def _log_normal(p, q):
    return _normal(unwrap_own(p.base_dist), unwrap_own(q.base_dist))


def _laplace(p, q):
    away, ratio = jnp.abs(p.loc - q.loc), p.scale / q.scale
    return (away / q.scale + ratio * jnp.exp(-away / p.scale) - 1 - jnp.log(ratio)).sum()


def _cauchy(p, q):
    # ((s + t)^2 + (m - n)^2) / (4 s t) is 1 plus this.
    excess = ((p.scale - q.scale) ** 2 + (p.loc - q.loc) ** 2) / (4 * p.scale * q.scale)
    return jnp.log1p(excess).sum()


def _gumbel(p, q):
    ratio, away = p.scale / q.scale, (p.loc - q.loc) / q.scale
    grown = jnp.exp(gammaln(1 + ratio) - away)
    return (EULER * (ratio - 1) - jnp.log(ratio) + away + grown - 1).sum()


def _uniform(p, q):
    within = ((q.minval <= p.minval) & (p.maxval <= q.maxval)).all()
    return jnp.where(within, (jnp.log(q.scale) - jnp.log(p.scale)).sum(), jnp.inf)


def _gamma(p, q):
    # The leading terms of the Gamma functions cancel on paper.
    (a, scale_p), (b, scale_q) = _shape_and_scale(p), _shape_and_scale(q)
    # What the quotient of the means has above 1.
    excess = (a - b) / b * (scale_p / scale_q) + (scale_p - scale_q) / scale_q
    small = (a - b) * digamma_excess(a) + stirling_remainder(b) - stirling_remainder(a)
    return (small + 0.5 * (jnp.log(a) - jnp.log(b)) + b * minus_log1p(excess)).sum()


def _shape_and_scale(dist):
    return (
        (jnp.ones_like(dist.rate), 1 / dist.rate) if isinstance(dist, Exponential) else (dist.concentration, dist.scale)
    )


def _beta(p, q):
    return _of_concentrations(jnp.stack([p.alpha, p.beta]), jnp.stack([q.alpha, q.beta]))


def _dirichlet(p, q):
    return _of_concentrations(p.concentration, q.concentration)


def _of_concentrations(a, b):
    # As for Gamma distributions, of which these are quotients.
    total_a, total_b = a.sum(0), b.sum(0)
    # What the quotients of the means have above 1.
    excess = (a - b) / b * (total_b / total_a) - (total_a - total_b) / total_a
    parts = stirling_remainder(b) - stirling_remainder(a) + (a - b) * digamma_excess(a)
    parts = parts + 0.5 * (jnp.log(a) - jnp.log(b)) + b * minus_log1p(excess)
    totals = stirling_remainder(total_a) - stirling_remainder(total_b) - (total_a - total_b) * digamma_excess(total_a)
    return (parts.sum(0) + totals - 0.5 * (jnp.log(total_a) - jnp.log(total_b))).sum()


def _von_mises(p, q):
    k, away = q.concentration, p.loc - q.loc
    slope = log_i0e_slope(p.concentration)
    heights = log_i0e(k) - log_i0e(p.concentration) + 2 * k * jnp.sin(0.5 * away) ** 2
    return (heights + slope * (p.concentration - k * jnp.cos(away))).sum()


def _zero(p, q):
    return 0.0


_CLOSED_FORMS: dict[tuple[type, type], Callable[[Any, Any], Any]] = {
    (StandardNormal, StandardNormal): _zero,
    (StandardNormal, Normal): _normal,
    (Normal, StandardNormal): _normal,
    (Normal, Normal): _normal,
    (StandardNormal, MultivariateNormal): _multivariate_normal,
    (MultivariateNormal, StandardNormal): _multivariate_normal,
    (Normal, MultivariateNormal): _multivariate_normal,
    (MultivariateNormal, Normal): _multivariate_normal,
    (MultivariateNormal, MultivariateNormal): _multivariate_normal,
    (LogNormal, LogNormal): _log_normal,
    (Laplace, Laplace): _laplace,
    (Cauchy, Cauchy): _cauchy,
    (Gumbel, Gumbel): _gumbel,
    (Uniform, Uniform): _uniform,
    (Exponential, Exponential): _gamma,
    (Exponential, Gamma): _gamma,
    (Gamma, Exponential): _gamma,
    (Gamma, Gamma): _gamma,
    (Beta, Beta): _beta,
    (Dirichlet, Dirichlet): _dirichlet,
    (VonMises, VonMises): _von_mises,
    (UniformSphere, UniformSphere): _zero,
}
