"""What errors say of arguments that are not what was wanted: a class, a single part, a shape."""

from collections.abc import Iterable
from typing import Any


def kind_of(value: Any) -> str:
    """What kind of thing came, in an error message."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself: call it to make one, {value.__name__}(...)"
    return type(value).__name__


def batch_of(shape: tuple[int, ...]) -> str:
    """An array of events or conditions of this shape, with any batch before it, as one writes it."""
    return f"(..., {', '.join(map(str, shape))})" if shape else "(...)"


def in_sequence(values: Any, kind: type, what: str, where: str) -> tuple[Any, ...]:
    """The values as a tuple.

    Raises:
        TypeError: for a single value of the kind, which is named `what`, or anything else that holds no values.
    """
    if isinstance(values, kind) and not isinstance(values, Iterable):
        raise TypeError(f"{where} expected a sequence of {what}s, got a single {type(values).__name__}: write [...].")
    if isinstance(values, type) or not isinstance(values, Iterable):
        raise TypeError(f"{where} expected a sequence of {what}s, got {kind_of(values)}.")
    return tuple(values)


def check_function(value: Any, name: str, wanted: str) -> None:
    """Raise a TypeError unless `value`, an argument called `name`, is `wanted`: something to call, and no class."""
    if callable(value) and not isinstance(value, type):
        return
    got = repr(value) if isinstance(value, str | int | float | None) else kind_of(value)
    raise TypeError(f"{name} expected {wanted}, got {got}.")
