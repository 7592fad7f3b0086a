"""Warnings that blame the user's line."""

import sys
import warnings


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line outside flowlib and what it is called through."""
    # The second level is whoever called this function.
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_INNER = ("flowlib", "equinox", "jax", "jaxtyping", "contextlib")
