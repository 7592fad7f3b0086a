"""What the host does between dispatches: the bar, how much to ask for next, and the warning at a bad end."""

import signal
import threading
import time
from typing import Any

from tqdm import tqdm

from flowlib._warn import warn_user
from flowlib.errors import NonFiniteWarning
from flowlib.train._state import Status

# Seconds that a dispatch should take: long beside what it costs to start one (one or two
# milliseconds), short beside a user's patience with a bar or with Ctrl-C.
_AIM = 0.2


class Pace:
    """How many epochs (or steps) to ask for in a dispatch, from how long the last one took.

    What is computed does not depend on it.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._size = 1
        self._start = 0.0

    def next(self, remaining: int) -> int:
        """The size of the dispatch that begins now, of at most `remaining`."""
        self._start = time.perf_counter()
        self._size = min(self._size, remaining)
        return self._size

    def done(self) -> None:
        """Call when that dispatch has ended."""
        growth = _AIM / max(time.perf_counter() - self._start, 1e-6)
        # The first dispatch compiles too, and short ones are hard to time: by and by.
        self._size = min(max(int(self._size * min(growth, 4.0)), 1), self._limit)


class Progress:
    """A tqdm bar, or nothing; a context, so that an exception closes the bar.

    It says "compiling" until the first dispatch is done, and counts speed and time left from there.
    """

    def __init__(self, total: int, unit: str, show: bool, done: int = 0):
        self._bar = tqdm(total=total, initial=done, unit=unit, disable=not show, desc="compiling")
        self._compiling = True

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int, **values: Any) -> None:
        """Show that `done` of the total are done, and the values."""
        bar = self._bar
        bar.set_postfix({name: _short(value) for name, value in values.items()}, refresh=False)
        if self._compiling and not bar.disable:
            # Most of the first dispatch was compiling: tqdm's speed is to be of what comes after it.
            bar.set_description("", refresh=False)
            bar.n = bar.initial = bar.last_print_n = done
            bar.start_t = bar.last_print_t = time.time()
            bar.refresh()
        self._compiling = False
        bar.update(done - bar.n)


class Interrupts:
    """Within this context the first Ctrl-C only sets `pressed`; a second one interrupts as ever.

    A dispatch takes the buffers of the state with it, so an exception in its midst would lose the fit.
    In other threads, and where the program has a handler of its own, it changes nothing.
    """

    def __init__(self):
        self.pressed = False
        self._installed = False

    def __enter__(self) -> "Interrupts":
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number, frame):
        if self.pressed:
            signal.default_int_handler(number, frame)
        self.pressed = True


def warn_of_failure(status: Status, where: str, value: float, kept: str, culprit: str = "") -> None:
    """The one NonFiniteWarning of a fit that stopped on a number that is not finite."""
    what = {
        Status.BAD_LOSS: f"the loss became {value}",
        Status.BAD_UPDATE: "the loss was finite, but its update made parameters non-finite,",
        Status.BAD_VALIDATION: f"the validation loss became {value}",
    }[status]
    warn_user(f"The fit stopped because {what} {where}; {kept}.{culprit}", NonFiniteWarning)


def warn_of_interrupt(done: str) -> None:
    """The warning at Ctrl-C."""
    warn_user(f"The fit was interrupted after {done}; what it reached is returned.")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
