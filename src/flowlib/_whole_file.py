"""Writing a file so that it is there as a whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def whole_file(path: Path, prefix: str = ".flowlib-") -> Iterator[IO[bytes]]:
    """A file to write to, beside `path`; it becomes `path` at the end, once all of it is on the disk.

    Whatever fails, what was at `path` before stays, and nothing else is left. Only a process killed on the way leaves
    a file, named `prefix`*.tmp.
    """
    temporary = path.parent / f"{prefix}{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name is on the disk only when the folder is; not every system can do that.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
