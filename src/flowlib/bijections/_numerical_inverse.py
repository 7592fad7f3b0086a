"""Bijections whose inverse is found numerically, among them any Python function."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from flowlib._arrays import as_shape
from flowlib._module import peel
from flowlib.bijections._bijection import (
    AbstractBijection,
    LogDet,
    check_is_bijection,
    forward,
    forward_batch,
    one_row,
)
from flowlib.bijections._solve import Structure, solve
from flowlib.support import Real, Support


class NumericalInverse(AbstractBijection):
    """A bijection with its inverse replaced by a numerical one.

    `transform` is that of the bijection. `inverse` solves f(x) = y for one event, to
    |dx_i| <= tolerance (1 + |x_i|) in every coordinate or a few roundings; a row that fails is
    NaN. Its gradients are implicit, in y, the parameters and the condition.
    A triangular f is solved coordinate by coordinate, a forward-mode pass for each step of
    its search; another by iterations that cost one Jacobian each, dim forward-mode passes.

    Args:
        bijection: f, with an event of any shape that `transform` keeps in size.
        inverter: a function `(bijection, y, condition) -> x` for the first guess. By default y.
        triangular: whether output i depends on inputs 0 to i only, and monotonically on input i.
            The solver then goes coordinate by coordinate, by Newton's method in a bracket.
        tolerance: the bound above. Defaults to 1e-5 in float32 and 1e-10 in float64.
        throw: raise where the solver fails, instead of NaN.

    Raises:
        ValueError: if f changes the size of the event or the tolerance is not positive.
        TypeError: if `bijection` is not a bijection.
    """

    bijection: AbstractBijection
    inverter: Callable[..., Array] | None
    structure: Structure = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    throw: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        bijection: AbstractBijection,
        inverter: Callable[..., Array] | None = None,
        *,
        triangular: bool = False,
        tolerance: float | None = None,
        throw: bool = False,
    ):
        check_is_bijection(bijection, "NumericalInverse")
        inner = peel(bijection)
        if inner.out_shape != inner.shape:
            raise ValueError(
                f"NumericalInverse expected a bijection that keeps its shape, got one to {inner.out_shape}."
            )
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"NumericalInverse expected a positive tolerance, got {tolerance}.")
        self.bijection = bijection
        self.inverter = inverter
        # One variable is triangular whatever the function.
        self.structure = "triangular" if triangular or inner.shape in {(), (1,)} else "dense"
        self.tolerance = tolerance
        self.throw = throw
        self.shape = inner.shape
        self.cond_shape = inner.cond_shape

    @property
    def domain(self) -> Support:
        return peel(self.bijection).domain

    @property
    def codomain(self) -> Support:
        return peel(self.bijection).codomain

    @property
    def _cheap_both_ways(self) -> bool:
        return False

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return forward(self.bijection, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return one_row(self._inverse_and_log_det_batch, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None = None):
        return forward_batch(self.bijection, x, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        guess = None
        if self.inverter is not None:
            axis = None if condition is None or condition.shape == self.cond_shape else 0
            guess = jax.vmap(partial(self.inverter, self.bijection), (0, axis))(y, condition)
        return solve_bijection(
            self.bijection, y, condition, self.structure, tolerance=self.tolerance, guess=guess, throw=self.throw
        )


class FunctionBijection(AbstractBijection):
    """Any Python function as a bijection; log |det dy/dx| by automatic differentiation.

    `transform_and_log_det` costs size forward-mode passes and a determinant. `inverse` is the
    given function, or else numerical as in `NumericalInverse`.

    Args:
        fn: an invertible function of one event, `fn(x)`, or `fn(x, condition)` if `cond_shape` is given. Use a
            module-level function or an Equinox module: each new closure compiles anew, and none can be saved.
        shape: the shape of an event, which fn keeps.
        inverse: the inverse function, with the same arguments, or None.
        cond_shape: the shape of a condition. Defaults to None.
        domain: where fn is defined. Defaults to the reals.
        codomain: what fn reaches. Defaults to the reals.
        triangular: as for `NumericalInverse`.

    Raises:
        TypeError: if `fn` or `inverse` cannot be called.
    """

    fn: Callable[..., Array]
    inverse_fn: Callable[..., Array] | None
    domain_support: Support
    codomain_support: Support
    structure: Structure = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[..., Array],
        shape: tuple[int, ...],
        inverse: Callable[..., Array] | None = None,
        *,
        cond_shape: tuple[int, ...] | None = None,
        domain: Support | None = None,
        codomain: Support | None = None,
        triangular: bool = False,
    ):
        for name, function in (("fn", fn), ("inverse", inverse)):
            if not callable(function) and (name == "fn" or function is not None):
                raise TypeError(f"FunctionBijection expected {name} to be callable, got {type(function).__name__}.")
        self.fn = fn
        self.inverse_fn = inverse
        self.shape = as_shape(shape)
        self.cond_shape = None if cond_shape is None else as_shape(cond_shape, "cond_shape")
        self.domain_support = Real() if domain is None else domain
        self.codomain_support = Real() if codomain is None else codomain
        self.structure = "triangular" if triangular or self.shape in {(), (1,)} else "dense"

    @property
    def domain(self) -> Support:
        return self.domain_support

    @property
    def codomain(self) -> Support:
        return self.codomain_support

    @property
    def _cheap_both_ways(self) -> bool:
        return self.inverse_fn is not None

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        y = self._call(self.fn, x, condition)
        if y.shape != self.shape:
            raise ValueError(f"FunctionBijection expected fn to give shape {self.shape}, got {y.shape}.")
        return y, self._log_det(self.fn, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        if self.inverse_fn is None:
            return solve_one(self, y, condition, self.structure)
        x = self._call(self.inverse_fn, y, condition)
        return x, self._log_det(self.inverse_fn, y, condition)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None = None):
        if self.inverse_fn is None:
            return solve_bijection(self, y, condition, self.structure)
        return super()._inverse_and_log_det_batch(y, condition)

    def _call(self, fn, x, condition):
        return jnp.asarray(fn(x) if self.cond_shape is None else fn(x, condition), x.dtype)

    def _log_det(self, fn, x, condition):
        def flat(x_flat):
            return self._call(fn, x_flat.reshape(self.shape), condition).reshape(-1)

        jacobian = jax.jacfwd(flat)(x.reshape(-1))
        if self.structure == "triangular":
            return jnp.log(jnp.abs(jnp.diagonal(jacobian))).sum()
        return jnp.linalg.slogdet(jacobian)[1]


def solve_bijection(
    bijection: AbstractBijection,
    y: Array,
    condition: Array | None,
    structure: Structure,
    *,
    tolerance: float | None = None,
    guess: Array | None = None,
    throw: bool = False,
) -> tuple[Array, LogDet]:
    """x = f^-1(y) of a batch by the solver, NaN where it fails, and log |det dx/dy| from one more pass at x.

    `condition` is None, shared or one for each row.
    """
    n, shape = len(y), peel(bijection).shape
    size = math.prod(shape)
    args, rows = shared_and_own(bijection, condition)
    x, found = solve(
        flat_transform,
        y.reshape(n, size),
        args,
        rows,
        structure=structure,
        tolerance=tolerance,
        guesses=None if guess is None else guess.reshape(n, size),
    )
    x = x.reshape(n, *shape)
    if throw:
        x = eqx.error_if(x, ~found, f"The numerical inverse of {type(peel(bijection)).__name__} did not converge.")
    _, log_det = forward_batch(bijection, x, condition)
    x = jnp.where(found.reshape(n, *[1] * len(shape)), x, jnp.nan)
    return x, LogDet(jnp.where(found, -log_det.value, jnp.nan), log_det.valid | ~found)


def solve_one(bijection: AbstractBijection, y: Array, condition: Array | None, structure: Structure, **options: Any):
    """`solve_bijection` for one event."""
    return one_row(lambda y, condition: solve_bijection(bijection, y, condition, structure, **options), y, condition)


def shared_and_own(bijection: AbstractBijection, condition: Array | None) -> tuple[Any, Array | None]:
    """What `flat_transform` gets for all rows, and the condition of each row or None."""
    if condition is None or condition.ndim == len(peel(bijection).cond_shape):
        return (bijection, condition), None
    return (bijection, None), condition


def flat_transform(x: Array, args: Any) -> Array:
    """`transform` of one event as a vector; `args` is ((bijection, condition), condition of the row or None)."""
    (bijection, condition), row = args
    condition = row if condition is None else condition
    return forward(bijection, x.reshape(peel(bijection).shape), condition)[0].reshape(-1)
