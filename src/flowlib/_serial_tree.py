"""A tree of modules, arrays and settings as plain JSON values, and back.

None, booleans, integers, finite floats, strings and lists stand for themselves. Everything else is an
object with one key, which says what it is: `{"tuple": [...]}`, `{"module": ["flowlib.Chain", {...}]}`.
Arrays, and what has no registered name, go to a sink, which gives the JSON value that stands for them.
"""

import dataclasses
import functools
import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from flowlib._serial_file import DTYPES
from flowlib._serial_names import bare_classes, class_name, find_class, find_function, function_name
from flowlib.errors import FileFormatError


class AbstractSink(ABC):
    """Takes in what JSON values cannot express."""

    @abstractmethod
    def array(self, value: Any, path: str) -> dict[str, Any]:
        """An object with one key for an array."""

    @abstractmethod
    def own(self, value: Any, path: str) -> str | int:
        """A name for a class or function of the user's own."""

    @abstractmethod
    def other(self, value: Any, path: str) -> dict[str, Any]:
        """An object with one key for a value of any other type."""


class AbstractSource(ABC):
    """Gives back what a sink took in."""

    @abstractmethod
    def leaf(self, tag: str, payload: Any) -> Any:
        """For the key and value of an object that the sink returned."""

    @abstractmethod
    def own(self, name: Any) -> Any:
        """For the name of a class or function of the user's own."""


# Dtypes often come as these types rather than as `np.dtype` objects.
_SCALAR_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (bool, int, float, complex)}
_SCALAR_TYPES |= {f"numpy.{name}": dtype.type for name, dtype in DTYPES.items() if dtype.isbuiltin == 1}
_SCALAR_TYPES |= {f"jax.{name}": getattr(jnp, name + "_" * (name == "bool")) for name in DTYPES}

_PARTIALS = {"partial": functools.partial, "tree_partial": jtu.Partial}


def encode(value: Any, path: str, sink: AbstractSink) -> Any:
    """`value` as JSON values.

    Args:
        value: the tree.
        path: how an error message calls it.
        sink: takes in arrays, the user's own classes and functions, and values of unknown types.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is list:
        return _encode_items(value, path, sink)
    if type(value) is tuple:
        return {"tuple": _encode_items(value, path, sink)}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": _encode_dict(value, path, sink)}
    if value is ...:
        return {"ellipsis": None}
    if type(value) is slice:
        return {"slice": _encode_items([value.start, value.stop, value.step], path, sink)}
    if isinstance(value, np.dtype) and value.name in DTYPES:
        return {"dtype": value.name}
    if isinstance(value, jax.ShapeDtypeStruct):
        return {"struct": _encode_items([value.shape, value.dtype, bool(value.weak_type)], path, sink)}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return sink.array(value, path)
    for tag, kind in _PARTIALS.items():
        if type(value) is kind:
            return {tag: _encode_partial(value, path, sink)}
    if type(value) is eqx.nn.State:
        states, markers = value.tree_flatten()
        return {"state": [_encode_items(markers, path, sink), _encode_items(states, path, sink)]}
    for name, scalar_type in _SCALAR_TYPES.items():
        if value is scalar_type:
            return {"type": name}
    if isinstance(value, eqx.Module) or type(value) in bare_classes():
        # Equinox's transformed functions carry more than their fields.
        whole = vars(value).keys() <= _fields(type(value)).keys()
        return {"module": _encode_module(value, path, sink)} if whole else sink.other(value, path)
    if callable(value) and not isinstance(value, type | types.MethodType):
        return {"function": function_name(value) or sink.own(value, path)}
    return sink.other(value, path)


def decode(node: Any, source: AbstractSource) -> Any:
    """The tree that `encode` turned into `node`. No constructor runs and nothing is called.

    Raises:
        FileFormatError: if a name is unknown or the fields of a class are not those in the file.
    """
    if not isinstance(node, dict):
        return [decode(item, source) for item in node] if isinstance(node, list) else node
    if len(node) != 1:
        raise FileFormatError("its manifest is damaged")
    ((tag, payload),) = node.items()
    match tag:
        case "tuple":
            return tuple(decode(item, source) for item in payload)
        case "dict":
            return {key: decode(item, source) for key, item in payload.items()}
        case "float":
            return float(payload)
        case "ellipsis":
            return ...
        case "slice":
            return slice(*(decode(item, source) for item in payload))
        case "dtype":
            return DTYPES[payload]
        case "type":
            return _SCALAR_TYPES[payload]
        case "struct":
            shape, dtype, weak_type = (decode(item, source) for item in payload)
            return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak_type)
        case "function":
            return _named(payload, "function", find_function, source)
        case "partial" | "tree_partial":
            fn, args, keywords = payload
            keywords = {key: decode(item, source) for key, item in keywords.items()}
            return _PARTIALS[tag](decode(fn, source), *(decode(item, source) for item in args), **keywords)
        case "state":
            markers, states = ([decode(item, source) for item in items] for items in payload)
            return eqx.nn.State.tree_unflatten(tuple(markers), tuple(states))
        case "module":
            name, fields = payload
            cls = _named(name, "class", find_class, source)
            return _rebuild(cls, {key: decode(item, source) for key, item in fields.items()})
        case _:
            return source.leaf(tag, payload)


def _encode_items(items: Any, path: str, sink: AbstractSink) -> list[Any]:
    return [encode(item, f"{path}[{i}]", sink) for i, item in enumerate(items)]


def _encode_dict(items: dict[str, Any], path: str, sink: AbstractSink) -> dict[str, Any]:
    return {key: encode(item, f"{path}[{key!r}]", sink) for key, item in items.items()}


def _encode_partial(value: Any, path: str, sink: AbstractSink) -> list[Any]:
    args = _encode_items(value.args, f"{path}.args", sink)
    return [encode(value.func, f"{path}.func", sink), args, _encode_dict(value.keywords, f"{path}.keywords", sink)]


def _encode_module(value: Any, path: str, sink: AbstractSink) -> list[Any]:
    cls = type(value)
    fields = {key: encode(item, f"{path}.{key}", sink) for key, item in vars(value).items()}
    return [class_name(cls) or sink.own(cls, path), fields]


def _rebuild(cls: type, values: dict[str, Any]) -> Any:
    declared = _fields(cls)
    for name, field in declared.items():
        # A field that a later version of the class added.
        if name not in values and field.default is not dataclasses.MISSING:
            values[name] = field.metadata.get("converter", _unchanged)(field.default)
    if values.keys() != declared.keys():
        raise FileFormatError(
            f"in it {cls.__name__} has the fields {sorted(values)}, but in this version {sorted(declared)}"
        )
    module = object.__new__(cls)
    for name in declared:
        object.__setattr__(module, name, values[name])
    return module


def _fields(cls: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}


def _named(name: Any, kind: str, find: Callable[[str], Any], source: AbstractSource) -> Any:
    if not isinstance(name, str) or name.startswith("user."):
        return source.own(name)
    found = find(name)
    if found is None:
        raise FileFormatError(f"it names the {kind} {name!r}, which this version of flowlib does not know")
    return found


def _unchanged(value: Any) -> Any:
    return value
