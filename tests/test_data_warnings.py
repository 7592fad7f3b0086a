"""What a fit says of columns whose values repeat, or whose digits its precision loses, before it begins."""

import warnings
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

from flowlib.distributions import Joint, Normal, Quantized, with_support
from flowlib.errors import DataWarning
from flowlib.support import Integers
from flowlib.train import fit_ensemble_to_data, fit_to_data
from flowlib.train._lost_digits import check_digits
from flowlib.train._plan import Given
from flowlib.train._repeated_values import check_repeats
from flowlib.train._rows import gather_rows
from flowlib.train._whole_numbers import whole_columns
from flowlib.train.losses import MaximumLikelihoodLoss
from train_tools import gaussian

RNG = np.random.default_rng(0)
N = 1000
Z = RNG.normal(size=(N, 2))
OPTIONS: dict[str, Any] = {"max_epochs": 0, "show_progress": False}
NARROW = pytest.mark.skipif(jnp.result_type(float) == np.float64, reason="of data in float32")


def said(function, *arguments, **options):
    """The `DataWarning`s of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*arguments, **options)
    return [str(warning.message) for warning in caught if warning.category is DataWarning]


def second(column):
    return np.stack([Z[:, 0], column], axis=1)


HALF = np.where(np.arange(N) % 2, Z[:, 1], 0.0)
REPEATED = [
    (HALF, r"one value in many rows, in column 1 \(0 in 50% of rows\)"),
    (np.clip(Z[:, 1], -9, 1), r"in column 1 \(1 in 1\d% of rows\)"),
    (Z[:, 1].round(1), r"is rounded in column 1 \(steps of 0.1, (100|99)% of rows tied\).*uniform noise"),
    (Z[:, 1].round(1).astype(np.float32), r"steps of 0.1, "),
    (Z[:, 1].round(1).astype(np.float32).astype(float), r"steps of 0.1, "),
    (100 + np.round(4 * Z[:, 1]) / 4, r"steps of 0.25, "),
    (np.round(Z[:, 1] * 10) * 10, r"steps of 10, "),
    (RNG.poisson(3.0, N), r'has whole numbers in column 1 \(100% of rows tied\).*support="integer"'),
    (RNG.poisson(0.01, N), "has whole numbers in column 1"),
    (RNG.random(N) < 0.5, "has whole numbers in column 1"),
    (RNG.integers(1990, 2021, N), "has whole numbers in column 1"),
    (np.where(RNG.random(N) < 0.6, 0, RNG.lognormal(8, 1, N).round(2)), r"in column 1 \(0 in \d\d% of rows\)"),
]


@pytest.mark.parametrize(("column", "message"), REPEATED, ids=range(len(REPEATED)))
def test_what_repeats_is_told_with_its_share(column, message):
    (told,) = said(check_repeats, second(column))
    with pytest.warns(DataWarning, match=message):
        check_repeats(second(column))
    assert "column 0" not in told
    assert "\n" not in told


CONTINUOUS = {
    "normal": Z,
    "float32": Z.astype(np.float32),
    "float16": Z.astype(np.float16),
    "drawn in float32": jr.uniform(jr.key(0), (50_000, 1)),
    "with replacement": Z[RNG.integers(0, N // 5, N)],
    "rows many times": np.repeat(Z[:20], 50, axis=0),
    "small": Z[:19].round(1),
    "fine steps": Z.round(4),
    "a value by chance": second(np.where(np.arange(N) < 9, 0.0, Z[:, 1])),
    "heavy tails": RNG.standard_cauchy((N, 1)),
    "pixels": RNG.integers(0, 256, (30, 700)),
}


@pytest.mark.parametrize("x", CONTINUOUS.values(), ids=CONTINUOUS)
def test_floats_give_no_false_alarm(x):
    assert said(check_repeats, x) == []


def test_the_columns_of_a_table_are_named_and_plain_families_have_no_spikes():
    bunch: Any = sklearn.datasets.load_wine(as_frame=True)
    wine = bunch.data[["magnesium", "alcalinity_of_ash"]]
    assert said(fit_to_data, jr.key(0), Normal(jnp.array([100.0, 20.0]), jnp.array([15.0, 3.0])), wine, **OPTIONS) == []
    told = said(fit_to_data, jr.key(0), with_support(gaussian()), wine, **OPTIONS)
    assert len(told) == 2
    assert told[0].startswith('x has whole numbers in column 0 ("magnesium") (')
    assert told[1].startswith('x is rounded in column 1 ("alcalinity_of_ash") (steps of 0.1, ')


@pytest.mark.parametrize("rows", [lambda x: x, lambda x: [(x,)]])
def test_whole_numbers_that_are_told_are_not_told_again(key, rows):
    counts = np.stack([RNG.poisson(3.0, N), Z[:, 1].round(1)], axis=1)
    told = said(fit_to_data, key, gaussian(), rows(counts), **OPTIONS)
    assert len(told) == 2
    told = said(fit_to_data, key, gaussian(), rows(counts), support=["integer", "real"], **OPTIONS)
    assert ["column 1" in message for message in told] == [True]
    told = said(fit_to_data, key, gaussian(), rows(counts[:, :1] * [1, 2]), support="integer", **OPTIONS)
    assert told == []


def test_an_ensemble_says_it_once(key):
    told = said(fit_ensemble_to_data, key, lambda key: with_support(gaussian()), second(HALF), members=2, **OPTIONS)
    assert ["0 in 50%" in message for message in told] == [True]


def test_whole_columns_of_joined_distributions():
    counts, real = Quantized(Normal(jnp.zeros(2), 1.0)), Normal(jnp.zeros(1), 1.0)
    assert whole_columns(Joint([counts, real, counts])).tolist() == [True, True, False, True, True]
    assert whole_columns(real).tolist() == [False]


def test_rows_of_weight_zero_are_not_looked_at(key):
    x = second(2 * Z[:, 0])
    x[:10, 1] = 7.0
    counted = np.where(np.arange(N) < 10, 0.0, 1.0)
    assert said(fit_to_data, key, gaussian(), x, **OPTIONS) == []
    (told,) = said(fit_to_data, key, gaussian(), x, weights=counted, **OPTIONS)
    assert "perfectly correlated" in told
    often = np.repeat(np.arange(N), np.where(counted > 0, 1, 40))
    x = second(np.where(counted > 0, Z[:, 1], 3.0))[often]
    assert len(said(fit_to_data, key, gaussian(), x, **OPTIONS)) == 1
    assert said(fit_to_data, key, gaussian(), x, weights=counted[often], **OPTIONS) == []


def cast(x):
    return x, x.astype(np.float32)


SCALES = [
    (Z + [0, 1e8], r"x loses its scale in float32, in column 1 \(near 1e\+08 in steps of 8, deviation 0.9\d*\)"),
    (Z * [1, 1e-40], r"in column 1 \(below 1.18e-38, which counts as 0\), .* Divide by a constant there"),
    (Z * [1e-37, 1], r"in column 0 \(below"),
    (1.7e9 + RNG.uniform(0, 3600, (N, 1)), r"in column 0 \(near 1.7e\+09 in steps of 128.*Subtract a constant"),
    (Z * [1, 1e30] + [1e8, 1e38], r"in columns 0 \(near 1e\+08 .*; 1 \(near 1e\+38 "),
]


@pytest.mark.parametrize(("x", "message"), SCALES, ids=range(len(SCALES)))
def test_a_scale_that_float32_loses_is_told(x, message):
    with pytest.warns(DataWarning, match=message + ".*JAX_ENABLE_X64=1"):
        check_digits(*cast(x))


@pytest.mark.parametrize(
    "x",
    [
        Z,
        Z * 1e-30,
        Z * 1e30,
        RNG.lognormal(0, 20, (N, 1)),
        1.7e9 + RNG.uniform(0, 86400, (N, 1)),
        1.7e12 + RNG.integers(0, 10**9, (N, 1)).astype(float),
        290 + 0.1 * Z,
        np.full((N, 1), 1e8 + 1),
    ],
)
def test_a_scale_that_float32_keeps_is_not_told(x):
    assert said(check_digits, *cast(x)) == []
    assert said(check_digits, x, x) == []


@NARROW
@pytest.mark.parametrize("rows", [lambda x: x, lambda x: [(x,)], lambda x: pd.DataFrame(x)])
def test_a_lost_scale_is_told_once_and_is_not_called_constant(key, rows):
    (told,) = said(fit_to_data, key, with_support(gaussian()), rows(Z + [0, 1e8]), **OPTIONS)
    assert "loses its scale in float32, in column 1" in told


@NARROW
def test_a_condition_that_loses_its_scale_is_told(key):
    told = said(check_digits, *cast(Z + 1e8), "condition")
    assert told[0].startswith("condition loses its scale")


def test_rows_are_kept_in_the_precision_of_the_caller(key):
    x = pd.DataFrame({"seconds": 1.7e9 + RNG.uniform(0, 3600, N), "count": RNG.integers(0, 9, N)})
    rows = gather_rows(Given(gaussian(), x, MaximumLikelihoodLoss(), lambda: None, 100))
    assert rows.arrays[0].dtype == jnp.result_type(float)
    assert rows.full[0].dtype == np.float64
    np.testing.assert_array_equal(rows.full[0], x.to_numpy())
    assert rows.names[0].columns == ("seconds", "count")


@NARROW
def test_whole_numbers_that_float32_does_not_tell_apart_are_refused(key):
    wide = 2147483650 + RNG.integers(0, 5, (50, 2))
    with pytest.raises(ValueError, match=r"whole numbers below 1.67772e\+07 in size, .* got 214748365\d at row 0"):
        fit_to_data(key, gaussian(), wide, support="integer", **OPTIONS)
    fit_to_data(key, gaussian(), wide - 2147483650, support=Integers(0, 4), **OPTIONS)
