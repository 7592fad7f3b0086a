"""The container of a saved file: a zip archive of one JSON manifest and one .npy member for each array.

Nothing is compressed, since parameters hardly shrink. So no array is longer than the file itself, and a small
hostile file cannot fill the memory.
"""

import io
import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flowlib._version import __version__
from flowlib._whole_file import whole_file
from flowlib.errors import FileFormatError

VERSION = 1

_FORMAT = "flowlib"
_MANIFEST = "manifest.json"
_ZIP_MAGIC = b"PK\x03\x04"

# What damage makes zipfile, json and NumPy raise. OSError: a damaged offset makes a seek fail.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

_NUMPY_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_OTHER_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4")

# The dtypes that arrays in a file can have, by name.
DTYPES = {name: np.dtype(name) for name in _NUMPY_DTYPES} | {n: np.dtype(getattr(jnp, n)) for n in _OTHER_DTYPES}


def write(path: Path, tree: Any, own_names: list[str], arrays: list[np.ndarray]) -> None:
    """Write a file in one step: at `path` is the old file or the whole new one, whatever happens in between.

    Raises:
        FileNotFoundError: if the folder does not exist.
        OSError: if the file cannot be written.
    """
    # Through a link, the file that it points to is replaced and not the link.
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot save to {path}: there is no folder {path.parent}. Create it first.")
    manifest = {
        "format": _FORMAT,
        "version": VERSION,
        "written_by": f"flowlib {__version__}",
        "own": own_names,
        "arrays": [[array.dtype.name, list(array.shape)] for array in arrays],
        "tree": tree,
    }
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_MANIFEST), json.dumps(manifest, allow_nan=False))
        for i, array in enumerate(arrays):
            _write_array(archive, _member(i), array)


def read(path: Path) -> tuple[Any, list[str], list[np.ndarray]]:
    """The tree, the names of the user's own classes and functions in it, and its arrays.

    Raises:
        FileFormatError: if the file is foreign, damaged or of a newer version.
        OSError: if it cannot be opened (`FileNotFoundError` if it does not exist).
    """
    with open(path, "rb") as file:
        start = file.read(len(_ZIP_MAGIC))
        if start != _ZIP_MAGIC:
            raise FileFormatError("it is empty" if not start else "it is no flowlib file")
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, os.fstat(file.fileno()).st_size)
        except FileFormatError:
            raise
        except RecursionError as error:
            raise FileFormatError("it is nested too deeply") from error
        except _DAMAGE as error:
            raise FileFormatError(f"it is damaged ({str(error) or type(error).__name__})") from error


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> tuple[Any, list[str], list[np.ndarray]]:
    members = {info.filename: info for info in archive.infolist()}
    if _MANIFEST not in members:
        raise FileFormatError("it is a zip archive, but no flowlib file")
    stored = all(info.compress_type == zipfile.ZIP_STORED for info in members.values())
    if not stored or sum(info.file_size for info in members.values()) > file_size:
        raise FileFormatError("it is damaged (a member is compressed or longer than the file)")
    manifest = json.loads(archive.read(_MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise FileFormatError("it is a zip archive, but no flowlib file")
    version = manifest.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise FileFormatError(
            f"it has format version {version!r} (written by {manifest.get('written_by')}), "
            f"and flowlib {__version__} reads versions up to {VERSION}. Upgrade flowlib to read it"
        )
    entries = manifest["arrays"]
    expected = {_MANIFEST, *(_member(i) for i in range(len(entries)))}
    if set(members) != expected or len(archive.infolist()) != len(expected):
        raise FileFormatError("it is damaged (its members are not those that its manifest lists)")
    arrays = [
        _read_array(archive.read(_member(i)), DTYPES[name], tuple(shape)) for i, (name, shape) in enumerate(entries)
    ]
    return manifest["tree"], [str(name) for name in manifest["own"]], arrays


def _member(index: int) -> str:
    return f"arrays/{index}.npy"


def _storage(dtype: np.dtype) -> np.dtype:
    # The .npy format knows NumPy's own dtypes only; the bits of others, such as bfloat16, go as integers.
    own = dtype.name in _NUMPY_DTYPES
    return np.dtype(dtype.name if own else f"u{dtype.itemsize}").newbyteorder("<")


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    storage = _storage(array.dtype)
    if array.dtype.name not in _NUMPY_DTYPES:
        array = array.view(storage.newbyteorder("="))
    info = zipfile.ZipInfo(name)
    # A hint: from 2 GiB on the member needs another header.
    info.file_size = array.nbytes + 1024
    with archive.open(info, "w") as member:
        np.lib.format.write_array(member, np.asarray(array, storage, order="C"), version=(1, 0), allow_pickle=False)


def _read_array(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    stream, storage = io.BytesIO(data), _storage(dtype)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise FileFormatError("it is damaged (an array has an unknown header)")
    header = np.lib.format.read_array_header_1_0(stream)
    if header != (shape, False, storage) or len(data) - stream.tell() != math.prod(shape) * storage.itemsize:
        raise FileFormatError("it is damaged (an array is not of the size or dtype that the manifest lists)")
    # Checked above: no more is allocated than the file holds.
    array = np.ndarray(shape, storage, buffer=data, offset=stream.tell())
    array = array.astype(storage.newbyteorder("="), copy=False)
    return array if dtype.name in _NUMPY_DTYPES else array.view(dtype)
