"""Bernstein polynomials and sums of squares, against NumPy's polynomials and SciPy's."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.interpolate import BPoly

import flowlib.bijections as bij
from contract_tools import EPS, FLOAT, X64, perturb

LOWER, UPPER = -1.0, 3.0


def bernstein(edges: Any = "free", degree=7, seed=0):
    polynomial = bij.BernsteinPolynomial(degree=degree, interval=(LOWER, UPPER), edges=edges)
    return perturb(polynomial, np.random.default_rng(seed), 1.0)


def squares(seed=0, scale=1.0, **options):
    return perturb(bij.SumOfSquares(**{"bound": 4.0, **options}), np.random.default_rng(seed), scale)


def reference_bernstein(polynomial):
    """In float64, from the definition of the coefficients."""
    raw = np.asarray(polynomial.increments, np.float64)
    if polynomial.shift is None:
        slopes = np.concatenate([[1], 1e-3 + (1 - 1e-3) * len(raw) * np.exp(raw) / np.exp(raw).sum(), [1]])
        first = LOWER
    else:
        slopes = 1e-3 + np.log1p(np.exp(raw) * np.expm1(1 - 1e-3))
        first = LOWER + float(polynomial.shift)
    values = first + np.concatenate([[0], np.cumsum(slopes)]) * (UPPER - LOWER) / len(slopes)
    return BPoly(values[:, None], [LOWER, UPPER])


def reference_squares(polynomial, bound=4.0):
    slope = Polynomial([0.0])
    for a in np.asarray(polynomial.coefficients, np.float64).T:
        slope = slope + (1 + Polynomial(a / bound ** np.arange(len(a)))) ** 2
    slope = 1e-3 + (1 - 1e-3) * slope / polynomial.coefficients.shape[1]
    return float(polynomial.shift) + slope.integ(), slope


@pytest.mark.parametrize(("edges", "degree"), [("free", 7), ("identity", 12)])
def test_a_bernstein_polynomial_is_that_of_its_coefficients(edges, degree):
    polynomial = bernstein(edges, degree)
    exact = reference_bernstein(polynomial)
    x = np.linspace(LOWER, UPPER, 41).astype(FLOAT)
    y, log_slope = jax.vmap(polynomial.transform_and_log_det)(x)
    np.testing.assert_allclose(y, exact(x), atol=50 * EPS)
    np.testing.assert_allclose(np.exp(log_slope), exact(x, 1), rtol=100 * EPS)
    # Outside, in straight lines.
    out = np.array([LOWER - 2, UPPER + 5], FLOAT)
    ends = np.array([LOWER, UPPER])
    expected = exact(ends) + exact(ends, 1) * (out - ends)
    np.testing.assert_allclose(jax.vmap(polynomial.transform)(out), expected, rtol=100 * EPS)
    if edges == "identity":
        np.testing.assert_allclose(expected, out)


def test_the_slope_of_a_sum_of_squares_is_one():
    polynomial = squares(polynomials=3, degree=4)
    value, slope = reference_squares(polynomial)
    x = np.linspace(-4, 4, 41).astype(FLOAT)
    y, log_slope = jax.vmap(polynomial.transform_and_log_det)(x)
    np.testing.assert_allclose(y, value(x), rtol=1e-12 if X64 else 1e-5, atol=100 * EPS)
    np.testing.assert_allclose(np.exp(log_slope), slope(x), rtol=1e-12 if X64 else 2e-5)
    out = np.array([-6.0, 9.0], FLOAT)
    ends = np.sign(out) * 4
    expected = value(ends) + slope(ends) * (out - ends)
    np.testing.assert_allclose(jax.vmap(polynomial.transform)(out), expected, rtol=1e-12 if X64 else 1e-5)


@pytest.mark.parametrize("make", [bernstein, squares], ids=["bernstein", "squares"])
def test_the_inverse_is_the_inverse_and_gradients_are_finite(make):
    polynomial = make()
    x = np.concatenate([np.linspace(-6, 6, 41), [LOWER, UPPER, -1e6, 1e6]]).astype(FLOAT)
    y, log_slope = jax.vmap(polynomial.transform_and_log_det)(x)
    back, log_back = jax.vmap(polynomial.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, x, rtol=1e-9 if X64 else 1e-5, atol=1e-8 if X64 else 2e-4)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-7 if X64 else 1e-3)
    # Far parameters too: nearly constant, and steep.
    for b in (polynomial, make(seed=1) if make is bernstein else make(seed=1, scale=20.0)):
        for name in ("transform_and_log_det", "inverse_and_log_det"):

            def total(args, name=name):
                value, log_det = jax.vmap(getattr(args[0], name))(args[1])
                return value.sum() + log_det.sum()

            grads = eqx.filter_jit(eqx.filter_grad(total))((b, jnp.asarray(x)))
            assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_they_start_as_the_identity_or_near_it():
    x = np.concatenate([np.linspace(-6, 6, 49), [-1e6, 1e6]]).astype(FLOAT)
    for edges in ("identity", "free"):
        polynomial = bij.BernsteinPolynomial(degree=9, interval=(LOWER, UPPER), edges=edges)
        y, log_slope = jax.vmap(polynomial.transform_and_log_det)(x)
        np.testing.assert_allclose(y, x, rtol=20 * EPS, atol=20 * EPS)
        np.testing.assert_allclose(log_slope, 0, atol=20 * EPS)
    near = bij.SumOfSquares()
    y, log_slope = jax.vmap(near.transform_and_log_det)(x)
    np.testing.assert_array_less(np.abs(log_slope), 0.01)
    np.testing.assert_allclose(y, x, rtol=0.01, atol=EPS)
    # Equal polynomials would have equal gradients.
    gradient = eqx.filter_grad(lambda p: p.transform(2.0))(near)
    assert (np.ptp(gradient.coefficients, axis=1) > 1e-4).all()
    np.testing.assert_allclose(bij.SumOfSquares(1).transform(2.0), 2, rtol=10 * EPS)


def test_bad_arguments_are_named(unchecked_annotations):
    with pytest.raises(ValueError, match="degree must be an integer of at least 4, got 3"):
        bij.BernsteinPolynomial(degree=3, interval=1.0)
    with pytest.raises(ValueError, match="BernsteinPolynomial expected an interval with lower < upper"):
        bij.BernsteinPolynomial(degree=4, interval=(1.0, 1.0))
    with pytest.raises(ValueError, match="got 'circular'"):
        bij.BernsteinPolynomial(degree=4, interval=1.0, edges="circular")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"min_derivative in \(0, 1\), got 0"):
        bij.BernsteinPolynomial(degree=4, interval=1.0, min_derivative=0.0)
    with pytest.raises(ValueError, match="polynomials must be an integer of at least 1, got 0"):
        bij.SumOfSquares(0)
    with pytest.raises(ValueError, match="SumOfSquares expected an interval with lower < upper"):
        bij.SumOfSquares(bound=-1.0)
    with pytest.raises(ValueError, match=r"SumOfSquares expected min_derivative in \(0, 1\), got 1"):
        bij.SumOfSquares(min_derivative=1.0)
