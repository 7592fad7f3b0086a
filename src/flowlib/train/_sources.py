"""Where the batches of a fit come from when its rows are not all on the device."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from flowlib.train._read import as_parts, copied, count_rows, is_one_array


class Batch(NamedTuple):
    """One batch: x, or x and condition, with as many rows each; sample weights; the numbers of the rows in a file.

    `most` is the number of rows that the process with the most has of this batch, where several have parts of it.
    """

    arrays: tuple[Any, ...]
    weights: np.ndarray | None = None
    rows: np.ndarray | None = None
    most: int | None = None


def is_stream(data: Any) -> bool:
    """Whether data come batch by batch: memory-mapped files, iterables of batches, and functions that give one.

    A tuple or list is several arrays, but a list of tuples of arrays is one of batches.
    """
    if is_one_array(data):
        return False
    if isinstance(data, list) and data and all(isinstance(part, tuple) for part in data):
        return True
    if isinstance(data, tuple | list):
        return any(isinstance(part, np.memmap) for part in data)
    if isinstance(data, np.memmap):
        return True
    if hasattr(data, "__array__") or hasattr(data, "__dataframe__") or isinstance(data, dict | str | bytes):
        return False
    return callable(data) or isinstance(data, Iterable)


def is_file(data: Any) -> bool:
    """Whether there are memory-mapped files among the data."""
    return any(isinstance(part, np.memmap) for part in (data if isinstance(data, tuple | list) else (data,)))


class Source(Protocol):
    """Gives the batches of each epoch."""

    def first(self, count: int) -> list[Batch]:
        """Batches to look at, of at least `count` rows where there are as many."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        ...


class FileRows:
    """Rows of arrays that are indexed on the host, such as memory-mapped files; in a new order in each epoch.

    An order is a function of the seed and the number of the epoch. Part (i, n) reads an n-th of each batch.
    """

    def __init__(
        self,
        arrays: tuple[Any, ...],
        weights: np.ndarray | None,
        rows: np.ndarray,
        batch_size: int,
        seed: tuple[int, ...] | None,
        part: tuple[int, int] = (0, 1),
    ):
        self._arrays, self._weights, self._rows, self._seed, self._part = arrays, weights, rows, seed, part
        self._batch_size = min(batch_size, max(len(rows), 1))

    def first(self, count: int) -> list[Batch]:
        """Rows from the whole of the file, at least `count` where there are as many."""
        step = max(len(self._rows) // count, 1)
        return [self._read(np.sort(self._rows[::step]))]

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch; without a seed in the order of the rows."""
        rows = self._rows
        if self._seed is not None:
            rows = np.random.default_rng([*self._seed, number]).permutation(rows)
        for start in range(0, len(rows), self._batch_size):
            index, count = self._part
            # Neighbours in the file one after the other: a page is read once.
            batch = np.sort(rows[start : start + self._batch_size])
            most = -(-len(batch) // count)
            yield self._read(batch[index * most : (index + 1) * most])._replace(most=most)

    def _read(self, rows):
        weights = None if self._weights is None else self._weights[rows]
        return Batch(tuple(np.asarray(array[rows]) for array in self._arrays), weights, rows)


class Batches:
    """Batches of the user's making: an iterable, or a function without arguments that is called once an epoch."""

    def __init__(self, source: Iterable[Any] | Callable[[], Iterable[Any]], steps_per_epoch: int | None):
        self._source, self._steps = source, steps_per_epoch
        # What `first` took of the first epoch, and the iterator that goes on over epochs of a number of steps.
        self._begun: Iterator[Any] | None = None
        self.can_repeat = not isinstance(source, Iterator)

    def first(self, count: int) -> list[Batch]:
        """The first batches, of at least `count` rows where there are as many; the first epoch has them all the same.

        Raises:
            ValueError: if there is no row.
        """
        taken, rows, iterator = [], 0, self._iterator()
        for item in iterator:
            taken.append(_batch(item))
            rows += _length(taken[-1])
            if rows >= count:
                break
        self._begun = itertools.chain(taken, map(_batch, iterator))
        if not rows:
            raise ValueError("data expected batches with at least one row, got none.")
        return taken

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        batches, self._begun = self._begun or self._batches(), None
        if self._steps is None:
            yield from batches
            return
        for _ in range(self._steps):
            batch = next(batches, None)
            if batch is None and self.can_repeat:
                batches = self._batches()
                batch = next(batches, None)
            if batch is None:
                return
            # Kept before the batch is given away: a consumer may stop here.
            self._begun = batches
            yield batch

    def _batches(self):
        return map(_batch, self._iterator())

    def _iterator(self):
        # What is both is iterated over: models of loaders can be callable.
        return iter(self._source if isinstance(self._source, Iterable) else self._source())


def _batch(item: Any) -> Batch:
    # Copied: whoever makes batches may use the same memory for the next one.
    return Batch(tuple(map(copied, as_parts(item))))


def _length(batch: Batch) -> int:
    return count_rows(batch.arrays[0]) if batch.arrays else 0
