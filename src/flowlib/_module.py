"""What every module of flowlib shares: pickling by the package's own serialiser, and where parameters are unwrapped."""

import copyreg
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import paramax
from jaxtyping import ArrayLike

from flowlib._arrays import is_concrete

T = TypeVar("T")


class Module(eqx.Module):
    """An Equinox module that pickles and deep-copies.

    Functions such as `jax.nn.relu` do not pickle by themselves, so `__reduce__` goes through
    `flowlib.serialisation`, which stores them by public name.
    """

    def __reduce__(self):
        from flowlib.serialisation import reduce_module

        return reduce_module(self)


def _reduce_method(method: Any) -> Any:
    """Pickle a bound method of a module as Python does a plain one: by the module and its name."""
    if isinstance(method.__self__, Module):
        return getattr, (method.__self__, method.__func__.__name__)
    return method.__reduce_ex__(4)


class _Probe(eqx.Module):
    def method(self):
        """For its type once it is bound."""


# Equinox binds methods by a module that copies annotations, among them classes of JAX that do not pickle.
copyreg.pickle(type(_Probe().method), _reduce_method)


class Node(Module):
    """A bijection or a distribution: a module that unwraps its own parameters where it is called.

    Parameters may sit in `paramax` wrappers. A wrapper must be applied to one layer at a time: a
    `Scan` or a `Vmap` stacks the raw arrays, and a normalisation of the stacked array is another function.
    """

    # The shape of one condition, or None if there is none.
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    def _check_condition(self, condition: ArrayLike) -> None:
        """Raise a ValueError if a condition, or one in an array of them, has a value that is of no use.

        Its values are known, and its shape is right. The default asks the parts that have conditions of this shape: a
        node that hands its parts another condition than its own says what it does.
        """
        for part in _parts(vars(self).values()):
            if part.cond_shape is not None and part.cond_shape == self.cond_shape:
                check_condition(part, condition)


def unwrap_own(node: T) -> T:
    """Unwrap the parameters of `node` but not those of the nodes inside it, which unwrap their own."""
    if isinstance(node, paramax.NonTrainable):
        return unwrap_own(stop_gradient(node.tree))
    if isinstance(node, paramax.AbstractUnwrappable):
        node = paramax.unwrap(node)

    def is_leaf(leaf):
        return leaf is not node and isinstance(leaf, paramax.AbstractUnwrappable | Node)

    def unwrap(leaf):
        if isinstance(leaf, paramax.NonTrainable) and _holds_node(leaf.tree):
            return stop_gradient(leaf.tree)
        return paramax.unwrap(leaf) if isinstance(leaf, paramax.AbstractUnwrappable) else leaf

    return jax.tree.map(unwrap, node, is_leaf=is_leaf)


def peel(node: Any) -> Any:
    """`node` out of its paramax wrapper, if it sits in one: to read its shapes, not to compute."""
    while isinstance(node, paramax.NonTrainable):
        node = node.tree
    return paramax.unwrap(node) if isinstance(node, paramax.AbstractUnwrappable) else node


def check_condition(node: Any, condition: Any) -> None:
    """Let a bijection or a distribution raise for values of conditions, if there are any and they are known."""
    if condition is not None and is_concrete(condition):
        peel(node)._check_condition(condition)


def _parts(values: Iterable[Any]) -> Iterator[Any]:
    """The bijections and distributions among the values, out of their wrappers, and in containers among them."""
    for value in values:
        if isinstance(value, tuple | list | dict):
            yield from _parts(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, Node | paramax.NonTrainable) and isinstance(peel(value), Node):
            yield peel(value)


def is_wrapped(tree: Any) -> bool:
    """Whether there is a paramax wrapper anywhere in the tree."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, paramax.AbstractUnwrappable))
    return any(isinstance(leaf, paramax.AbstractUnwrappable) for leaf in leaves)


def _holds_node(tree) -> bool:
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Node))
    return any(isinstance(leaf, Node) for leaf in leaves)


def stop_gradient(tree: T) -> T:
    """`jax.lax.stop_gradient` of the arrays in a tree that holds other things too."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
