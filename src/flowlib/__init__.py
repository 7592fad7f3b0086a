"""Normalizing flows on JAX and Equinox: bijections, distributions and fits.

The parts are imported when they are first used, for making some ninety Equinox classes takes time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from flowlib._version import __version__ as __version__

if TYPE_CHECKING:
    from flowlib import bijections as bijections
    from flowlib import distributions as distributions
    from flowlib import flows as flows
    from flowlib import masks as masks
    from flowlib import plot as plot
    from flowlib import tasks as tasks
    from flowlib import train as train
    from flowlib._keep_compiled import keep_compiled as keep_compiled
    from flowlib.distributions import init_from_data as init_from_data
    from flowlib.parameters import count_parameters as count_parameters
    from flowlib.parameters import freeze as freeze
    from flowlib.parameters import unfreeze as unfreeze
    from flowlib.serialisation import load as load
    from flowlib.serialisation import save as save
    from flowlib.train import fit_to_data as fit_to_data
    from flowlib.train import fit_to_variational_target as fit_to_variational_target

_PARTS = ("bijections", "distributions", "flows", "masks", "plot", "tasks", "train")
_HOMES = {
    "count_parameters": "parameters",
    "freeze": "parameters",
    "unfreeze": "parameters",
    "load": "serialisation",
    "save": "serialisation",
    "init_from_data": "distributions",
    "keep_compiled": "_keep_compiled",
    "fit_to_data": "train",
    "fit_to_variational_target": "train",
}


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"flowlib.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"flowlib.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'flowlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS, *_HOMES])
