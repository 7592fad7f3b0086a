"""The cases of distributions, each family with a vector event at every size, and with another shape."""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import flowlib.bijections as bij
import flowlib.distributions as dst
from flowlib.support import Integers
from parts import normal, positive, rotation, shift
from registry import Case, entry

POLE = "the density or its slope has a pole at an end"
OVERFLOW = "exp overflows"
TIES = "there is no density where coordinates are equal"


def located(family, key, *shape):
    """A member of a family with a location and a scale."""
    loc, scale = jr.split(key)
    return family(normal(loc, *shape), positive(scale, *shape))


def student_t(key, *shape):
    df, rest = jr.split(key)
    return located(partial(dst.StudentT, 3 * positive(df, *shape)), rest, *shape)


def two_positive(family, key, *shape):
    first, second = jr.split(key)
    return family(1.5 * positive(first, *shape), 1.5 * positive(second, *shape))


def uniform(key, *shape):
    lower, width = jr.split(key)
    minval = normal(lower, *shape)
    return dst.Uniform(minval, minval + positive(width, *shape))


def location_and_matrix(key, d):
    loc, factor = jr.split(key)
    factor = normal(factor, d, d)
    return normal(loc, d), factor @ factor.T + jnp.eye(d)


def multivariate(key, d):
    return dst.MultivariateNormal(*location_and_matrix(key, d))


def mixture(make, key, n=3):
    parts, weights = jr.split(key)
    return dst.VmapMixture(eqx.filter_vmap(make)(jr.split(parts, n)), positive(weights, n))


def shifted(key, d):
    """A conditional distribution."""
    return dst.Transformed(dst.StandardNormal((d,)), shift(key, d))


def unlike(key, d):
    """A mixture of light, heavy and correlated components."""
    keys = jr.split(key, 4)
    dists = [located(dst.Normal, keys[0], d), student_t(keys[1], d), multivariate(keys[2], d)]
    return dst.Mixture(dists, positive(keys[3], 3))


def truncated(family, key, lower, upper, *shape):
    return dst.Truncated(located(family, key, *shape), lower, upper)


def cut(dist) -> Sequence[float]:
    both = np.concatenate([np.asarray(dist.lower).ravel(), np.asarray(dist.upper).ravel()])
    return both[np.isfinite(both)].tolist()


def side_by_side(key, d):
    """Another distribution in each dimension."""
    keys = jr.split(key, 3)
    dists = [dst.Exponential(positive(keys[0])), located(dst.Laplace, keys[1]), student_t(keys[2], max(d - 2, 1))]
    return dst.Joint(dists[: min(d, 3)])


def clustered(key, d, **options):
    return dst.gaussian_mixture(key, normal(jr.fold_in(key, 1), 20, d), components=3, iterations=2, **options)


def locations(dist) -> Sequence[float]:
    return np.asarray(dist.loc).ravel().tolist()


def turned(dist) -> Sequence[float]:
    return [np.pi, -np.pi, *locations(dist)]


def ends(dist) -> Sequence[float]:
    return [*np.asarray(dist.minval).ravel().tolist(), *np.asarray(dist.maxval).ravel().tolist()]


def dequantized(key, d):
    """Whole numbers in every second column, given a condition."""
    return dst.Dequantized(shifted(key, d), columns=[i % 2 == 0 for i in range(d)], points=4)


def variational(key, d):
    """Noise that depends on the numbers."""
    net = eqx.nn.Linear(d, d, key=jr.fold_in(key, 1))
    noise = dst.Transformed(
        dst.StandardNormal((d,)), bij.Chain([bij.AdditiveCondition(net, (d,), (d,)), bij.Sigmoid((d,))])
    )
    return dst.Dequantized(located(dst.Logistic, key, d), noise=noise, points=4)


def exchangeable(base, *maps):
    return dst.Exchangeable(dst.Transformed(base, bij.Chain([bij.Ordered(*base.shape), *maps])))


def signed(key, d):
    """Absolute values that depend on a condition, with signs that depend on both."""
    dist, net = jr.split(key)
    positives = dst.Transformed(shifted(dist, d), bij.SoftPlus((d,)))
    columns = [i != 1 for i in range(d)]
    return dst.Symmetrised(positives, columns=columns, signs=eqx.nn.Linear(d + 2, d, key=net))


