"""Networks that condition bijections."""

from flowlib.nn._circular_inputs import CircularInputs as CircularInputs
from flowlib.nn._conv_net import ConvNet as ConvNet
from flowlib.nn._conv_res_net import ConvResNet as ConvResNet
from flowlib.nn._gated_attention_net import GatedAttentionNet as GatedAttentionNet
from flowlib.nn._image_net import AbstractImageNet as AbstractImageNet
from flowlib.nn._label_embedding import LabelEmbedding as LabelEmbedding
from flowlib.nn._lipschitz_mlp import LipschitzMLP as LipschitzMLP
from flowlib.nn._masked_mlp import MaskedLinear as MaskedLinear
from flowlib.nn._masked_mlp import MaskedMLP as MaskedMLP
from flowlib.nn._mlp import MLP as MLP
from flowlib.nn._mlp import squash as squash
from flowlib.nn._rank_by_rank import RankByRank as RankByRank
from flowlib.nn._residual_mlp import ResidualMLP as ResidualMLP
from flowlib.nn._time_mlp import TimeMLP as TimeMLP
from flowlib.nn._vector_net import AbstractVectorNet as AbstractVectorNet
