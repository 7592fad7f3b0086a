"""A bound on the memory maps that compiled programs take: at the limit of the system the process dies."""

import threading
from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_LIMIT = Path("/proc/sys/vm/max_map_count")
_USUAL_LIMIT = 65_530
# Above this part of the limit programs are released. The rest is for fits between two counts, and for other libraries.
_SHARE = 0.55
# More than most fits take; a deep flow takes some thousands.
_MAPS_A_FIT = 4000


class Programs:
    """Counts the memory maps of the process now and then, and has JAX forget its programs where they are many.

    At the limit a process ends without a Python error. JAX cannot forget one program: all go, and what is used again is
    compiled again, once in some fifty fits of different shapes (`benchmarks/many_shapes.py`) and never where shapes
    recur.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._left = 0

    def release(self) -> bool:
        """Call before what may compile much; whether programs were released. Most calls only count themselves."""
        with self._lock:
            self._left -= 1
            if self._left > 0:
                return False
            count, most = count_maps(), most_maps()
            released = count > most
            if released:
                jax.clear_caches()
                count = count_maps()
            # Reading the list takes a millisecond for two thousand maps.
            self._left = max((most - count) // _MAPS_A_FIT, 1)
            return released


def count_maps() -> int:
    """The memory maps of this process; 0 where the system does not tell, and has no such limit."""
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0


def most_maps() -> int:
    """How many there may be before programs are released."""
    try:
        limit = int(_LIMIT.read_text())
    except (OSError, ValueError):
        limit = _USUAL_LIMIT
    return int(limit * _SHARE)


PROGRAMS = Programs()
