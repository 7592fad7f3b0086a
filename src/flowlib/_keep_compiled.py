"""Compiled programs that outlive the process."""

import os
import sys
from pathlib import Path

import jax


def keep_compiled(path: str | os.PathLike[str] | None = None) -> Path:
    """Keep what JAX compiles in a directory, so that the next process finds it there and starts in a second or two.

    Call it once, before the first fit. It turns on JAX's persistent compilation cache for programs of every size; all
    of JAX uses it, not flowlib alone. Programs are found again by their content, by the versions of JAX and XLA and by
    the kind of device, so that none is ever wrong, and old ones can be deleted at any time. A fit of a coupling flow
    takes some tens of programs and a few megabytes.

    Args:
        path: the directory, made if missing. Defaults to the one that JAX is told already
            (`JAX_COMPILATION_CACHE_DIR`), or else to `flowlib` in the user's directory of caches.

    Returns:
        The directory.

    Raises:
        OSError: if it cannot be made or written to.

    Example:
        ```python
        import flowlib

        flowlib.keep_compiled()
        ```
    """
    given = jax.config.jax_compilation_cache_dir if path is None else path  # pyright: ignore[reportAttributeAccessIssue]
    folder = Path(_user_caches() / "flowlib" if given is None else given).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"keep_compiled cannot write to {folder}: choose another directory.")
    if str(folder) != jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        from jax.experimental.compilation_cache import compilation_cache

        # What was compiled before may have begun another cache, or none.
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_enable_compilation_cache", True)
    # A flow compiles many programs that are quick to compile, each of them slower than reading it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _user_caches() -> Path:
    if sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
