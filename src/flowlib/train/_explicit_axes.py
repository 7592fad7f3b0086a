"""Arrays that are split over an Explicit axis of a mesh, of which JAX wants to know in every operation."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding


def check_unsplit(data: Any, remedy: str) -> None:
    """Raise a ValueError that names the first array split over an Explicit axis; `remedy` says what to do."""
    arrays = data if isinstance(data, tuple) else (data,)
    for i, array in enumerate(arrays):
        axes = _explicit(array)
        if axes:
            name = f"data[{i}]" if len(arrays) > 1 else "data"
            raise ValueError(f"{name} is split over the Explicit mesh axes {axes}: {remedy}.")


def _explicit(array: Any) -> tuple[str, ...]:
    if not isinstance(array, jax.Array) or not isinstance(array.sharding, NamedSharding):
        return ()
    types = dict(zip(array.sharding.mesh.axis_names, array.sharding.mesh.axis_types, strict=True))
    used = [name for entry in array.sharding.spec for name in (entry if isinstance(entry, tuple) else (entry,))]
    return tuple(name for name in used if name is not None and types.get(name) == AxisType.Explicit)
