"""Arrays at the boundary: what becomes an array, in which dtype, and the checks on concrete values."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from flowlib._host_array import host_array


def real_array(value: Any, name: str, *, keep_integers: bool = False) -> Array:
    """`value` as a JAX array of a floating dtype; integers and booleans become the default float.

    With `keep_integers`, integers stay (class labels for an embedding, say), unless some are beyond those of JAX.

    Raises:
        TypeError: for strings, objects, complex numbers, PRNG keys and sparse matrices.
        ValueError: for an array of which cells are masked.
    """
    value = host_array(value, name)
    if not isinstance(value, jax.Array):
        return jnp.asarray(without_wide_integers(value) if keep_integers else _as_floats(value))
    if jnp.issubdtype(value.dtype, jnp.floating):
        return value
    if jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == bool:
        return value if keep_integers else value.astype(default_float())
    raise TypeError(f"{name} must hold real numbers, got dtype {value.dtype}. Convert it to float first.")


def without_wide_integers(array: np.ndarray) -> np.ndarray:
    """The array; with whole numbers beyond the range of JAX's integers as floats, for JAX would wrap them."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return array
    info = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
    if array.dtype.itemsize <= info.dtype.itemsize or (array.min() >= info.min and array.max() <= info.max):
        return array
    return array.astype(default_float())


def _as_floats(array: np.ndarray) -> np.ndarray:
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(default_float())


def default_float() -> np.dtype:
    """float32, or float64 where JAX runs with 64 bits enabled."""
    return jnp.result_type(float)


def float_dtype(*trees: Any) -> np.dtype:
    """The dtype to which all floating arrays in the trees promote; the default float where there are none."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(trees) if eqx.is_inexact_array(leaf)}
    if not dtypes:
        return default_float()
    return promoted(*sorted(dtypes, key=str))


def promoted(*dtypes: Any) -> np.dtype:
    """The dtype to which all of them promote, also where the user has made implicit promotion an error."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, map(jnp.dtype, dtypes))


def cast_floats(tree: Any, dtype: Any) -> Any:
    """Cast every floating array in the tree, and nothing else."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def is_concrete(value: Any) -> bool:
    """Whether the values can be looked at: false inside `jit`, `vmap`, `grad` and `eval_shape`."""
    return not isinstance(value, Tracer)


def check_values(value: Any, name: str, ok: Callable[[np.ndarray], np.ndarray], wanted: str) -> None:
    """Raise a ValueError that names the first offending value, when the values are concrete."""
    if not is_concrete(value):
        return
    array = np.asarray(value)
    good = np.broadcast_to(ok(array), array.shape)
    if not good.all():
        raise ValueError(f"{name} must be {wanted}, got {array[~good].ravel()[0]}.")


def check_positive(value: Any, name: str) -> None:
    """Raise unless every (concrete) value is positive and finite."""
    check_values(value, name, lambda a: (a > 0) & np.isfinite(a), "positive and finite")


def check_flag(value: Any, name: str) -> bool:
    """`value` if it is True or False.

    Raises:
        TypeError: if it is not: any string would count as True.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return int(value)


def check_fraction(value: Any, name: str, where: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: unless it lies between 0 and 1.
    """
    if not 0 < value < 1:
        raise ValueError(f"{where} expected {name} in (0, 1), got {value}.")
    return float(value)


def as_shape(value: Any, name: str = "shape") -> tuple[int, ...]:
    """`value` as a tuple of non-negative ints; an int stands for a one-tuple."""
    entries = value if isinstance(value, tuple | list) else (value,)
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, int | np.integer) or entry < 0:
            raise ValueError(f"{name} must be a tuple of non-negative integers, got {value!r}.")
    return tuple(int(entry) for entry in entries)


def check_key(key: Any) -> Array:
    """`key` if it is one PRNG key, typed (`jax.random.key`) or legacy (`jax.random.PRNGKey`).

    Raises:
        TypeError: for anything else.
    """
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return key
        if key.dtype == jnp.uint32 and key.shape == _legacy_shape(_default_impl()):
            return key
        got = f"an array of dtype {key.dtype} and shape {key.shape}"
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            got = f"{key.size} of them, of shape {key.shape}"
    else:
        got = repr(key)
    raise TypeError(f"key must be a JAX PRNG key such as jax.random.key(0), got {got}.")


def _default_impl() -> str:
    return jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _legacy_shape(impl: str) -> tuple[int, ...]:
    return jax.eval_shape(functools.partial(jax.random.PRNGKey, impl=impl), 0).shape


def as_columns(condition: Array, x: Array) -> Array:
    """The conditions of the columns of x, one shared by all or one a row."""
    condition = condition.astype(x.dtype)
    return jnp.broadcast_to(condition[:, None], (len(condition), x.shape[1])) if condition.ndim == 1 else condition.T
