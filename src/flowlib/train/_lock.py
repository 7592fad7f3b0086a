"""One fit at a time in a directory of checkpoints."""

import contextlib
import errno
import json
import os
import socket
import weakref
from pathlib import Path
from typing import Any

from flowlib.errors import CheckpointError
from flowlib.train._checkpoint import as_checkpoint_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = ".fit-lock"
# What a file system says that has no locks.
_UNKNOWN = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class DirectoryLock:
    """Holds a directory until `release`, or until the process ends, however it ends.

    The operating system knows who holds the file, so that one that a killed process left is no hindrance. Where it has
    no such locks, the file says which process on which machine holds it: a dead one of this machine is passed
    over, and one of another machine cannot be told from a live one.

    Raises:
        CheckpointError: if another fit holds it, or the directory cannot be written to.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.path = Path(directory).absolute() / _NAME
        self._file: Any = None
        with as_checkpoint_error(f"Cannot keep checkpoints in {self.path.parent}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while self._file is None:
                self._file = self._taken()
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode())
            self._file.flush()
        _HELD.add(self)

    @property
    def held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        """Let others have the directory; more than once does nothing."""
        if self._file is None:
            return
        # While it is still held, so that a file that another one has taken meanwhile is not removed. Windows
        # removes no open file; it may stay.
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.abandon()

    def abandon(self) -> None:
        """Close the file, as a process does that was forked off: the lock is that of its parent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _taken(self):
        """The file, locked; None if it was removed meanwhile."""
        file = open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115
        try:
            try:
                _lock(file)
            except OSError as error:
                if error.errno not in _UNKNOWN:
                    self._refuse(file.read())
                file.seek(0)
                if _alive(holder := file.read(), self.path):
                    self._refuse(holder)
            try:
                same = os.path.samestat(os.stat(self.path), os.fstat(file.fileno()))
            except FileNotFoundError:
                same = False
        except BaseException:
            file.close()
            raise
        if same:
            return file
        file.close()
        return None

    def _refuse(self, holder):
        process, machine = _process_in(holder)
        who = "" if process is None else f" (process {process} on {machine})"
        raise CheckpointError(
            f"Another fit{who} keeps its checkpoints in {self.path.parent}. Wait for its end, or use another directory"
            f". If that process is dead all the same, delete {self.path}."
        )


def _lock(file):
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no locks of files")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _process_in(holder: bytes) -> tuple[int | None, str]:
    try:
        found = json.loads(holder)
        return int(found["process"]), str(found["machine"])
    except (ValueError, TypeError, KeyError):
        return None, ""


def _alive(holder: bytes, path: Path) -> bool:
    """Whether the process that a file names may be alive."""
    process, machine = _process_in(holder)
    if process is None:
        return False
    if machine != socket.gethostname():
        return True
    if process == os.getpid():
        return any(lock.path == path and lock.held for lock in _HELD)
    if os.name != "posix":
        # There, the function that asks would end the process.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


_HELD: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _abandon_all():
    for lock in list(_HELD):
        lock.abandon()


# A worker of a loader that outlives its parent would hold the lock for it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
