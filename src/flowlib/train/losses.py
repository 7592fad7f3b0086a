"""The losses, where users of FlowJAX look for them; they are in `flowlib.train` too."""

from flowlib.train._flow_matching import FlowMatchingLoss as FlowMatchingLoss
from flowlib.train._hutchinson import HutchinsonLoss as HutchinsonLoss
from flowlib.train._losses import AbstractRowLoss as AbstractRowLoss
from flowlib.train._losses import ContrastiveLoss as ContrastiveLoss
from flowlib.train._losses import ElboLoss as ElboLoss
from flowlib.train._losses import MaximumLikelihoodLoss as MaximumLikelihoodLoss
from flowlib.train._roulette import RouletteLoss as RouletteLoss
