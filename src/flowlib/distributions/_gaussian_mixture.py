"""Mixtures of normal distributions, started from data."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_key
from flowlib._ranks import broadcasting
from flowlib.bijections import Loc, TriangularAffine
from flowlib.constraints import finite
from flowlib.distributions._multivariate_normal import MultivariateNormal
from flowlib.distributions._normal import Normal, StandardNormal
from flowlib.distributions._transformed import AbstractTransformed, Transformed
from flowlib.distributions._vmap_mixture import VmapMixture

# The least variance of a component within its cluster, as a share of that of a column of the data.
_LEAST_VARIANCE = 1e-4


class _TiedNormalMixture(AbstractTransformed):
    """Normals of identity covariance, taken through one triangular matrix.

    Not a `Transformed`: its parameters are in the units of the data, and a fit must not put them into others.
    """

    base_dist: VmapMixture
    bijection: TriangularAffine

    def __init__(self, base_dist: VmapMixture, bijection: TriangularAffine):
        self.base_dist = base_dist
        self.bijection = bijection

    @property
    def weights(self) -> Array:
        """The weights, a plain array of sum 1."""
        return self.base_dist.weights


def gaussian_mixture(
    key: PRNGKeyArray,
    data: ArrayLike,
    *,
    components: int,
    covariance: Literal["full", "diagonal", "tied"] = "full",
    iterations: int = 10,
) -> VmapMixture | AbstractTransformed:
    """sum_k w_k N(x; m_k, C_k), with w, m and C started from clusters of the data: a model, or a base of a flow.

    The clusters are those of k-means, of standardised columns, from k-means++ seeds. Each C_k is the covariance within
    its cluster and all clusters' mean covariance, the latter with the weight of `dim` rows, so that small clusters are
    no points; weights count one row more in each cluster than there are. This is a start: `fit_to_data` trains it.
    A pure function of the key and the data. It costs about `(components + iterations) * rows * components * dim`.

    As the base of a flow, which lies near standard normal points, it can start from some of these:
    `gaussian_mixture(key, jax.random.normal(key, (1000, dim)), components=5)`.

    Args:
        key: a JAX PRNG key, typed or legacy.
        data: finite rows, of shape (rows, dim), as many as components at least.
        components: how many.
        covariance: "full" (a C_k of each component's own), "diagonal" (own, without correlations) or "tied" (one C).
        iterations: Lloyd iterations.

    Returns:
        A distribution over events of shape (dim,), with `weights`; for "full" and "diagonal" a `VmapMixture` with
        mean and variance, and for "diagonal" with a cdf.

    Raises:
        ValueError: if data are not finite, not of two axes, or of too few rows; or an option is none.
        TypeError: if `key` is no key, or the data are no real numbers.

    References:
        Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding; Lloyd (1982), IEEE Transactions
        on Information Theory 28(2).
    """
    key, x = check_key(key), finite(data, "data")
    components, iterations = check_count(components, "components"), check_count(iterations, "iterations", 0)
    if covariance not in ("full", "diagonal", "tied"):
        raise ValueError(f"covariance expected 'full', 'diagonal' or 'tied', got {covariance!r}.")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"gaussian_mixture expected data of shape (rows, dim), got {x.shape}.")
    if len(x) < components:
        raise ValueError(f"gaussian_mixture expected a row for each of {components} components, got {len(x)} rows.")
    means, covariances, pooled, weights = _start(key, x, components, iterations)
    if covariance == "full":
        return VmapMixture(eqx.filter_vmap(MultivariateNormal)(means, covariances), weights)
    if covariance == "diagonal":
        scales = jnp.sqrt(jnp.diagonal(covariances, axis1=1, axis2=2))
        return VmapMixture(eqx.filter_vmap(Normal)(means, scales), weights)
    factor = jnp.linalg.cholesky(pooled)
    white = jax.scipy.linalg.solve_triangular(factor, means.T, lower=True).T
    return _TiedNormalMixture(VmapMixture(eqx.filter_vmap(_shifted)(white), weights), TriangularAffine(0, factor))


def _shifted(loc):
    return Transformed(StandardNormal(loc.shape), Loc(loc))


@broadcasting
@eqx.filter_jit
def _start(key, x, components, iterations):
    """Means, covariances, the mean covariance and weights of clusters, in the units of the data."""
    rows, dim = x.shape
    loc, scale = x.mean(0), x.std(0)
    scale = jnp.where(scale > 0, scale, 1)
    z = (x - loc) / scale
    centres, share = _k_means(key, z, components, iterations)
    count = share.sum(0)
    # One cluster after another: all at once would hold the data once for each.
    scatter = jax.lax.map(lambda cluster: _scatter(z, *cluster), (centres, share.T))
    least = _LEAST_VARIANCE * jnp.eye(dim, dtype=x.dtype)
    pooled = scatter.sum(0) / rows + least
    covariances = (scatter + dim * pooled) / (count + dim)[:, None, None] + least
    units = scale[:, None] * scale
    return loc + scale * centres, covariances * units, pooled * units, (count + 1) / (rows + components)


def _scatter(z, centre, share):
    away = z - centre
    return jnp.matmul((share[:, None] * away).T, away, precision="highest")


def _k_means(key, z, components, iterations):
    """Centres, of shape (components, dim), and a one-hot row of the nearest for each row of z."""
    first, *_ = seeds = jr.split(key, components)
    index = jr.randint(first, (), 0, len(z))

    def seed(nearest, key):
        # A row already taken has distance 0 and so probability 0, unless all rows are taken.
        square = jnp.where((nearest > 0).any(), nearest, 1)
        centre = z[jr.categorical(key, jnp.log(square))]
        return jnp.minimum(nearest, ((z - centre) ** 2).sum(1)), centre

    start = ((z - z[index]) ** 2).sum(1)
    _, others = jax.lax.scan(seed, start, seeds[1:])
    centres = jnp.concatenate([z[index][None], others])

    def assigned(centres):
        square = ((z[:, None] - centres) ** 2).sum(2)
        return jax.nn.one_hot(square.argmin(1), components, dtype=z.dtype)

    def improve(centres, _):
        share = assigned(centres)
        count = share.sum(0)[:, None]
        means = jnp.matmul(share.T, z, precision="highest") / jnp.maximum(count, 1)
        # A cluster without rows keeps its centre.
        return jnp.where(count > 0, means, centres), None

    centres, _ = jax.lax.scan(improve, centres, length=iterations)
    return centres, assigned(centres)
