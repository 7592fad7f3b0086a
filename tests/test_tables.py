"""Tables of pandas, polars and Arrow: read by column, named by column in messages, and matched row by row."""

from decimal import Decimal
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from flowlib._host_array import read_array
from flowlib.bijections import Affine
from flowlib.distributions import Dequantized, StandardNormal, Transformed, with_support
from flowlib.errors import NonFiniteDataError
from flowlib.support import Integers
from flowlib.train import fit_ensemble_to_data, fit_to_data
from train_tools import Regression, gaussian

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2)).astype(np.float32).astype(np.float64)
FRAME: Any = pd.DataFrame(X, columns=np.array(["age", "price"]))
OPTIONS: dict[str, Any] = {"max_epochs": 2, "show_progress": False}

TABLES = [
    FRAME,
    pd.DataFrame({"age": X[:, 0], "price": pd.array(X[:, 1], "double[pyarrow]")}),
    pd.DataFrame({"age": pd.array(X[:, 0], "Float64"), "price": X[:, 1].astype(object)}),
    pl.from_pandas(FRAME),
    pa.Table.from_pandas(FRAME),
    pa.RecordBatch.from_pandas(FRAME),
    FRAME.to_records(index=False),
    FRAME.to_records(index=False).astype([("age", ">f8"), ("price", ">f8")]),
]


def test_every_table_gives_the_fit_of_its_numbers(key, unchecked_annotations):
    forms = [X, X.tolist(), [tuple(row) for row in X.tolist()], *TABLES]
    losses = [fit_to_data(key, gaussian(), form, **OPTIONS)[1]["train"] for form in forms]
    # The order of a sum is that of the memory.
    np.testing.assert_allclose(losses, len(losses) * [losses[0]], rtol=1e-6)
    flow = gaussian()
    for form in forms:
        log_prob: Any = flow.log_prob
        np.testing.assert_array_equal(log_prob(form), log_prob(X))


def test_batches_can_be_tables(key):
    arrays, frames = ([form[:10], form[10:]] for form in (X, FRAME))
    streams = [lambda: map(np.asarray, arrays), lambda: iter(frames), lambda: (batch.tolist() for batch in arrays)]
    losses = [fit_to_data(key, gaussian(), stream, **OPTIONS)[1]["train"] for stream in streams]
    np.testing.assert_allclose(losses, 3 * [losses[0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pd.Series(pd.array([1, None, 3], "Int64")), [1, np.nan, 3]),
        (pd.Series(pd.array([True, None, False], "boolean")), [1, np.nan, 0]),
        (pd.Series(pd.array([2**53 - 1, 1], "Int64")), [2.0**53 - 1, 1]),
        (pd.Series(pd.array([1, None], "int64[pyarrow]")), [1, np.nan]),
        (pd.Series(pd.arrays.SparseArray([0.0, 2.0])), [0, 2]),
        (pd.Series([1.5, 2.5], dtype="category"), [1.5, 2.5]),
        (pl.Series([1, None, 3]), [1, np.nan, 3]),
        (pl.Series([True, None]), [1, np.nan]),
        (pl.Series([Decimal("1.5")]), [1.5]),
        (pa.array([1, None]), [1, np.nan]),
        (pa.chunked_array([[True], [None]]), [1, np.nan]),
        (pa.array([Decimal("1.5"), None]), [1.5, np.nan]),
    ],
)
def test_columns_of_every_kind_keep_their_numbers_and_what_is_missing_is_nan(column, numbers):
    np.testing.assert_array_equal(read_array(column, "x").values, numbers)


TEXT = ["a", "b"]
WORDS = [
    (pd.DataFrame({"age": [1, 2], "cut": TEXT}), "'a' at row 0"),
    (pd.DataFrame({"age": [1, 2], "cut": pd.Categorical(TEXT)}), "'a' at row 0"),
    (pd.DataFrame({"age": [1, 2], "cut": pd.to_datetime(["2020", "2021"])}), "Make it a number first"),
    (pd.DataFrame({"age": [1, 2], "cut": pd.array([1, 2], "timestamp[s][pyarrow]")}), "Make it a number first"),
    (pd.DataFrame({"age": [1, 2], "cut": np.array([None, 2.0])}), "None at row 0"),
    (pl.DataFrame({"age": [1, 2], "cut": TEXT}), "'a' at row 0"),
    (pa.table({"age": [1, 2], "cut": TEXT}), "'a' at row 0"),
]


@pytest.mark.parametrize(("table", "message"), WORDS, ids=range(len(WORDS)))
def test_a_column_without_numbers_is_named(key, table, message):
    with pytest.raises(TypeError, match=r'^x, column 1 \("cut"\), must hold real numbers.*' + message):
        fit_to_data(key, gaussian(), table, **OPTIONS)


def test_a_lazy_frame_is_to_be_collected(key):
    with pytest.raises(TypeError, match="x expected rows, got a LazyFrame: call its collect"):
        fit_to_data(key, gaussian(), pl.LazyFrame({"age": [1], "price": [2]}), **OPTIONS)


