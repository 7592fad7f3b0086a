"""What `fit_to_data` takes, and the line with which it refuses the rest, before any training."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from flowlib._arrays import cast_floats
from flowlib.distributions import StandardNormal, with_support
from flowlib.errors import NonFiniteDataError, NonFiniteWarning
from flowlib.flows import coupling_flow
from flowlib.parameters import freeze
from flowlib.train import fit_ensemble_to_data, fit_to_data, fit_to_key_based_loss, fit_to_variational_target
from flowlib.train.losses import ElboLoss
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
    ("beyond float32", narrow, with_value(1e300, 0, 0), NonFiniteDataError, "got inf .* 1e\\+300 is beyond float32"),
    ("nan condition", Regression, (C, with_value(np.nan, 2, 0)[:, 0]), NonFiniteDataError, "condition .* nan at row 2"),
    ("masked", gaussian, np.ma.masked_equal(X, X[3, 1]), ValueError, "x has a masked .* row 3, column 1 .* 1 of 20"),
    ("masked condition", Regression, (C, np.ma.masked_equal(C, C[2])), ValueError, "condition has a masked .* row 2 "),
    ("masked batch", gaussian, [(np.ma.masked_equal(X, X[3, 1]),)], ValueError, "In batch 0 .*: x has a masked"),
    ("sparse", gaussian, scipy.sparse.csr_array(X), TypeError, "x expected a dense array, .* give its .toarray"),
    ("ragged rows", gaussian, [[1.0, 2.0], [1.0]], TypeError, "x must be an array of real numbers, got ragged list"),
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
    ({"learning_rate": "1e-3"}, TypeError, "learning_rate must be a number or an optax schedule, got '1e-3'"),
    ({"learning_rate": True}, TypeError, "learning_rate must be a number or an optax schedule, got True"),
    ({"standardise": "no"}, TypeError, "standardise must be True, False or \"again\", got 'no'"),
    ({"return_best": "yes"}, TypeError, "return_best must be True or False, got 'yes'"),
    ({"show_progress": 1}, TypeError, "show_progress must be True or False, got 1"),
    ({"loss_fn": "ml"}, TypeError, "loss_fn must be a function, such as .*MaximumLikelihoodLoss.*, got 'ml'"),
    ({"weights": ["1"] * 20}, TypeError, "weights must hold real numbers, got dtype <U1"),
    ({"weights": np.ma.masked_equal(np.arange(20), 3)}, ValueError, "weights has a masked number at row 3"),
    ({"val_data": np.ma.masked_equal(X, X[3, 1])}, ValueError, "val_data x has a masked number at row 3, column 1"),
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


def test_a_list_of_numbers_is_rows(key):
    rows = fit_to_data(key, Regression(), (C.tolist(), C.tolist()), max_epochs=1, show_progress=False)[1]
    assert rows == fit_to_data(key, Regression(), (C, C), max_epochs=1, show_progress=False)[1]
    with pytest.raises(ValueError, match=r"expected x of shape \(rows, 2\), got \(20,\)"):
        fit_to_data(key, gaussian(), C.tolist())


def test_other_fits_refuse_the_same_arguments(key):
    def fit(**options):
        inspect.unwrap(fit_to_key_based_loss)(
            key, gaussian(), **{"loss_fn": lambda *a, key: 0.0, "steps": 1, **options}
        )

    for name in ("return_best", "show_progress"):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'no'"):
            fit(**{name: "no"})
    with pytest.raises(TypeError, match="loss_fn must be a function"):
        fit(loss_fn="elbo")
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        fit(learning_rate="1e-3")
    with pytest.raises(TypeError, match="stick_the_landing must be True or False"):
        inspect.unwrap(ElboLoss.__init__)(ElboLoss.__new__(ElboLoss), sum, 1, stick_the_landing="no")
    ensemble = inspect.unwrap(fit_ensemble_to_data)
    with pytest.raises(TypeError, match="make_dist must be a function of a key that makes a distribution, got a Trans"):
        ensemble(key, gaussian(), X)
    with pytest.raises(TypeError, match="standardise must be True, False or"):
        ensemble(key, lambda key: gaussian(), X, standardise="no")


@pytest.mark.parametrize("target", [lambda x: (x > 0).sum(), lambda x: (x > 0).all()])
def test_a_target_that_counts_has_no_gradient_and_is_refused(key, target):
    with pytest.raises(TypeError, match=r"target expected to return a float, got (int|bool)"):
        fit_to_variational_target(key, gaussian(), target, steps=1, show_progress=False)


@pytest.mark.parametrize("fit", ["rows", "steps"])
def test_a_fit_in_float16_that_stops_says_so(key, fit):
    flow = coupling_flow(key, base_dist=StandardNormal((2,)), flow_layers=1, nn_width=4)
    half = cast_floats(flow, np.float16)
    calls = {
        "rows": lambda: fit_to_data(key, half, X, max_epochs=1, show_progress=False),
        "steps": lambda: fit_to_variational_target(key, half, lambda x: -(x**2).sum(), steps=2, show_progress=False),
    }
    with pytest.warns(NonFiniteWarning, match="There are parameters in float16, .*: cast them to float32"):
        calls[fit]()


def test_a_float32_flow_stays_float32(key):
    fitted, _ = fit_to_data(key, narrow(), X.astype(np.float64), max_epochs=2, show_progress=False)
    assert all(leaf.dtype == np.float32 for leaf in arrays_of(fitted))
