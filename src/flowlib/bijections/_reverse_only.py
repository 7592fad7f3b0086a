"""An identity that says clearly that only reverse mode goes through what it leads into."""

from typing import Any

import equinox as eqx
import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def reverse_only(tree: Any) -> Any:
    """The same values; forward-mode differentiation in one of them is a TypeError that names the remedy.

    For a function with a reverse rule of its own, whose error in JAX says nothing of where it came from.
    """
    # Array by array: of several together, those that nothing depends on would have tangents of 0 too.
    return jax.tree.map(lambda leaf: _identity(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


@jax.custom_jvp
def _identity(x: Array) -> Array:
    return x


@_identity.defjvp
def _identity_jvp(primals, tangents):
    return primals[0], _tangent_p.bind(tangents[0])


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError(
        'Scan(..., gradient="rebuild") has derivatives in reverse mode only (jax.grad, jax.vjp, jax.jacrev), and got '
        'forward mode (jax.jvp, jax.jacfwd, jax.linearize). Use gradient="store" or "recompute" for it.'
    )


# In reverse mode a tangent is transposed and never computed; in forward mode it is, or compiled to be.
_tangent_p = Primitive("reverse_only")
_tangent_p.def_abstract_eval(lambda x: x)
_tangent_p.def_impl(_refuse)
mlir.register_lowering(_tangent_p, _refuse)
batching.primitive_batchers[_tangent_p] = _refuse
ad.deflinear2(_tangent_p, lambda cotangent, _: [cotangent])
