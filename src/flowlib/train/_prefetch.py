"""Making things ready on another thread while the device works."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import jax

S = TypeVar("S")
T = TypeVar("T")
_END = object()
# Seconds until a thread looks again whether it is still wanted, and until the caller is asked whether to go on.
_LOOK = 0.1
# Seconds that a thread is waited for at the end: one whose item does not come may never end.
_PATIENCE = 0.5


class _UnwantedError(Exception):
    """Ends the thread: nobody waits for what it makes."""


def prefetched(
    items: Iterator[S],
    make: Callable[[Iterator[S]], Iterator[T]],
    cut: Callable[[], bool] = lambda: False,
    ahead: int = 2,
) -> Generator[T | None, None, None]:
    """What `make` gives for these items, made on another thread, at most so many ahead; an exception there is raised.

    Where nothing is ready and `cut()` is true, None is given last. At the end, and when this generator is closed, the
    thread has ended, but for one that waits for an item: it ends when that comes, and takes no more.
    """
    ready: queue.Queue = queue.Queue(ahead)
    closed = threading.Event()
    # Settings made by context managers are of one thread.
    x64, device = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    def wanted():
        for item in items:
            if closed.is_set():
                raise _UnwantedError
            yield item

    def give(item):
        while not closed.is_set():
            try:
                ready.put(item, timeout=_LOOK)
                return
            except queue.Full:
                continue

    def work():
        try:
            with jax.enable_x64(x64), jax.default_device(device):
                for made in make(wanted()):
                    give((made, None))
                    if closed.is_set():
                        return
            give((_END, None))
        except BaseException as error:
            give((_END, error))

    thread = threading.Thread(target=work, name="flowlib-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            try:
                made, error = ready.get(timeout=_LOOK)
            except queue.Empty:
                if cut():
                    yield None
                    return
                continue
            if error is not None:
                raise error
            if made is _END:
                return
            yield made
    finally:
        closed.set()
        thread.join(_PATIENCE)
