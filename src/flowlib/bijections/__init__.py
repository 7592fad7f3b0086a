"""Bijections: invertible maps with tractable log-determinants."""

from flowlib.bijections._bijection import AbstractBijection as AbstractBijection
from flowlib.bijections._bijection import LogDet as LogDet
from flowlib.bijections._bijection import backward as backward
from flowlib.bijections._bijection import backward_batch as backward_batch
from flowlib.bijections._bijection import forward as forward
from flowlib.bijections._bijection import forward_batch as forward_batch
from flowlib.bijections._bijection import merge_cond_shapes as merge_cond_shapes
from flowlib.bijections._chain import Chain as Chain
from flowlib.bijections._elementwise import Exp as Exp
from flowlib.bijections._elementwise import Identity as Identity
from flowlib.bijections._elementwise import Sigmoid as Sigmoid
from flowlib.bijections._elementwise import SoftPlus as SoftPlus
from flowlib.bijections._invert import Invert as Invert
from flowlib.bijections._layers import describe as describe
from flowlib.bijections._layers import layers_of as layers_of
from flowlib.bijections._scan import Scan as Scan
