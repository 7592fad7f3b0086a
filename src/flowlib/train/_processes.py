"""Fits of several processes under `jax.distributed`: one that goes its own way leaves the others waiting for ever."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that run one fit. One alone agrees with itself, at no cost.

    Every method is called by all of them, and in the same order.
    """

    count: int = 1
    index: int = 0

    def most(self, *numbers: int) -> list[int]:
        """The largest number that any process has, of each."""
        return list(numbers) if self.count == 1 else self._gathered(numbers).max(axis=0).tolist()

    def in_step(
        self,
        what: str,
        action: Callable[[], T],
        facts: Callable[[T], Sequence[int]] | None = None,
        wanted: str = "",
        error: type[Exception] = ValueError,
    ) -> T:
        """What the action gives; where it fails in one process, or `facts` of it differ, it fails in all.

        Args:
            what: the action, as an error message calls it.
            action: not itself in step with the others.
            facts: numbers, as many in each process.
            wanted: what the facts are to be, for the message.
            error: what is raised where the facts differ, and by those whose own action did not fail.
        """
        if self.count == 1:
            return action()
        result, caught, numbers = None, None, ()
        try:
            result = action()
            numbers = facts(result) if facts else ()
        except Exception as exception:
            caught = exception
        # Two rounds, since a process that failed does not know how many facts there are.
        failed = self._gathered([caught is not None])[:, 0]
        if caught is not None:
            raise caught
        if failed.any():
            raise error(f"{what} failed in process {failed.argmax()}, which says why.")
        if facts:
            every = self._gathered(numbers)
            if (every != every[0]).any():
                raise error(f"{what} {wanted}, got {' and '.join(str(tuple(row)) for row in every.tolist())}.")
        return result  # pyright: ignore[reportReturnType]

    def check_same(self, facts: dict[str, str]) -> None:
        """Raise a ValueError that names what is not the same in every process."""
        if self.count == 1:
            return
        every = self._gathered([crc32(fact.encode()) >> 1 for fact in facts.values()])
        different = [name for name, same in zip(facts, (every == every[0]).all(axis=0), strict=True) if not same]
        if different:
            raise ValueError(f"Every process must be given the same {', '.join(different)}.")

    def joined(self, array: np.ndarray) -> np.ndarray:
        """The rows of all processes, each of which has as many."""
        return array if self.count == 1 else np.asarray(multihost_utils.process_allgather(array, tiled=True))

    def _gathered(self, numbers: Sequence[Any]) -> np.ndarray:
        return np.asarray(multihost_utils.process_allgather(np.asarray(numbers, np.int32))).reshape(self.count, -1)


ALONE = Processes()


def on_host(leaf: Any) -> np.ndarray:
    """An array as NumPy; where processes have parts of it, all call this, and each gets the whole."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)