def located_cases(family, default, **facts) -> list[Case]:
    """A family with a location and a scale: events that are vectors, a matrix and a scalar."""
    name = family.__name__
    facts = {"special": locations, **facts}
    return [
        *entry(name, lambda key, d: located(family, key, d), default=default, **facts),
        *entry(f"{name}_matrix", lambda key, d: located(family, key, d // 3, 3), default=6, sizes=(6,), **facts),
        *entry(f"{name}_scalar", lambda key, d: located(family, key), default=1, sizes=(1,), **facts),
    ]


DISTRIBUTIONS: list[Case] = [
    *entry("StandardNormal", lambda key, d: dst.StandardNormal((d,)), default=2),
    *entry("StandardNormal_matrix", lambda key, d: dst.StandardNormal((d // 3, 3)), default=6, sizes=(6,)),
    *located_cases(dst.Normal, default=5),
    *located_cases(dst.LogNormal, default=2),
    *located_cases(dst.Gumbel, default=1, infinite=OVERFLOW),
    *located_cases(dst.Cauchy, default=5),
    *located_cases(dst.Laplace, default=2),
    *located_cases(dst.Logistic, default=1),
    *entry("StudentT", lambda key, d: student_t(key, d), default=5, special=locations),
    *entry("StudentT_matrix", lambda key, d: student_t(key, d // 3, 3), default=6, sizes=(6,), special=locations),
    *entry("MultivariateNormal", lambda key, d: multivariate(key, d), default=5),
    *entry(
        "MultivariateNormal_shared",
        lambda key, d: dst.MultivariateNormal(normal(key), 2 * jnp.eye(d)),
        default=2,
    ),
    *entry(
        "MultivariateStudentT",
        lambda key, d: dst.MultivariateStudentT(3 * positive(key), *location_and_matrix(key, d)),
        default=2,
    ),
    *entry("MultivariateStudentT_heavy", lambda key, d: dst.MultivariateStudentT(1.0, 0.0, jnp.eye(d)), default=5),
    *entry("VonMises", lambda key, d: located(dst.VonMises, key, d), default=2, special=turned),
    *entry("VonMises_scalar", lambda key, d: located(dst.VonMises, key), default=1, sizes=(1,), special=turned),
    *entry("Dirichlet", lambda key, d: dst.Dirichlet(1.5 * positive(key, d)), default=5, sizes=(2, 5), infinite=POLE),
    *entry("Dirichlet_equal", lambda key, d: dst.Dirichlet(2 * jnp.ones(d)), default=2, sizes=(2, 5), infinite=POLE),
    *entry("UniformCircle", lambda key, d: dst.UniformCircle((d,)), default=2),
    *entry("UniformSphere", lambda key, d: dst.UniformSphere(d), default=2, sizes=(2, 5)),
    *entry(
        "UniformSphere_flow",
        lambda key, d: dst.Transformed(dst.UniformSphere(d + 1), bij.Invert(bij.Stereographic(d))),
        default=2,
    ),
    *entry("Uniform", lambda key, d: uniform(key, d), default=2, special=ends),
    *entry("Uniform_matrix", lambda key, d: uniform(key, d // 3, 3), default=6, sizes=(6,), special=ends),
    *entry("Exponential", lambda key, d: dst.Exponential(positive(key, d)), default=5),
    *entry("Exponential_matrix", lambda key, d: dst.Exponential(positive(key, d // 3, 3)), default=6, sizes=(6,)),
    *entry("Gamma", lambda key, d: two_positive(dst.Gamma, key, d), default=2, infinite=POLE),
    *entry(
        "Gamma_matrix", lambda key, d: two_positive(dst.Gamma, key, d // 3, 3), default=6, sizes=(6,), infinite=POLE
    ),
    *entry("Beta", lambda key, d: two_positive(dst.Beta, key, d), default=5, infinite=POLE),
    *entry("Beta_matrix", lambda key, d: two_positive(dst.Beta, key, d // 3, 3), default=6, sizes=(6,), infinite=POLE),
    *entry("Dequantized", lambda key, d: dst.Dequantized(located(dst.Normal, key, d // 3, 3)), default=6, sizes=(6,)),
    *entry("Dequantized_columns", lambda key, d: dequantized(key, d), default=2),
    *entry("Dequantized_noise", lambda key, d: variational(key, d), default=1),
    *entry(
        "Dequantized_interval",
        lambda key, d: dst.Dequantized(dst.Transformed(dst.StandardNormal((d,)), bij.ToSupport((0.0, 7.0), (d,)))),
        default=5,
    ),
    *entry("Folded", lambda key, d: dst.Folded(located(dst.Normal, key, d)), default=2),
    *entry("Folded_columns", lambda key, d: dst.Folded(shifted(key, d), columns=[i != 1 for i in range(d)]), default=5),
    *entry("Symmetrised", lambda key, d: dst.Symmetrised(dst.Folded(dst.Normal(normal(key, d) / 4, 1.5))), default=2),
    *entry("Symmetrised_signs", signed, default=5, infinite=POLE),
    # In more dimensions hardly any draws are in the gaps between the orders, which a test by importance weights needs.
    *entry(
        "Exchangeable",
        lambda key, d: exchangeable(located(dst.Logistic, key, d)),
        default=2,
        sizes=(1, 2),
        infinite=TIES,
    ),
    *entry(
        "Exchangeable_positive",
        lambda key, d: exchangeable(shifted(key, d), bij.SoftPlus((d,))),
        default=5,
        infinite=TIES,
    ),
    *entry("Truncated", lambda key, d: truncated(dst.Normal, key, -1.0, 2.0, d), default=5, special=cut),
    *entry("Truncated_below", lambda key, d: truncated(dst.Logistic, key, 5.0, jnp.inf, d), default=1, special=cut),
    *entry("Quantized", lambda key, d: dst.Quantized(located(dst.Normal, key, d // 3, 3)), default=6, sizes=(6,)),
    *entry(
        "Quantized_values",
        lambda key, d: dst.Quantized(located(dst.Logistic, key, d), values=Integers(-2, 5)),
        default=2,
    ),
    *entry("VmapMixture", lambda key, d: mixture(lambda k: located(dst.Normal, k, d), key), default=5),
    *entry("VmapMixture_full", lambda key, d: mixture(lambda k: multivariate(k, d), key, n=2), default=2),
    *entry("VmapMixture_uniform", lambda key, d: mixture(lambda k: uniform(k, d), key), default=1),
    *entry(
        "VmapMixture_positive",
        lambda key, d: mixture(lambda k: dst.Exponential(positive(k, d // 3, 3)), key),
        default=6,
        sizes=(6,),
    ),
    *entry("VmapMixture_conditional", lambda key, d: mixture(lambda k: shifted(k, d), key), default=2),
    *entry("Mixture", lambda key, d: unlike(key, d), default=2),
    *entry(
        "Mixture_conditional",
        lambda key, d: dst.Mixture([shifted(key, d), located(dst.Logistic, jr.fold_in(key, 1), d)]),
        default=1,
    ),
    *entry("Joint", lambda key, d: side_by_side(key, d), default=5),
    *entry(
        "Joint_conditional",
        lambda key, d: dst.Joint([located(dst.Normal, key), shifted(jr.fold_in(key, 1), d - 1)]),
        default=2,
        sizes=(2, 5),
    ),
    *entry("gaussian_mixture_tied", lambda key, d: clustered(key, d, covariance="tied"), default=2),
    *entry(
        "Transformed",
        lambda key, d: dst.Transformed(located(dst.Logistic, key, d), rotation(jr.fold_in(key, 1), d)),
        default=5,
    ),
    *entry(
        "Transformed_support",
        lambda key, d: dst.Transformed(dst.Exponential(positive(key, d)), bij.Invert(bij.SoftPlus((d,)))),
        default=2,
    ),
    *entry("Transformed_conditional", lambda key, d: shifted(key, d), default=1),
    *entry(
        "Transformed_conditional_base",
        lambda key, d: dst.Transformed(shifted(key, d), bij.Reshape(bij.Exp((d,)), out_shape=(3, d // 3))),
        default=6,
        sizes=(6,),
        infinite=OVERFLOW,
    ),
]
