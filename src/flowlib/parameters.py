"""Which leaves of a tree are trained: the one definition that every fit and every conditioner uses."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import paramax

T = TypeVar("T")


class Own(paramax.AbstractUnwrappable[Any]):
    """An array that stays with its layer where a bijection becomes a transformer: trained, but made by no conditioner.

    A coupling or autoregressive layer keeps one for each coordinate that it transforms. Anywhere else the array
    counts as if it stood there by itself.

    Args:
        tree: the array.
    """

    tree: Any

    def unwrap(self) -> Any:
        """The array."""
        return self.tree


def partition_trainable(tree: T) -> tuple[T, T]:
    """Split a tree into its trainable leaves and everything else; `equinox.combine` joins them again.

    Trainable are the floating arrays outside any `paramax.NonTrainable`.
    """
    return eqx.partition(tree, eqx.is_inexact_array, is_leaf=_is_frozen)


def freeze(tree: T, where: Callable[[T], Any] | None = None) -> T:
    """The same tree with some of its arrays excluded from training.

    Each floating array is wrapped by itself in `paramax.NonTrainable`, so that attributes stay reachable.

    Args:
        tree: a distribution, bijection or any other tree.
        where: selects what to freeze, as in `equinox.tree_at`: `lambda flow: flow.base_dist`. Everything if None.
    """
    return paramax.non_trainable(tree) if where is None else eqx.tree_at(where, tree, replace_fn=paramax.non_trainable)


def unfreeze(tree: T) -> T:
    """The same tree with everything trainable that was frozen."""
    return jax.tree.map(lambda leaf: leaf.tree if _is_frozen(leaf) else leaf, tree, is_leaf=_is_frozen)


def count_parameters(tree: Any, *, trainable_only: bool = True) -> int:
    """The number of scalar parameters: the trainable ones, or with those that are frozen."""
    counted = partition_trainable(tree)[0] if trainable_only else eqx.filter(tree, eqx.is_inexact_array)
    return sum(leaf.size for leaf in jax.tree.leaves(counted))


def _is_frozen(leaf: Any) -> bool:
    return isinstance(leaf, paramax.NonTrainable)
