"""How far the inputs that `Scan(gradient="rebuild")` rebuilds are from the true ones."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from flowlib._arrays import cast_floats, float_dtype, promoted, real_array
from flowlib._module import unwrap_own
from flowlib._ranks import broadcasting
from flowlib.bijections._bijection import AbstractBijection, backward_batch, forward_batch
from flowlib.bijections._chain import Chain
from flowlib.bijections._condition import EmbedCondition
from flowlib.bijections._in_data_units import InDataUnits
from flowlib.bijections._invert import Invert
from flowlib.bijections._rebuild import ANCHOR_EVERY
from flowlib.bijections._scan import Scan

# Where inputs are off by more than this, gradients are off in their third digit or before.
LARGEST_DRIFT = 1e-3


def rebuild_drift(
    bijection: AbstractBijection, x: ArrayLike, condition: ArrayLike | None = None
) -> Float[Array, " layers"]:
    """The errors that `Scan(gradient="rebuild")` makes in `transform`, layer by layer; warns of large ones.

    The gradient of a layer is taken at an input rebuilt from later layers' outputs. The drift of a layer is the
    maximum over rows and coordinates of |rebuilt - x| / (1 + |x|), where x is its true input. For the gradient of
    `dist.log_prob` give `Invert(dist.bijection)`. Costs two passes.

    Args:
        bijection: a scan with `gradient="rebuild"`, or chains, inverses and embedded conditions around such.
        x: a batch of events.
        condition: one condition, or a batch of them. Defaults to None.

    Returns:
        The drift of each layer in the order in which they are applied; empty where nothing is rebuilt.

    Warns:
        UserWarning: if one is above 1e-3 or not finite.
    """
    x = real_array(x, "x")
    condition = None if condition is None else real_array(condition, "condition", keep_integers=True)
    drifts = _drifts(bijection, x, condition) if _rebuilds(bijection) else jnp.zeros(0, x.dtype)
    if drifts.size and not float(drifts.max()) <= LARGEST_DRIFT:
        layer = int(jnp.argmax(jnp.where(jnp.isnan(drifts), jnp.inf, drifts)))
        warnings.warn(
            f"Inputs rebuilt for gradients drift by {float(drifts[layer]):.2g} at layer {layer} of {len(drifts)} "
            f'(expected at most {LARGEST_DRIFT}), so that gradients are wrong. Use gradient="recompute".',
            stacklevel=2,
        )
    return drifts


def _rebuilds(bijection):
    def is_scan(node):
        return isinstance(node, Scan)

    return any(is_scan(leaf) and leaf.gradient == "rebuild" for leaf in jax.tree.leaves(bijection, is_leaf=is_scan))


@broadcasting
@eqx.filter_jit
def _drifts(bijection, x, condition):
    dtype = promoted(float_dtype(bijection, x), jnp.float32)
    bijection, x, condition = cast_floats((bijection, x, condition), dtype)
    _, drifts = _follow(bijection, x, condition, inverse=False)
    return jnp.concatenate([jnp.zeros(0, dtype), *drifts])


def _follow(bijection, x, condition, *, inverse):
    """The image of x, and the drifts of each rebuilding scan on the way."""
    bijection = unwrap_own(bijection)
    match bijection:
        case Chain():
            drifts = []
            for part in bijection.bijections[::-1] if inverse else bijection.bijections:
                x, more = _follow(part, x, condition, inverse=inverse)
                drifts += more
            return x, drifts
        case Invert():
            return _follow(bijection.bijection, x, condition, inverse=not inverse)
        case EmbedCondition():
            return _follow(bijection.bijection, x, bijection._embed_batch(condition), inverse=inverse)
        case InDataUnits():
            condition = bijection._standardise_condition(condition)
            if inverse:
                x, _ = bijection._from_units(x, batched=True)
                return _follow(bijection.bijection, x, condition, inverse=True)
            x, drifts = _follow(bijection.bijection, x, condition, inverse=False)
            return bijection._to_units(x, batched=True)[0], drifts
        case Scan(gradient="rebuild"):
            return _follow_scan(bijection, x, condition, inverse=inverse)
        case _:
            return (backward_batch if inverse else forward_batch)(bijection, x, condition)[0], []


def _follow_scan(scan, x, condition, *, inverse):
    step, undo = (backward_batch, forward_batch) if inverse else (forward_batch, backward_batch)
    arrays, rest = eqx.partition(scan.bijection, eqx.is_array)

    def take(x, layer):
        return step(eqx.combine(layer, rest), x, condition)[0], x

    y, inputs = jax.lax.scan(take, x, arrays, reverse=inverse)
    numbers = jnp.arange(len(scan))

    def rebuild(y, layer):
        arrays, x, number = layer
        rebuilt = undo(eqx.combine(arrays, rest), y, condition)[0]
        drift = (jnp.abs(rebuilt - x) / (1 + jnp.abs(x))).max()
        return jnp.where(number % ANCHOR_EVERY == 0, x, rebuilt), drift

    layers = (arrays, inputs, numbers[::-1] if inverse else numbers)
    _, drifts = jax.lax.scan(rebuild, y, layers, reverse=not inverse)
    return y, [drifts[::-1] if inverse else drifts]
