"""Networks that condition bijections."""

from flowlib.nn._masked_mlp import MaskedLinear as MaskedLinear
from flowlib.nn._masked_mlp import MaskedMLP as MaskedMLP
from flowlib.nn._mlp import MLP as MLP
from flowlib.nn._mlp import squash as squash
from flowlib.nn._rank_by_rank import RankByRank as RankByRank
