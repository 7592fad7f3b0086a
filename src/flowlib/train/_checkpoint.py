"""Checkpoints: files of which each is whole or recognised as broken, and the newest whole one is read."""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jax.sharding import NamedSharding

from flowlib._arrays import check_count, is_concrete
from flowlib._version import __version__
from flowlib._whole_file import whole_file
from flowlib.errors import CheckpointError, CheckpointMismatchError, CheckpointWarning
from flowlib.train._mesh import put
from flowlib.train._processes import on_host

VERSION = 1

_NAME = re.compile(r"fit-(\d{8,})\.ckpt")
_PREFIX = ".fit-"
# Of the first line, which every version of the format has.
_LONGEST_SEAL = 200
_READABLE = 60


class Checkpoints:
    """The checkpoints of one fit, each a file in a directory.

    The first line of a file is a checksum of the rest: a line of JSON (version, settings, record, and the path, dtype
    and shape of each leaf), then the bytes of the leaves. A file gets its name only when it is whole and on the disk.

    One process writes to a directory at a time. Nothing in a file is executed when it is read.

    Args:
        directory: where the files go; created if missing. What an interrupted `save` left there is removed.
        keep: how many of the newest files to keep.
        settings: what must be equal for a fit to go on from a checkpoint: short strings (see `fingerprint`) by
            the names that an error message uses.
        writes: whether this process writes; another one then only reads what is there, and calls `save` all the same.

    Raises:
        CheckpointError: if the directory cannot be created or written to.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep: int = 3, settings: dict[str, str], writes: bool = True
    ):
        # Absolute, since the working directory can change during a fit.
        self.directory = Path(directory).absolute()
        self.keep = check_count(keep, "keep")
        self.settings = dict(settings)
        self.writes = writes
        if not writes:
            return
        with as_checkpoint_error(f"Cannot keep checkpoints in {self.directory}"):
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f"{_PREFIX}*.tmp"):
                leftover.unlink(missing_ok=True)
            trial = self.directory / f"{_PREFIX}trial.tmp"
            trial.write_bytes(b"can be written")
            trial.unlink()

    def save(self, number: int, tree: Any, record: dict[str, Any]) -> None:
        """Write a checkpoint, then delete all but the newest.

        Args:
            number: of the checkpoint, counting up during a fit. Files of higher numbers, which `load` passed over
                or an earlier fit left, are deleted.
            tree: a tree of JAX arrays; PRNG keys may be typed. Weak types are not kept.
            record: JSON values; floats come back exactly, NaN and infinities too.

        Raises:
            CheckpointError: if the file cannot be written. The files that were there still are.
            TypeError: if a leaf is no array or `record` no JSON.
        """
        self.write(self.pack(number, tree, record, copy=False))

    def pack(self, number: int, tree: Any, record: dict[str, Any], copy: bool = True) -> "Packed":
        """What `write` writes: a copy, so that the tree may be given away meanwhile."""
        check_count(number, "number", 0)
        leaves = _leaves(tree)
        header = {
            "version": VERSION,
            "written_by": f"flowlib {__version__}",
            "settings": self.settings,
            "record": record,
            "leaves": [_describe(name, leaf) for name, leaf in leaves],
        }
        arrays = [on_host(jr.key_data(leaf) if _is_key(leaf) else leaf) for _, leaf in leaves]
        if not self.writes:
            return Packed(number, [])
        if copy:
            arrays = list(map(np.array, arrays))
        return Packed(number, [json.dumps(header).encode() + b"\n", *map(_bytes_of, arrays)])

    def write(self, packed: "Packed") -> None:
        """Write what was packed, as `save` does."""
        if not self.writes:
            return
        number, body = packed
        path = self.directory / f"fit-{number:08d}.ckpt"
        with as_checkpoint_error(f"Cannot write the checkpoint {path}"):
            with whole_file(path, _PREFIX) as file:
                for part in (_seal(body), *body):
                    file.write(part)
            files = self._newest_first()
            kept = [other for other, _ in files if other <= number][: self.keep]
            for other, old in files:
                if other not in kept:
                    old.unlink(missing_ok=True)

    def load(self, skeleton: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Number, tree and record of the newest whole checkpoint, or None if there is none.

        Torn and damaged files are passed over with one `CheckpointWarning` that names them. The leaves go where those
        of the skeleton are on a mesh, and else to JAX's default device.

        Args:
            skeleton: a tree like the one that was saved, of arrays or of `jax.ShapeDtypeStruct`.

        Raises:
            CheckpointMismatchError: if the checkpoint has other settings, or leaves of other paths, shapes or dtypes.
            CheckpointError: if a file cannot be read, or was written by a newer flowlib.
        """
        broken, found = [], None
        for number, path in self._newest_first():
            with as_checkpoint_error(f"Cannot read the checkpoint {path}"):
                parts = _read(path)
            if parts is not None:
                found = (number, path, parts)
                break
            broken.append(path.name)
        if broken:
            use = f"{found[1].name} is used" if found else "the fit begins anew"
            warnings.warn(
                f"Torn or damaged checkpoints in {self.directory} are passed over, and {use}: {', '.join(broken)}.",
                CheckpointWarning,
                stacklevel=2,
            )
        if found is None:
            return None
        number, path, (header, payload) = found
        try:
            record = header["record"]
            if not isinstance(record, dict):
                raise TypeError("the record is no dict")
            return number, self._unpack(path, header, payload, skeleton), record
        except CheckpointError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            if any(not is_concrete(leaf) for leaf in jtu.tree_leaves(skeleton)):
                raise
            raise _no_checkpoint(path) from error

    def _newest_first(self) -> list[tuple[int, Path]]:
        with as_checkpoint_error(f"Cannot read the directory {self.directory}"):
            names = [(match, path) for path in self.directory.iterdir() if (match := _NAME.fullmatch(path.name))]
        return sorted(((int(match[1]), path) for match, path in names), reverse=True)

    def _unpack(self, path: Path, header: dict[str, Any], payload: memoryview, skeleton: Any) -> Any:
        if header["version"] > VERSION:
            raise CheckpointError(
                f"The checkpoint {path} has format version {header['version']} (by {header['written_by']}), and "
                f"flowlib {__version__} reads versions up to {VERSION}. Upgrade flowlib, or use another directory."
            )
        self._check_settings(path, header["settings"])
        leaves = _leaves(skeleton)
        self._check_leaves(path, header["leaves"], [_describe(name, leaf) for name, leaf in leaves])
        offset, values = 0, []
        for (_, leaf), entry in zip(leaves, header["leaves"], strict=True):
            raw = leaf
            if _is_key(leaf):
                # Of an array, a program that `save` has run too.
                raw = jr.key_data(leaf) if isinstance(leaf, jax.Array) else jax.eval_shape(jr.key_data, leaf)
            array = np.ndarray(raw.shape, raw.dtype, buffer=payload, offset=offset)
            offset += array.nbytes
            sharding = leaf.sharding if isinstance(leaf.sharding, NamedSharding) else None
            # Copied, so that a fit can donate it and the file does not stay in memory.
            value = jnp.array(array) if sharding is None else put(np.array(array), sharding)
            values.append(jr.wrap_key_data(value, impl=entry["impl"]) if _is_key(leaf) else value)
        return jtu.tree_structure(skeleton).unflatten(values)

    def _check_settings(self, path: Path, saved: dict[str, str]) -> None:
        now, names = self.settings, [*self.settings, *(name for name in saved if name not in self.settings)]
        differences = [
            f"{name} is {_short(now.get(name))} and was {_short(saved.get(name))}"
            for name in names
            if now.get(name) != saved.get(name)
        ]
        if differences:
            self._refuse(path, "; ".join(differences))

    def _check_leaves(self, path: Path, saved: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
        for old, new in zip(saved, now, strict=False):
            if old["path"] != new["path"]:
                self._refuse(path, f"the state has {new['path']} where the checkpoint has {old['path']}")
            if (old["dtype"], old["shape"]) != (new["dtype"], new["shape"]):
                self._refuse(path, f"{new['path']} is {_type_of(new)} and was {_type_of(old)}")
        if len(saved) != len(now):
            first = max(saved, now, key=len)[min(len(saved), len(now))]["path"]
            self._refuse(path, f"the {'checkpoint' if len(saved) > len(now) else 'state'} alone has {first}")

    def _refuse(self, path: Path, difference: str) -> NoReturn:
        raise CheckpointMismatchError(
            f"The checkpoint {path} is of another fit: {difference}. "
            f"Use another directory, or delete {path.parent / 'fit-*.ckpt'} to begin anew."
        )


class Packed(NamedTuple):
    """A checkpoint in memory: its number, and header and leaves as bytes."""

    number: int
    body: list[Any]


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves = [(jtu.keystr(path) or "the tree", leaf) for path, leaf in jtu.tree_leaves_with_path(tree)]
    for name, leaf in leaves:
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} must be a JAX array to be in a checkpoint, got {type(leaf).__name__}.")
    return leaves


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(name: str, leaf: Any) -> dict[str, Any]:
    entry = {"path": name, "dtype": str(leaf.dtype), "shape": list(leaf.shape)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        entry["impl"] = str(jr.key_impl(leaf))
    return entry


def _type_of(entry: dict[str, Any]) -> str:
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


def _short(value: str | None) -> str:
    if value is None:
        return "absent"
    return value if len(value) <= _READABLE else value[: _READABLE - 3] + "..."


def _bytes_of(array: np.ndarray) -> np.ndarray:
    # A view: nothing is copied.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _seal(body: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for part in body:
        digest.update(part)
    return f"flowlib checkpoint sha256 {digest.hexdigest()}\n".encode()


def _read(path: Path) -> tuple[dict[str, Any], memoryview] | None:
    """The header and the bytes of the leaves, or None if they are not what was written."""
    data = path.read_bytes()
    start = data.find(b"\n", 0, _LONGEST_SEAL) + 1
    if data[:start] != _seal([memoryview(data)[start:]]):
        return None
    end = data.find(b"\n", start)
    try:
        header = json.loads(data[start:end]) if end > 0 else None
    except (ValueError, RecursionError) as error:
        raise _no_checkpoint(path) from error
    if not isinstance(header, dict):
        raise _no_checkpoint(path)
    return header, memoryview(data)[end + 1 :]


def _no_checkpoint(path: Path) -> CheckpointError:
    """For a file that is whole, so that it is not damage that made it so."""
    return CheckpointError(
        f"The file {path} has the checksum of a checkpoint, but flowlib did not write what is in it. Delete it, or use "
        "another directory."
    )


@contextlib.contextmanager
def as_checkpoint_error(what: str) -> Iterator[None]:
    """An OSError as a CheckpointError that says what could not be done."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        cause = error.strerror or str(error) or type(error).__name__
        if isinstance(error, FileExistsError | NotADirectoryError):
            cause = f"{error.filename} is a file, or is below one"
        raise CheckpointError(
            f"{what}: {cause}. Check permissions and free space, or use another directory."
        ) from error
