"""The check of activations, which all networks share."""

from collections.abc import Callable
from typing import Any

from flowlib._wanted import check_function


def checked_activation(activation: Any) -> Callable:
    """The activation as given.

    Raises:
        TypeError: if it cannot be called, or is a class that has yet to be.
    """
    check_function(activation, "activation (nn_activation of a flow)", "a function of one array, such as jax.nn.relu")
    return activation
