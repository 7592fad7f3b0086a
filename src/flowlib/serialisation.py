"""Saving and loading: one self-describing file, from which no code runs.

A file is a zip archive of a manifest (JSON: the tree of modules by registered class name, with their
settings) and an .npy member for each array. It is rebuilt without the code that built it, as long as it
consists of what flowlib, Equinox and paramax ship; classes and functions of your own are handed to `load`.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx

from flowlib._serial_file import read, write
from flowlib._serial_leaves import FileSink, FileSource, PickleSink, PickleSource
from flowlib._serial_tree import decode, encode
from flowlib.errors import FileFormatError


def save(path: str | os.PathLike[str], flow: Any) -> None:
    """Save a distribution, a bijection or any tree of such, to one file.

    It may hold modules of flowlib, `equinox.nn` and paramax, arrays, numbers, strings,
    tuples, lists, dicts, dtypes and named functions such as `jax.nn.relu`. Of module classes and module-level
    functions of your own only the names are saved: hand them to `load`.

    The file is replaced in one step: if saving fails, an older file at `path` is intact.

    Raises:
        TypeError: if something in it cannot be saved; the message names the field.
        FileNotFoundError: if the folder does not exist.
    """
    sink = FileSink()
    tree = encode(flow, "flow", sink)
    write(Path(path), tree, sorted(sink.owned), sink.arrays)


def load(path: str | os.PathLike[str], classes: Sequence[type | Callable] = ()) -> Any:
    """Load what `save` wrote. The file is only data: no code in it runs, and nothing is imported by its names.

    The result equals what was saved, dtypes included, so that functions compiled for the one serve the other.
    Where `jax_enable_x64` is off, 64-bit arrays are rounded to 32 bits with a warning.

    Args:
        path: the file.
        classes: your own module classes and functions that occur in it.

    Raises:
        FileFormatError: if the file is empty, damaged, no flowlib file, of a newer version, or needs other `classes`.
        FileNotFoundError: if it does not exist.
    """
    own = _by_name(classes)
    try:
        tree, names, arrays = read(Path(path))
        missing = [name for name in names if name not in own]
        if missing:
            listed = ", ".join(name.removeprefix("user.") for name in missing)
            raise FileFormatError(f"it needs classes or functions of your own; pass load(path, classes=[{listed}])")
        source = FileSource(arrays, own)
        flow = _decode(tree, source)
    except FileFormatError as error:
        raise FileFormatError(f"Cannot load {path}: {error}.") from error.__cause__
    if source.rounded:
        wide = " and ".join(sorted(source.rounded))
        message = f"{path} holds {wide} arrays, rounded to 32 bits because jax_enable_x64 is off."
        warnings.warn(message, UserWarning, stacklevel=2)
    return flow


def reduce_module(module: eqx.Module) -> tuple[Callable, tuple[Any, tuple[Any, ...]]]:
    """What `__reduce__` returns for a module: named functions by their names, all else as pickle does it."""
    sink = PickleSink()
    tree = encode(module, type(module).__name__, sink)
    return _restore, (tree, tuple(sink.objects))


def _restore(tree: Any, objects: tuple[Any, ...]) -> Any:
    # Pickles refer to this function by name.
    return decode(tree, PickleSource(objects))


def _decode(tree: Any, source: FileSource) -> Any:
    try:
        return decode(tree, source)
    except RecursionError as error:
        raise FileFormatError("it is nested too deeply") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"its manifest is damaged ({error})") from error


def _by_name(classes: Sequence[type | Callable]) -> dict[str, Any]:
    own = {}
    for item in classes:
        if isinstance(item, type) and not issubclass(item, eqx.Module):
            raise TypeError(f"load expected Equinox module classes and functions in classes, got {item!r}.")
        if not callable(item) or not hasattr(item, "__name__"):
            raise TypeError(f"load expected Equinox module classes and functions in classes, got {item!r}.")
        if own.setdefault(f"user.{item.__name__}", item) is not item:
            raise ValueError(f"load expected classes of different names, got two called {item.__name__}.")
    return own
