"""Timing calls in turns, and functions in processes of their own."""

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

# A program read from disk is not compiled: first calls would be timed without what they are timed for.
jax.config.update("jax_enable_compilation_cache", False)


class Times(NamedTuple):
    """Seconds of calls: of the first, which compiles, and of each after it."""

    first: float
    later: tuple[float, ...]

    @property
    def milliseconds(self) -> tuple[float, ...]:
        return self.scaled(1e3)

    def scaled(self, factor: float) -> tuple[float, ...]:
        """The later calls in another unit."""
        return tuple(seconds * factor for seconds in self.later)


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes until its arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(eqx.filter(call(), eqx.is_array))
    return time.perf_counter() - start


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """Time each call once, and then all of them in turns, so that whatever else the machine does falls on all."""
    first = {name: seconds(call) for name, call in calls.items()}
    later: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            later[name].append(seconds(call))
    return {name: Times(first[name], tuple(later[name])) for name in calls}


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function at the top level of a script returns in a new process, which has compiled nothing.

    Arguments and result are numbers, strings, or lists and dictionaries of them.
    """
    script = Path(inspect.getfile(function))
    code = f"import json, {script.stem} as s; print(json.dumps(s.{function.__name__}(*{arguments!r})))"
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=script.parent, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def processes_in_turns(function: Callable[..., Any], calls: Mapping[str, tuple], repeats: int) -> dict[str, list]:
    """What a function returns for each tuple of arguments, `repeats` times in turns, each in a new process."""
    results: dict[str, list] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, arguments in calls.items():
            results[name].append(in_new_process(function, *arguments))
    return results
