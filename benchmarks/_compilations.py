"""How many programs XLA compiled."""

from collections.abc import Callable
from typing import Any

import jax

_compiled = 0


def _listen(event: str, duration: float, **_: Any) -> None:
    global _compiled
    _compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_listen)


def count_compilations(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and how many programs were compiled for it."""
    before = _compiled
    result = call()
    return result, _compiled - before
