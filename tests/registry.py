"""How a case of the contract harness is written down; `cases.py` and `cases_distributions.py` fill the registry."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pytest

SIZES = (1, 2, 5)
ALL_SIZES = os.environ.get("FLOWLIB_TEST_SIZES", "") == "all"
X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
# For a test that is long and whose like runs always.
only_in_full = pytest.mark.skipif(not ALL_SIZES, reason="runs with FLOWLIB_TEST_SIZES=all")


def no_special_numbers(instance) -> Sequence[float]:
    return ()


def square_as_it_is(jacobian: np.ndarray) -> np.ndarray:
    return jacobian


@dataclass(frozen=True)
class Case:
    """One object under the contract.

    Attributes:
        name: the class or constructor, and after an underscore what is particular.
        build: makes the object from a key and the size; it works under `jit`, `vmap` and `eval_shape`.
        size: the number of coordinates of one event.
        selected: whether the case runs without `FLOWLIB_TEST_SIZES=all`.
        condition: draws one condition from a NumPy generator, where normal numbers will not do.
        noise: standard deviation of the noise put on the parameters.
        special: numbers at which the object has knots or ends.
        stacked: whether to compare a scan of it with its layers; not for flows, which are scans already, nor for
            what leaves its own domain.
        square: of Jacobians, each with more rows than columns, those whose determinant the log-det means.
        infinite: why values or gradients may be infinite at special points; empty if they never are.
    """

    name: str
    build: Callable
    size: int
    selected: bool = True
    condition: Callable | None = None
    noise: float = 0.5
    special: Callable[..., Sequence[float]] = no_special_numbers
    stacked: bool = True
    square: Callable[[np.ndarray], np.ndarray] = square_as_it_is
    infinite: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}-{self.size}"

    @property
    def family(self) -> str:
        """The class; a constructor is its own, conditional or not."""
        return self.name.partition("_" if self.name[0].isupper() else ".")[0].removesuffix("_conditional")

    def make(self, key: jax.Array):
        """The object, built from a key."""
        return self.build(key, self.size)


def entry(name: str, build: Callable, default: int, sizes: tuple[int, ...] = SIZES, **facts) -> list[Case]:
    """The case at each size; only the default one is selected unless all are asked for."""
    return [Case(name, build, size, selected=ALL_SIZES or size == default, **facts) for size in sizes]


def only_when_all(case: Case) -> Case:
    """A case whose like runs always."""
    return dataclasses.replace(case, selected=ALL_SIZES)


def select(cases: list[Case], most: int = 2) -> list[Case]:
    """The cases of this run: all of them, or the first few of each class or constructor, at one size.

    Of these float64 has the first, and float32 the last, which is the conditional or otherwise less plain one.
    """
    if ALL_SIZES:
        return list(cases)
    families: dict[str, list[Case]] = {}
    for case in cases:
        if case.selected:
            families.setdefault(case.family, []).append(case)
    chosen = {family[:most][0 if X64 else -1].id for family in families.values()}
    return [case for case in cases if case.selected and case.id in chosen]
