"""The same map in flowlib and in another library, and how far they differ."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from flowlib.bijections import AbstractBijection, backward_batch, forward_batch
from flowlib.distributions import AbstractDistribution


class Pair(NamedTuple):
    """A bijection, and the peer's function from rows to values and log-dets; for a flow, the densities too."""

    ours: AbstractBijection
    theirs: Callable[[Any], tuple[Any, Any]]
    x: np.ndarray
    condition: np.ndarray | None = None
    flow: AbstractDistribution | None = None
    log_prob: Callable[[Any], Any] | None = None

    def ours_rows(self, x: np.ndarray) -> tuple[Any, Any]:
        """The rows and the condition for flowlib's batches."""
        return jnp.asarray(x), None if self.condition is None else jnp.asarray(self.condition)


def differences(pair: Pair) -> dict[str, float]:
    """The largest differences over all rows, relative to 1 + |the peer's value|.

    Of y and log |det dy/dx|; of flowlib's inverse of the peer's y to x, and its log-det; and of log densities.
    """
    y, log_det = map(as_array, pair.theirs(pair.x))
    ours_y, ours_log_det = eqx.filter_jit(forward_batch)(pair.ours, *pair.ours_rows(pair.x))
    x, inverse_log_det = eqx.filter_jit(backward_batch)(pair.ours, *pair.ours_rows(y))
    found = {
        "y": difference(ours_y, y),
        "log-det": difference(ours_log_det.value, log_det),
        "inverse": difference(x, pair.x),
        "inverse log-det": difference(-inverse_log_det.value, log_det),
    }
    if pair.flow is not None and pair.log_prob is not None:
        found["log_prob"] = difference(pair.flow.log_prob(pair.x, pair.condition), as_array(pair.log_prob(pair.x)))
    return found


def difference(ours: Any, theirs: np.ndarray) -> float:
    """The largest |ours - theirs| / (1 + |theirs|); NaN if one is."""
    ours = np.asarray(ours)
    if (ours.shape, ours.dtype, theirs.dtype) != (theirs.shape, np.float64, np.float64):
        raise ValueError(
            f"expected float64 of one shape, got {ours.dtype}{ours.shape} and {theirs.dtype}{theirs.shape}"
        )
    return float(np.max(np.abs(ours - theirs) / (1 + np.abs(theirs))))


def as_array(values: Any) -> np.ndarray:
    """A JAX array or a tensor of PyTorch in NumPy."""
    return values.detach().numpy() if hasattr(values, "detach") else np.asarray(jnp.asarray(values))
