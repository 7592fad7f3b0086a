"""Programs that are kept from one process to the next."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import jax, jax.monitoring
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
import jax.numpy as jnp
{before}
import flowlib
folder = flowlib.keep_compiled({path})
from flowlib.distributions import Normal
Normal(jnp.zeros(2), 1.0).log_prob(jnp.ones((3, 2)))
print(folder)
print(hits.count("/jax/compilation_cache/cache_hits"), hits.count("/jax/compilation_cache/cache_misses"))
"""


def run(monkeypatch, path: str = "", before: str = "", **environment: str) -> tuple[Path, int, int]:
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    script = SCRIPT.format(path=path, before=before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder, counts = done.stdout.strip().splitlines()
    hits, misses = map(int, counts.split())
    return Path(folder), hits, misses


def test_a_second_process_compiles_nothing(monkeypatch, tmp_path):
    # Also after something was compiled without a cache.
    folder, hits, misses = run(monkeypatch, repr(str(tmp_path / "a" / "b")), before="jnp.ones(3) + 1")
    assert (folder, hits) == (tmp_path / "a" / "b", 0)
    assert misses > 0
    folder, hits, again = run(monkeypatch, repr(str(tmp_path / "a" / "b")))
    assert hits > 0
    assert again <= 1


def test_the_directory_is_that_of_jax_or_of_the_users_caches(monkeypatch, tmp_path):
    assert run(monkeypatch, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jax"))[0] == tmp_path / "jax"
    if sys.platform == "linux":
        assert run(monkeypatch, XDG_CACHE_HOME=str(tmp_path / "caches"))[0] == tmp_path / "caches" / "flowlib"


def test_a_directory_that_cannot_be_is_an_error(tmp_path):
    import flowlib

    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        flowlib.keep_compiled(tmp_path / "file")
