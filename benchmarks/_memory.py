"""Memory of this process, as Linux tells it."""

import threading
from pathlib import Path


def mib(field: str) -> float:
    """A field of /proc/self/status in MiB: "RssAnon" is private memory in use, "VmData" what of it could be written."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise KeyError(field)


class Peak:
    """The highest private memory in use within a context, looked at every 20 ms."""

    def __init__(self):
        self.mib = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.wait(0.02):
            self.mib = max(self.mib, mib("RssAnon"))
