"""What was not finite in the step at which a fit to a target failed."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from flowlib.train._losses import ElboLoss
from flowlib.train._target import target_of_draws

_OUTSIDE = (
    " If that is outside of where the target is defined, put the distribution on the support of the target before the "
    "fit: flowlib.distributions.with_support(dist, support)."
)


def culprit(loss_fn: Any, params: Any, static: Any, key: Array) -> str:
    """A sentence on what was not finite in a step of a loss with a target; "" if that is not known."""
    if not isinstance(loss_fn, ElboLoss):
        return ""
    x, log_prob, values, gradients = map(np.asarray, _terms_and_gradients(loss_fn, params, static, key))
    bad = ~np.isfinite(values)
    if bad.any():
        i = int(bad.argmax())
        return (
            f" The target is {values[i]} at {_point(x, i)}, and not finite at {bad.sum()} of {len(x)} draws.{_OUTSIDE}"
        )
    bad = ~np.isfinite(log_prob)
    if bad.any():
        i = int(bad.argmax())
        return f" The target is finite; the log density of the distribution is {log_prob[i]} at {_point(x, i)}."
    bad = ~np.isfinite(gradients).reshape(len(x), -1).all(axis=1)
    if bad.any():
        i = int(bad.argmax())
        return f" The target is finite, but its gradient is {gradients[i].tolist()} at {_point(x, i)}."
    return ""


def _point(x, i):
    return f"x = {np.array2string(x[i], precision=4, threshold=8, separator=', ').replace(chr(10), '')}"


@eqx.filter_jit
def _terms_and_gradients(loss_fn, params, static, key):
    (x, *given), batch, log_prob, values = loss_fn.terms(params, static, key)

    def summed(x):
        return target_of_draws(loss_fn.target, (x, *given), batch).sum()

    return x, log_prob, values, jax.grad(summed)(x)
