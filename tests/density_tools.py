"""What tests of single distributions share: comparison, and tests of samplers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats as stats

from contract_tools import EPS

FALSE_ALARM = 1e-6


def close(actual: Any, expected: Any, tolerance: float = 100 * EPS) -> None:
    """Equal, NaN and infinite together, or within tolerance of 1 + |expected|."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def kolmogorov_smirnov(uniform: Any) -> None:
    """Columns that should be independent and uniform on (0, 1), at a false-alarm rate of 1e-6 a column."""
    uniform = np.asarray(uniform, np.float64).reshape(len(uniform), -1)
    assert all(stats.kstest(column, "uniform").pvalue > FALSE_ALARM for column in uniform.T)
    if uniform.shape[1] > 1:
        # Correlations are normal with standard deviation 1 / sqrt(n): beyond 5.5 of them once in 2e7.
        correlation = np.corrcoef(uniform.T) - np.eye(uniform.shape[1])
        assert np.abs(correlation).max() < 5.5 / np.sqrt(len(uniform))


@eqx.filter_jit
def gradients(make: Callable[..., Any], params: tuple, x: Any) -> tuple[tuple, Any]:
    """Of the log density at each row of x: in the arguments of the constructor, and in x."""
    params = tuple(jnp.asarray(param) for param in params)
    grad = jax.grad(lambda params, x: make(*params).log_prob(x), (0, 1))
    return jax.vmap(grad, (None, 0))(params, jnp.asarray(x))
