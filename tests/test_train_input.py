"""What `fit_to_data` takes, and the line with which it refuses the rest, before any training."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowlib._arrays import cast_floats
from flowlib.distributions import with_support
from flowlib.errors import NonFiniteDataError
from flowlib.parameters import freeze
from flowlib.train import fit_to_data
from train_tools import Regression, gaussian

X = np.random.default_rng(0).normal(size=(20, 2))
C = X[:, 0]
# Without the run-time check of annotations that this test run adds.
unchecked_fit = inspect.unwrap(fit_to_data)


def narrow():
    return cast_floats(gaussian(), np.float32)


def with_value(value, *index):
    array = X.copy()
    array[index] = value
    return array


def arrays_of(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


class Frame:
    """What a table is to NumPy: iterating over it gives the names of its columns."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __iter__(self):
        return iter("ab")


BAD_DATA = [
    ("empty", gaussian, np.zeros((0, 2)), ValueError, r"x expected at least one row, got shape \(0, 2\)"),
    ("no arrays", gaussian, (), ValueError, "expected at least one array of data, got none"),
    ("a number", gaussian, 3.0, ValueError, "x expected rows on its first axis, got a single number"),
    ("too wide", gaussian, np.zeros((20, 3)), ValueError, r"expected x of shape \(rows, 2\), got \(20, 3\)"),
    ("one event", gaussian, np.zeros(2), ValueError, r"expected x of shape \(rows, 2\), got \(2,\)"),
    ("not scalar", Regression, (X, C), ValueError, r"expected x of shape \(rows,\), got \(20, 2\)"),
    ("condition", Regression, (C, X), ValueError, r"expected condition of shape \(rows,\), got \(20, 2\)"),
    ("no condition", Regression, C, ValueError, r"expected data \(x, condition\) with .* shape \(\), got x alone"),
    ("surplus", gaussian, (X, X), ValueError, "Transformed is unconditional, but got a condition"),
    ("three", Regression, (C, C, C), ValueError, r"data as x or \(x, condition\), got 3 arrays"),
    ("rows", Regression, (C, C[:7]), ValueError, "condition expected 20 rows as x has, got 7"),
    ("strings", gaussian, np.full((20, 2), "a"), TypeError, "x must hold real numbers, got dtype <U1"),
    ("objects", Regression, (C, np.full(20, None)), TypeError, "condition must hold real numbers, got dtype object"),
    ("complex", gaussian, X + 1j, TypeError, "x must hold real numbers, got dtype complex"),
    ("nan", gaussian, with_value(np.nan, 3, 1), NonFiniteDataError, "x .* nan at row 3, column 1 .* 1 of 20"),
    ("inf", gaussian, with_value(-np.inf, slice(5, 9)), NonFiniteDataError, "got -inf at row 5, column 0 .* 4 of"),
    ("beyond float32", narrow, with_value(1e300, 0, 0), NonFiniteDataError, "got inf at row 0, column 0"),
    ("nan condition", Regression, (C, with_value(np.nan, 2, 0)[:, 0]), NonFiniteDataError, "condition .* nan at row 2"),
    ("nan in jax", gaussian, jnp.asarray(with_value(np.nan, 3, 1)), NonFiniteDataError, "got nan at row 3, column 1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "data", "error", "message"), [c[1:] for c in BAD_DATA], ids=[c[0] for c in BAD_DATA])
def test_bad_data_are_refused_in_one_line(key, make, data, error, message):
    with pytest.raises(error, match=message) as caught:
        fit_to_data(key, make(), data)
    assert "\n" not in str(caught.value)


BAD_ARGUMENTS = [
    ({"val_prop": 1}, ValueError, "val_prop must be a number of at least 0 and less than 1, got 1"),
    ({"val_prop": -0.1}, ValueError, "val_prop must be"),
    ({"val_prop": float("nan")}, ValueError, "val_prop must be"),
    ({"val_prop": "all"}, ValueError, "val_prop must be .* got 'all'"),
    ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
    ({"batch_size": 2.5}, ValueError, "batch_size must be an integer"),
    ({"max_epochs": -1}, ValueError, "max_epochs must be an integer of at least 0, got -1"),
    ({"max_patience": -1}, ValueError, "max_patience must be an integer of at least 0, got -1"),
    ({"learning_rate": -1.0}, ValueError, "learning_rate must be one finite number"),
    ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number or an optax schedule, got 'fast'"),
    ({"optimizer": "adam"}, TypeError, "optimizer must be an optax.GradientTransformation, got str"),
    ({"key": 0}, TypeError, "key must be a JAX PRNG key .* got 0"),
    ({"dist": 1.0}, ValueError, "float has no trainable parameters"),
    ({"dist": {"a": jnp.ones(2)}}, TypeError, "expected a distribution to fit, got dict"),
    ({"dist": freeze(gaussian())}, ValueError, "no trainable parameters: all are frozen"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line(key, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        unchecked_fit(**{"key": key, "dist": gaussian(), "data": X, **arguments})
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_scalar_is_named(key):
    def loss(params, static, x, key):
        return eqx.combine(params, static).log_prob(x)

    with pytest.raises(ValueError, match=r"loss_fn expected to return a scalar, got shape \(18,\)"):
        fit_to_data(key, gaussian(), X, loss_fn=loss, show_progress=False)


def test_all_forms_of_the_same_data_give_the_same_fit(key):
    # Whole numbers are the same in every dtype; a table with columns is one array, a list is a list of arrays.
    whole = np.round(10 * X)
    forms = [whole, whole.astype(np.float32), whole.astype(int), jnp.asarray(whole), Frame(whole), [whole], (whole,)]
    fits = [fit_to_data(key, with_support(gaussian()), form, max_epochs=2, show_progress=False) for form in forms]
    assert all(losses == fits[0][1] for _, losses in fits)
    dtype = jnp.result_type(float)
    assert all(leaf.dtype == dtype for flow, _ in fits for leaf in arrays_of(flow))


def test_a_float32_flow_stays_float32(key):
    fitted, _ = fit_to_data(key, narrow(), X.astype(np.float64), max_epochs=2, show_progress=False)
    assert all(leaf.dtype == np.float32 for leaf in arrays_of(fitted))
