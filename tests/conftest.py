"""The test run: annotations checked at run time, strict dtype promotion, one precision a run.

`JAX_ENABLE_X64=1` makes it the float64 run. `FLOWLIB_TEST_SIZES=all` runs every case at every event size instead of two
cases of a class at one, and the longest tests. Compiling is most of the time of these tests, which judge values and not
speed, so that XLA is told to optimise little; `FLOWLIB_TEST_OPTIMISED=1` leaves it as users have it.
"""

import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

if os.environ.get("FLOWLIB_TEST_OPTIMISED") != "1":
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if version("jax").startswith("0.10."):
        # Later ones do not know the flag.
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

# Before anything imports flowlib: the hook rewrites modules as they are loaded.
install_import_hook("flowlib", "typechecker.check")

from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from zlib import crc32  # noqa: E402

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tracing makes millions of small objects that live on; at the usual thresholds a sixth of a run is spent on them.
gc.set_threshold(500_000, 50, 100)
# A shell without job control has its background commands ignore it: tests that interrupt themselves would not end.
signal.signal(signal.SIGINT, signal.default_int_handler)

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_TRACE_EVENT = "/jax/core/compile/jaxpr_trace_duration"


@dataclass
class CompileCounter:
    """How many programs were traced and compiled since the counter was reset."""

    compiled: int = 0
    traced: int = 0

    @contextmanager
    def expect_none(self) -> Iterator[None]:
        """Fail if the block traces or compiles anything."""
        before = (self.traced, self.compiled)
        yield
        traced, compiled = self.traced - before[0], self.compiled - before[1]
        assert (traced, compiled) == (0, 0), f"traced {traced} and compiled {compiled} programs where none were due"


_counter = CompileCounter()


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILE_EVENT:
        _counter.compiled += 1
    elif event == _TRACE_EVENT:
        _counter.traced += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture
def compiles() -> CompileCounter:
    """Counts compilations: `with compiles.expect_none(): ...`, or read `compiles.compiled` before and after."""
    return _counter


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A PRNG key of the test's own, the same in every run."""
    return jr.key(crc32(request.node.nodeid.partition("@")[0].encode()))


@pytest.fixture
def unchecked_annotations() -> Iterator[None]:
    """For tests of bad input: the library's own errors, not those of the run-time check of its annotations."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


# The operating system allows a process 65,530 memory maps, and each compiled program takes some of them, a large one
# a hundred. Where they cannot be counted, so many programs are taken for too many.
_MANY_MAPS = 30_000
_MANY_PROGRAMS = 1500
_since_cleared = {"case": "", "compiled": 0}


def _many_programs(compiled: int) -> bool:
    """Whether the process nears the limit; looked at every hundred programs, for it takes milliseconds."""
    if compiled < 100:
        return False
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n") > _MANY_MAPS
    except OSError:
        return compiled > _MANY_PROGRAMS


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget compiled programs now and then, between two cases."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    name = item.path.name if case is None else case.id
    if name != _since_cleared["case"] and _many_programs(_counter.compiled - _since_cleared["compiled"]):
        jax.clear_caches()
        _since_cleared["compiled"] = _counter.compiled
    _since_cleared["case"] = name


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("xdist"):
        config.addinivalue_line("markers", "xdist_group(name): tests that share compiled functions.")


def pytest_report_header() -> str:
    precision = "float64" if jax.config.jax_enable_x64 else "float32"  # pyright: ignore[reportAttributeAccessIssue]
    return f"flowlib: {precision}, jax {jax.__version__}"


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one case together and on one worker: they share compiled functions (see `cases.py`)."""
    groups: dict[str, int] = {}
    order: dict[pytest.Item, tuple[int, int]] = {}
    for index, item in enumerate(items):
        callspec = getattr(item, "callspec", None)
        case = callspec.params.get("case") if callspec is not None else None
        if case is None:
            order[item] = (index, index)
            continue
        item.add_marker(pytest.mark.xdist_group(case.id))
        order[item] = (groups.setdefault(case.id, index), index)
    items.sort(key=order.__getitem__)
