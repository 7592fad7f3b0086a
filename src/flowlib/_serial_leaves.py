"""Where the arrays of a tree go, and what is the user's own: into a file, or into a pickle."""

import importlib
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib._arrays import is_concrete
from flowlib._serial_file import DTYPES
from flowlib._serial_names import own_function_name
from flowlib._serial_tree import AbstractSink, AbstractSource
from flowlib.errors import FileFormatError

_ADVICE = "use a named function such as jax.nn.relu, or a module-level function of your own"


class FileSink(AbstractSink):
    """Collects the arrays of a file, and refuses what a file cannot hold."""

    def __init__(self):
        self.arrays: list[np.ndarray] = []
        self.owned: dict[str, Any] = {}
        self._indices: dict[int, tuple[Any, int]] = {}

    def array(self, value, path):
        if not is_concrete(value):
            raise TypeError(f"{path}: a traced array cannot be saved; save outside jit, vmap and grad.")
        if isinstance(value, np.generic):
            return {"scalar": self._add(value, np.asarray(value), path)}
        if isinstance(value, np.ndarray):
            if type(value) not in (np.ndarray, np.memmap):
                raise TypeError(f"{path}: a {type(value).__name__} cannot be saved; use a plain array.")
            return {"numpy": self._add(value, np.asarray(value), path)}
        if not value.is_fully_addressable:
            raise TypeError(f"{path}: an array spread over several processes cannot be saved; gather it first.")
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = np.asarray(jr.key_data(value))
            return {"key": [self._add(value, data, path), str(jr.key_impl(value))]}
        return {"weak" if value.weak_type else "array": self._add(value, np.asarray(value), path)}

    def own(self, value, path):
        name = value.__name__ if isinstance(value, type) else own_function_name(value)
        if name is None:
            raise TypeError(f"{path}: {_kind_of_function(value)} cannot be saved; {_ADVICE}.")
        if value.__module__.startswith("flowlib."):
            raise TypeError(f"{path}: {value.__module__}.{name} has no name of its own in saved files.")
        name = f"user.{name}"
        if self.owned.setdefault(name, value) is not value:
            raise TypeError(f"{path}: two different classes or functions of the name {name} cannot be saved.")
        return name

    def other(self, value, path):
        # Of Python's or of Equinox's kind.
        if hasattr(value, "__self__"):
            raise TypeError(f"{path}: a bound method cannot be saved; {_ADVICE}.")
        if type(value) is object:
            raise TypeError(f"{path}: a bare object() cannot be saved; build it with equinox.nn.make_with_state.")
        if type(value) is dict:
            raise TypeError(f"{path}: a dict with keys other than strings cannot be saved.")
        raise TypeError(f"{path}: a value of type {type(value).__qualname__} cannot be saved.")

    def _add(self, value, array, path):
        if array.dtype.name not in DTYPES:
            raise TypeError(f"{path}: an array of dtype {array.dtype} cannot be saved.")
        # An array that occurs twice is written once. The value is kept so that its id stays its own.
        _, index = self._indices.setdefault(id(value), (value, len(self.arrays)))
        if index == len(self.arrays):
            self.arrays.append(array.astype(DTYPES[array.dtype.name], copy=False))
        return index


class FileSource(AbstractSource):
    """Puts the arrays of a file on the device."""

    def __init__(self, arrays: list[np.ndarray], own: dict[str, Any]):
        self.rounded: set[str] = set()
        self._arrays = arrays
        self._own = own
        self._on_device: dict[tuple[str, int], jax.Array] = {}
        self._on_host: dict[tuple[str, int], np.ndarray] = {}

    def own(self, name):
        if name not in self._own:
            raise FileFormatError(f"it needs {name!r}; pass it as load(path, classes=[...])")
        return self._own[name]

    def leaf(self, tag, payload):
        match tag:
            case "array" | "weak":
                if (tag, payload) not in self._on_device:
                    self._on_device[tag, payload] = self._put(self._arrays[payload], weak_type=tag == "weak")
                return self._on_device[tag, payload]
            case "numpy":
                # Not a copy each: a manifest may name one array many times.
                if (tag, payload) not in self._on_host:
                    self._on_host[tag, payload] = self._arrays[payload].copy()
                return self._on_host[tag, payload]
            case "scalar":
                return self._arrays[payload][()]
            case "key":
                index, impl = payload
                if (f"key {impl}", index) not in self._on_device:
                    keys = jr.wrap_key_data(jnp.asarray(self._arrays[index]), impl=impl)
                    self._on_device[f"key {impl}", index] = keys
                return self._on_device[f"key {impl}", index]
            case _:
                raise FileFormatError(f"it has an entry of the unknown kind {tag!r}")

    def _put(self, array, *, weak_type):
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        if dtype != array.dtype:
            self.rounded.add(array.dtype.name)
            with np.errstate(over="ignore"):
                narrow = array.astype(dtype)
            if array.dtype.kind in "iu" and (narrow != array).any():
                raise FileFormatError(f"it holds {array.dtype} values beyond 32 bits, and jax_enable_x64 is off")
            array = narrow
        value = jnp.asarray(array)
        # Weakly typed arrays of the default dtypes only: there is no public way to others.
        like = jnp.asarray(array.dtype.type(0).item()) if weak_type else value
        if weak_type and like.dtype == value.dtype:
            return jax.lax.full_like(like, 0, shape=array.shape).at[...].set(value)
        return value


class PickleSink(AbstractSink):
    """Leaves arrays, the user's classes and functions, and unknown values to pickle."""

    def __init__(self):
        self.objects: list[Any] = []

    def array(self, value, path):
        return {"object": self._add(value)}

    def other(self, value, path):
        return {"object": self._add(value)}

    def own(self, value, path):
        plain = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
        return self._add(value if plain or own_function_name(value) is None else _ByName(value))

    def _add(self, value):
        self.objects.append(value)
        return len(self.objects) - 1


class PickleSource(AbstractSource):
    """Gives back what pickle restored."""

    def __init__(self, objects: tuple[Any, ...]):
        self._objects = objects

    def leaf(self, tag, payload):
        return self._objects[payload]

    def own(self, name):
        value = self._objects[name]
        return value.fn if isinstance(value, _ByName) else value


class _ByName:
    """A module-level function that pickle does not recognise as one, `@jax.jit def f(x)` for instance."""

    def __init__(self, fn: Callable):
        self.fn = fn

    def __reduce__(self):
        return _import, (self.fn.__module__, own_function_name(self.fn))


def _import(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _kind_of_function(fn: Callable) -> str:
    name = getattr(fn, "__name__", None)
    if name == "<lambda>":
        return "a lambda"
    if name is None:
        return f"a callable of type {type(fn).__qualname__}"
    return f"the function {name}, which cannot be imported by its name,"