def with_value(value, column="price"):
    frame = FRAME.abs()
    frame.loc[3, column] = value
    return frame


def whole():
    return Dequantized(gaussian(), values=Integers(0))


@pytest.mark.parametrize("form", [lambda frame: frame, lambda frame: [(frame,)], pl.from_pandas])
@pytest.mark.parametrize(
    ("make", "frame", "support", "message"),
    [
        (gaussian, with_value(np.nan), None, r'got nan at row 3, column 1 \("price"\)'),
        (gaussian, with_value(-2.0), "positive", r'above 0 in column 1 \("price"\), got -2 at row 3'),
        (whole, with_value(0.5).round().assign(price=lambda f: f.price - 0.5), None, r'row 0, column 1 \("price"\)'),
    ],
)
def test_messages_name_the_column_of_a_table(key, form, make, frame, support, message):
    with pytest.raises(ValueError, match=message):
        fit_to_data(key, make(), form(frame), support=support, **OPTIONS)


def test_the_numbers_of_columns_are_no_names(key):
    with pytest.raises(NonFiniteDataError, match=r"nan at row 3, column 1 \(counted"):
        fit_to_data(key, gaussian(), pd.DataFrame(with_value(np.nan).to_numpy()), **OPTIONS)


def test_a_support_can_be_told_by_the_names_of_columns(key, unchecked_annotations):
    frame = FRAME.abs()
    by_name, _ = fit_to_data(key, gaussian(), frame, support={"price": "positive"}, **OPTIONS)
    by_place, _ = fit_to_data(key, gaussian(), frame, support=["real", "positive"], **OPTIONS)
    by_number, _ = fit_to_data(key, gaussian(), frame.to_numpy(), support={1: "positive"}, **OPTIONS)
    for fitted in (by_name, by_number):
        log_prob: Any = fitted.log_prob
        np.testing.assert_array_equal(log_prob(frame), by_place.log_prob(frame.to_numpy()))
    assert np.isneginf(by_name.log_prob(np.array([1.0, -1.0])))
    members, _ = fit_ensemble_to_data(
        key, lambda key: gaussian(), frame, members=2, support={"price": "positive"}, **OPTIONS
    )
    assert np.isneginf(members.log_prob(np.array([1.0, -1.0])))


@pytest.mark.parametrize(
    ("data", "support", "message"),
    [
        (FRAME, {"carat": "positive"}, r"support expected the columns of x, \['age', 'price'\], got 'carat'"),
        (X, {"price": "positive"}, "got 'price': names come with a table"),
        (FRAME, {2: "positive"}, "got 2"),
        (FRAME.set_axis(["a", "a"], axis=1), {"a": "positive"}, "there are 2 columns of that name"),
    ],
)
def test_a_support_of_columns_that_are_not_there_is_refused(key, data, support, message):
    with pytest.raises(ValueError, match=message):
        fit_to_data(key, gaussian(), data, support=support, **OPTIONS)


def test_tables_whose_indexes_differ_are_refused(key, unchecked_annotations):
    x, c = FRAME.price, FRAME.age
    turned = c.iloc[::-1]
    fit_to_data(key, Regression(), (x.iloc[::-1], turned), **OPTIONS)
    fit_to_data(key, Regression(), (x, turned.to_numpy()), **OPTIONS)
    message = "condition has another index than x: in row 0 .* 19 where x has 0"
    with pytest.raises(ValueError, match=message):
        fit_to_data(key, Regression(), (x, turned), **OPTIONS)
    with pytest.raises(ValueError, match=message):
        Regression().log_prob(x, turned)
    with pytest.raises(ValueError, match="weights has another index than x"):
        fit_to_data(key, gaussian(), FRAME, weights=turned.abs(), **OPTIONS)
    with pytest.raises(ValueError, match="val_data condition has another index than val_data x"):
        fit_to_data(key, Regression(), (x, c), val_data=(x, turned), **OPTIONS)


def test_validation_rows_have_the_columns_of_the_data(key):
    with pytest.raises(ValueError, match=r"val_data x expected the columns of x in their order, .*'price', 'age'"):
        fit_to_data(key, gaussian(), FRAME, val_data=FRAME[["price", "age"]], **OPTIONS)


def test_wide_integers_of_a_table_are_floats(key):
    times = 1_700_000_000_000 + RNG.integers(0, 10**9, 200)
    wide = with_support(Transformed(StandardNormal((1,)), Affine(jnp.zeros(1), jnp.ones(1))))
    for frame in (pd.DataFrame({"t": times}), pl.DataFrame({"t": times.astype(np.uint64)})):
        fitted, _ = fit_to_data(key, wide, frame, **OPTIONS)
        draws = np.asarray(fitted.sample(jr.key(1), 1000), np.float64)
        assert draws.mean() == pytest.approx(times.mean(), abs=0.2 * times.std())
        assert draws.std() == pytest.approx(times.std(), rel=0.2)
