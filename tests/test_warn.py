"""Whom warnings blame."""

import warnings

import jax.random as jr
import numpy as np

from flowlib.errors import DataWarning
from flowlib.train import fit_to_data
from train_tools import gaussian


def test_a_warning_names_the_line_that_called_the_package():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_to_data(jr.key(0), gaussian(), np.ones((20, 2)), max_epochs=0, show_progress=False)
    (warning,) = caught
    assert warning.category is DataWarning
    assert warning.filename == __file__
