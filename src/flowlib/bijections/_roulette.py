"""Unbiased random estimates of the log-det of the identity plus a contraction."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


def roulette_log_det(
    key: PRNGKeyArray,
    weights: tuple[Array, ...],
    slopes: list[Float[Array, "width n"]],
    *,
    exact_terms: int,
    stop_probability: float,
) -> Float[Array, " n"]:
    """Estimates of log det(I + J), J = W_k S_(k-1) W_(k-1) ... S_1 W_1, for each column of slopes: the matrices S.

    sum_(k=1..N) (-1)^(k+1) v.J^k v / (k P(N >= k)), for random signs v and a number N of terms: the first
    `exact_terms` in any case, and after the last of these and each that follows it ends with `stop_probability`. Both
    are drawn for each column. The gradient is that of w.J v with w = sum_(k=0..N) (-1)^k (J^T)^k v / P(N >= k) held
    fixed. Where the norm of J is below 1, the means of both are exact; their variances are finite where it is below
    sqrt(1 - stop_probability). Takes N products with J^T, until the last column has ended, and none of them is kept.

    References:
        Chen, Behrmann, Duvenaud and Jacobsen 2019 (arXiv:1906.02735), equations 6 and 8.
    """
    probe_key, stop_key = jr.split(key)
    dim, n = weights[0].shape[1], slopes[0].shape[1]
    probe = jr.rademacher(probe_key, (dim, n), weights[0].dtype)
    held = jax.lax.stop_gradient((weights, slopes))

    def goes_on(carry):
        return carry[1].any()

    def add_term(carry):
        k, ongoing, term, log_det, cotangent = carry
        # (-1)^k (J^T)^k v / P(N >= k); 0 from where N is exceeded.
        after_exact = k > exact_terms
        ongoing &= ~after_exact | ~jr.bernoulli(jr.fold_in(stop_key, k), stop_probability, (n,))
        term = -_transposed_product(*held, term) / jnp.where(after_exact, 1 - stop_probability, 1).astype(term.dtype)
        term = jnp.where(ongoing, term, 0)
        return k + 1, ongoing, term, log_det - (probe * term).sum(0) / k.astype(term.dtype), cotangent + term

    start = (jnp.ones((), jnp.int32), jnp.ones(n, bool), probe, jnp.zeros(n, probe.dtype), probe)
    *_, log_det, cotangent = jax.lax.while_loop(goes_on, add_term, start)
    surrogate = (cotangent * _product(weights, slopes, probe)).sum(0)
    return log_det + (surrogate - jax.lax.stop_gradient(surrogate))


def _product(weights, slopes, x):
    """J x."""
    x = jnp.matmul(weights[0], x, precision="highest")
    for weight, slope in zip(weights[1:], slopes, strict=True):
        x = jnp.matmul(weight, slope * x, precision="highest")
    return x


def _transposed_product(weights, slopes, x):
    """J^T x."""
    x = jnp.matmul(weights[-1].T, x, precision="highest")
    for weight, slope in zip(weights[-2::-1], slopes[::-1], strict=True):
        x = jnp.matmul(weight.T, slope * x, precision="highest")
    return x
