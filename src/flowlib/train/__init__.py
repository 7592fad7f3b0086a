"""Fitting distributions to data and to unnormalised densities."""

from flowlib.train._ensemble import fit_ensemble_to_data as fit_ensemble_to_data
from flowlib.train._fit import fit_to_data as fit_to_data
from flowlib.train._flow_matching import FlowMatchingLoss as FlowMatchingLoss
from flowlib.train._history import EpochHistory as EpochHistory
from flowlib.train._history import FitReport as FitReport
from flowlib.train._history import StepHistory as StepHistory
from flowlib.train._hutchinson import HutchinsonLoss as HutchinsonLoss
from flowlib.train._key_based import fit_to_key_based_loss as fit_to_key_based_loss
from flowlib.train._key_based import fit_to_variational_target as fit_to_variational_target
from flowlib.train._loop import Snapshot as Snapshot
from flowlib.train._losses import AbstractRowLoss as AbstractRowLoss
from flowlib.train._losses import ContrastiveLoss as ContrastiveLoss
from flowlib.train._losses import ElboLoss as ElboLoss
from flowlib.train._losses import MaximumLikelihoodLoss as MaximumLikelihoodLoss
from flowlib.train._optimizer import decay_mask as decay_mask
from flowlib.train._optimizer import step as step
from flowlib.train._roulette import RouletteLoss as RouletteLoss
