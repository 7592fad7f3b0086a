"""The units of a premade flow onto a set of its own (a simplex, circles beside real columns); a fit sets them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowlib._module import peel
from flowlib.bijections import InDataUnits, backward_batch
from flowlib.train._data_checks import listed
from flowlib.train._moments import condition_units, moments


def is_new(bijection: Any) -> bool:
    """Whether a bijection is an `InDataUnits` as it is built onto a set, with locations 0 and scales 1."""
    units = peel(bijection)
    return (
        isinstance(units, InDataUnits)
        and units.to_data is not None
        and not any(np.asarray(peel(array)).any() for array in (units.location, units.log_scale))
    )


def set_units(units: InDataUnits, arrays: tuple[Any, ...], weights: Any, dtype: np.dtype) -> InDataUnits:
    """With location and scale of the real values that `to_data` makes into data.

    Raises:
        ValueError: if a row of x is not what `to_data` can make.
    """
    x = np.asarray(arrays[0])
    weights = None if weights is None else np.asarray(weights, np.float64)
    values, valid = _real_values(units.to_data, jnp.asarray(x.astype(dtype)))
    outside = ~np.asarray(valid)
    if outside.any():
        rows = np.flatnonzero(outside)
        raise ValueError(
            f"x expected rows of {peel(units.to_data).codomain.kind} support, got {x[rows[0]].tolist()} at row "
            f"{rows[0]} (counted from zero); {len(rows)} of {len(x)} rows are outside, {listed(rows.tolist(), 'row')}."
        )
    location, scale = moments(np.asarray(values), weights, dtype)
    options = condition_units(units.bijection, arrays, weights, dtype)
    return InDataUnits(units.bijection, location, scale, to_data=units.to_data, columns=units.columns, **options)


@eqx.filter_jit
def _real_values(to_data: Any, x: Array) -> tuple[Array, Array]:
    values, log_det = backward_batch(to_data, jax.vmap(peel(to_data).codomain.in_range)(x))
    return values, log_det.valid & jnp.isfinite(values).reshape(len(x), -1).all(axis=1)
