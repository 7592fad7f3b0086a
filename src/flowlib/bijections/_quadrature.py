"""Integrals of positive functions by Gauss-Legendre quadrature."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from flowlib.bijections._solve import Function


@partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def integral(fn: Function, x: Float[Array, "*lanes"], args: PyTree, nodes: int) -> Float[Array, "*lanes"]:
    """The integral of fn(., args) from 0 to x, exact for polynomials of degree 2 nodes - 1.

    fn takes points with one more axis in front. The derivative in x is fn(x, args), as that of the integral
    itself is; in `args` it is that of the quadrature.
    """
    return _quadrature(fn, x, args, nodes)


@integral.defjvp
def _integral_jvp(fn, nodes, primals, tangents):
    x, args = primals
    value, change = jax.jvp(lambda args: _quadrature(fn, x, args, nodes), (args,), (tangents[1],))
    return value, fn(x[None], args)[0] * tangents[0] + change


def _quadrature(fn, x, args, nodes):
    points, weights = np.polynomial.legendre.leggauss(nodes)
    axes = (-1, *[1] * x.ndim)
    # On (0, 1).
    points, weights = ((a / 2).reshape(axes).astype(x.dtype) for a in (points + 1, weights))
    return x * (weights * fn(points * x, args)).sum(axis=0)


def integral_of(slope: Function, nodes: int) -> tuple[Callable, Callable]:
    """shift + the integral of slope(., args) from 0 to x, of (args, shift), and its log slope."""
    return partial(_shifted_integral, slope=slope, nodes=nodes), partial(_log_of, slope=slope)


def _shifted_integral(x, args, *, slope, nodes):
    inner, shift = args
    return shift + integral(slope, x, inner, nodes)


def _log_of(x, args, *, slope):
    return jnp.log(slope(x[None], args[0])[0])
