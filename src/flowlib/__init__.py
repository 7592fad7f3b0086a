"""Normalizing flows on JAX and Equinox: bijections, distributions and fits."""

from flowlib import bijections as bijections
from flowlib import distributions as distributions
from flowlib import flows as flows
from flowlib import masks as masks
from flowlib import tasks as tasks
from flowlib import train as train
from flowlib._version import __version__ as __version__
from flowlib.parameters import count_parameters as count_parameters
from flowlib.parameters import freeze as freeze
from flowlib.parameters import unfreeze as unfreeze
from flowlib.serialisation import load as load
from flowlib.serialisation import save as save
from flowlib.train import fit_to_data as fit_to_data
from flowlib.train import fit_to_variational_target as fit_to_variational_target
