"""Small example problems: a two-dimensional density, and a simulator with a known posterior."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import logsumexp, ndtr, ndtri
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_key, check_positive, check_values, real_array
from flowlib._module import Module
from flowlib.distributions import Uniform

# Standard deviations of the two components of the mixture.
_SCALES = (1.0, 0.1)


def two_moons(key: PRNGKeyArray, n_samples: int, noise_std: float = 0.2) -> Float[Array, "n_samples 2"]:
    """Draws near two half circles of radius 2: the upper half about (-1, 0) and the lower half about (1, 0).

    Args:
        key: a JAX PRNG key.
        n_samples: the number of draws.
        noise_std: standard deviation of the normal noise about the half circles.
    """
    angle_key, noise_key = jr.split(check_key(key))
    angle = jr.uniform(angle_key, (check_count(n_samples, "n_samples", 0),), maxval=2 * jnp.pi)
    centre = jnp.where(angle < jnp.pi, -1.0, 1.0)
    moons = jnp.stack([centre + 2 * jnp.cos(angle), 2 * jnp.sin(angle)], axis=1)
    return moons + noise_std * jr.normal(noise_key, moons.shape)


class GaussianMixtureSimulator(Module):
    """Inference of the mean of a two-component normal mixture, whose posterior is known.

    theta is uniform on [-prior_bound, prior_bound]^dim, and x given theta is N(theta, I) or
    N(theta, 0.1^2 I) with equal probability. The posterior of theta is the same mixture about x,
    cut off at the ends of the prior.

    Args:
        dim: the dimension of theta and x.
        prior_bound: the half-width of the prior.

    Raises:
        ValueError: if an argument is not positive.
    """

    dim: int = eqx.field(static=True)
    prior_bound: float = eqx.field(static=True)
    prior: Uniform

    def __init__(self, dim: int = 2, prior_bound: float = 10.0):
        self.dim = check_count(dim, "dim")
        check_positive(prior_bound, "prior_bound")
        self.prior_bound = float(prior_bound)
        self.prior = Uniform(jnp.full(dim, -self.prior_bound), jnp.full(dim, self.prior_bound))

    def simulator(self, key: PRNGKeyArray, theta: ArrayLike) -> Array:
        """One x for each theta, of the shape of `theta`, `(..., dim)`.

        Raises:
            ValueError: if the last axis of `theta` does not have length `dim`.
        """
        theta = real_array(theta, "theta")
        if theta.shape[-1:] != (self.dim,):
            raise ValueError(f"GaussianMixtureSimulator expected theta of shape (..., {self.dim}), got {theta.shape}.")
        return _simulate(check_key(key), theta)

    def sample_reference_posterior(
        self, key: PRNGKeyArray, observation: ArrayLike, num_samples: int
    ) -> Float[Array, "num_samples dim"]:
        """Exact draws from the posterior of theta given one observation.

        Each component of the posterior is a product of truncated normals, drawn by inverting their cumulative
        distribution functions, and has the probability that it leaves inside the prior.

        Raises:
            ValueError: if the observation is not of shape `(dim,)`, or more than 10 outside the
                prior, where the probabilities are too small for float32.
        """
        observation = real_array(observation, "observation")
        if observation.shape != (self.dim,):
            raise ValueError(
                f"GaussianMixtureSimulator expected an observation of shape {(self.dim,)}, got {observation.shape}."
            )
        limit = self.prior_bound + 10
        check_values(observation, "observation", lambda x: abs(x) <= limit, f"within [-{limit}, {limit}]")
        return _posterior(check_key(key), observation, self.prior_bound, check_count(num_samples, "num_samples", 0))


@eqx.filter_jit
def _simulate(key, theta):
    component_key, noise_key = jr.split(key)
    wide, narrow = _SCALES
    scale = jnp.where(jr.bernoulli(component_key, shape=theta.shape[:-1]), narrow, wide).astype(theta.dtype)
    return theta + scale[..., None] * jr.normal(noise_key, theta.shape, theta.dtype)


@eqx.filter_jit
def _posterior(key, observation, bound, num_samples):
    scale = jnp.asarray(_SCALES, observation.dtype)[:, None]
    # By symmetry, take the interval to where its probabilities are lower tails: those are small
    # numbers that floats hold well, while upper tails are 1 less something that they lose.
    sign = jnp.where(observation > 0, 1, -1).astype(observation.dtype)
    upper = (bound - jnp.abs(observation)) / scale
    lower = (-bound - jnp.abs(observation)) / scale
    low, high = ndtr(lower), ndtr(upper)
    log_mass = jnp.log(high - low).sum(axis=1)

    component_key, unit_key = jr.split(key)
    component = jr.categorical(component_key, log_mass - logsumexp(log_mass), shape=(num_samples,))
    unit = jr.uniform(unit_key, (num_samples, observation.size), observation.dtype)
    low, high, upper = low[component], high[component], upper[component]
    # Rounding in ndtri must not carry a draw over the end of the prior.
    z = jnp.minimum(ndtri(low + unit * (high - low)), upper)
    theta = sign * (jnp.abs(observation) + scale[component] * z)
    return jnp.clip(theta, -bound, bound)
