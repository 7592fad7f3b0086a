"""Fingerprints: short strings that are equal for values that mean the same, in every process and on every machine."""

import dataclasses
import enum
import functools
import hashlib
import inspect
import types
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib._arrays import is_concrete

_READABLE = 40
_DIGITS = 16
_NUMBERS = (bool, int, float, complex)
_PLAIN = (type(None), *_NUMBERS, str)
_ARRAYS = (jax.Array, np.ndarray, np.generic)
# Whose objects around a function (jit, custom_jvp, lru_cache) count by that function.
_WRAPPERS = ("jax", "jaxlib", "functools")
# Functions without Python code are known by their names.
_BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc)


def fingerprint(value: Any) -> str:
    """What `value` is, as one short line: itself where that is short, else its kind and 16 hexadecimal digits.

    Arrays count by dtype, shape and bytes, of NumPy or JAX alike; trees, dataclasses and other objects by class name
    and content; classes by name. Functions count by name, code, defaults, closure and the numbers that they read from
    their module: a function built twice from equal parts has one fingerprint. Other functions that they call
    by global names are NOT followed. Code differs between versions of Python and of libraries.

    Raises:
        TypeError: if something inside has no content that can be compared, such as a generator, a lock or a tracer.
    """
    if _is_plain(value) and len(repr(value)) <= _READABLE:
        return repr(value)
    if _is_number_array(value):
        return f"{value.dtype}({np.asarray(value)[()]!s})"
    return f"{_kind(value)} {_Digests().of(value).hex()[:_DIGITS]}"


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and len(value) <= _READABLE and all(map(_is_plain, value)))


def _is_number_array(value: Any) -> bool:
    if not isinstance(value, _ARRAYS) or not is_concrete(value) or value.shape != ():
        return False
    return value.dtype == bool or jnp.issubdtype(value.dtype, jnp.number)


def _kind(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__qualname__


class _Digests:
    """Digests of values and all that they hold; each object is looked at once, so that cycles end."""

    def __init__(self):
        # The values are kept so that their ids stay theirs.
        self._done: dict[int, tuple[Any, bytes]] = {}
        self._depths: dict[int, int] = {}

    def of(self, value: Any) -> bytes:
        if type(value) in _PLAIN or isinstance(value, bytes):
            return _node(type(value).__name__, repr(value).encode())
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._depths:
            # A cycle: how far up it leads.
            return _node("cycle", str(len(self._depths) - self._depths[id(value)]).encode())
        self._depths[id(value)] = len(self._depths)
        digest = self._of_object(value)
        del self._depths[id(value)]
        self._done[id(value)] = (value, digest)
        return digest

    def _of_object(self, value: Any) -> bytes:
        if not is_concrete(value):
            raise TypeError("A traced array has no fingerprint: take it outside jit, vmap and grad.")
        if isinstance(value, _ARRAYS):
            return self._of_array(value)
        if isinstance(value, type):
            return _node("class", _name(value))
        if isinstance(value, enum.Enum):
            return _node("enum", _name(type(value)), value.name.encode())
        if isinstance(value, list | tuple):
            return self._of_parts(value, *value)
        if isinstance(value, set | frozenset):
            return _node("set", *sorted(map(self.of, value)))
        if isinstance(value, dict | types.MappingProxyType):
            pairs = sorted((self.of(key), self.of(item)) for key, item in value.items())
            return _node("dict", _name(type(value)), *(part for pair in pairs for part in pair))
        if isinstance(value, functools.partial):
            return self._of_parts(value, value.func, value.args, value.keywords)
        if dataclasses.is_dataclass(value):
            fields = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
            return self._of_parts(value, *fields, *(getattr(value, name) for name in fields))
        return self._of_callable(value)

    def _of_array(self, value: Any) -> bytes:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return _node("key", str(jr.key_impl(value)).encode(), self._of_array(jr.key_data(value)))
        array = np.asarray(value)
        kind = _node("array", str(array.dtype).encode(), repr(array.shape).encode())
        if array.dtype.hasobject:
            return _node("objects", kind, *map(self.of, array.ravel().tolist()))
        return _node("bytes", kind, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def _of_callable(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.MethodType):
            return self._of_parts(value, value.__func__, value.__self__)
        if isinstance(value, types.CodeType):
            return self._of_code(value)
        if isinstance(value, types.CellType):
            return self._of_parts(value, *_contents(value))
        if isinstance(value, types.UnionType):
            return self._of_parts(value, *value.__args__)
        if isinstance(value, types.ModuleType):
            return _node("module", value.__name__.encode())
        if isinstance(value, _BUILT_IN):
            owner = getattr(value, "__self__", None)
            return self._of_parts(value, getattr(value, "__qualname__", value.__name__), owner)
        if hasattr(value, "__wrapped__") and type(value).__module__.partition(".")[0] in _WRAPPERS:
            # What else they hold is caches.
            return self._of_parts(value, value.__wrapped__)
        return self._of_other(value)

    def _of_function(self, value: types.FunctionType) -> bytes:
        if _only_checks(value):
            return self.of(inspect.unwrap(value, stop=lambda inner: not _only_checks(inner)))
        numbers = {
            name: value.__globals__[name]
            for name in value.__code__.co_names
            if type(value.__globals__.get(name)) in _NUMBERS
        }
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__, numbers)
        return _node("function", _name(value), *map(self.of, parts))

    def _of_code(self, code: types.CodeType) -> bytes:
        arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        parts = (arguments, code.co_code, code.co_exceptiontable, code.co_consts, code.co_names, code.co_freevars)
        return _node("code", *map(self.of, parts))

    def _of_other(self, value: Any) -> bytes:
        # What pickle would store, without its writing anything.
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise TypeError(f"A {_name(type(value)).decode()} has no content to take a fingerprint of.") from error
        if isinstance(reduced, str):
            return _node("global", _name(type(value)), reduced.encode())
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return self._of_parts(value, make, arguments, state, list(items or ()), list(pairs or ()))

    def _of_parts(self, value: Any, *parts: Any) -> bytes:
        return _node("object", _name(type(value)), *map(self.of, parts))


def _node(tag: str, *parts: Any) -> bytes:
    """The digest of a tag and parts; the length before each part keeps them apart."""
    digest = hashlib.sha256(tag.encode())
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _name(value: Any) -> bytes:
    return f"{value.__module__}.{value.__qualname__}".encode()


def _only_checks(function: Any) -> bool:
    # The code that beartype and jaxtyping put around a function names objects by their addresses.
    file, module = function.__code__.co_filename, str(function.__globals__.get("__name__"))
    return hasattr(function, "__wrapped__") and (file.startswith("<@beartype") or module.startswith("jaxtyping."))


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        # Not filled yet.
        return ()
