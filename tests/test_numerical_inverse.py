"""Numerical inverses beyond the contract: derivatives of second order, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contract_tools import X64
from flowlib.bijections import FunctionBijection

# 30 degrees: turned, so that the map is not triangular.
TURN = np.array([[3**0.5 / 2, -0.5], [0.5, 3**0.5 / 2]])


def cubic(x):
    return x + x**3 / 3


def turned_cubic(x):
    return jnp.asarray(TURN, x.dtype) @ cubic(x)


@pytest.mark.parametrize(
    ("bijection", "turn"),
    [(FunctionBijection(cubic, (2,), triangular=True), np.eye(2)), (FunctionBijection(turned_cubic, (2,)), TURN)],
    ids=["triangular", "dense"],
)
def test_second_derivatives_of_an_inverse(bijection, turn):
    """Of a . f^-1(y): with x = f^-1(y) and f = R c, the Hessian is R diag(-2 a x / (1 + x^2)^3) R^T."""
    x, a = np.array([0.7, -1.2]), np.array([1.0, 0.5])
    y = turn @ cubic(x)
    hessian = jax.hessian(lambda y: jnp.asarray(a, y.dtype) @ bijection.inverse(y))(jnp.asarray(y))
    expected = turn @ np.diag(-2 * a * x / (1 + x**2) ** 3) @ turn.T
    np.testing.assert_allclose(hessian, expected, atol=1e-8 if X64 else 1e-4)
