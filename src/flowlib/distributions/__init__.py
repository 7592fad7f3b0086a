"""Distributions: densities with samplers."""

from flowlib.distributions._beta import Beta as Beta
from flowlib.distributions._cauchy import Cauchy as Cauchy
from flowlib.distributions._dequantized import Dequantized as Dequantized
from flowlib.distributions._dequantized import bits_per_dim as bits_per_dim
from flowlib.distributions._distribution import AbstractDistribution as AbstractDistribution
from flowlib.distributions._exponential import Exponential as Exponential
from flowlib.distributions._gamma import Gamma as Gamma
from flowlib.distributions._gaussian_mixture import gaussian_mixture as gaussian_mixture
from flowlib.distributions._gumbel import Gumbel as Gumbel
from flowlib.distributions._init_from_data import init_from_data as init_from_data
from flowlib.distributions._joint import Joint as Joint
from flowlib.distributions._laplace import Laplace as Laplace
from flowlib.distributions._layer_values import LayerValues as LayerValues
from flowlib.distributions._loc_scale import AbstractLocScaleDistribution as AbstractLocScaleDistribution
from flowlib.distributions._log_normal import LogNormal as LogNormal
from flowlib.distributions._logistic import Logistic as Logistic
from flowlib.distributions._mixture import Mixture as Mixture
from flowlib.distributions._multivariate_normal import MultivariateNormal as MultivariateNormal
from flowlib.distributions._normal import Normal as Normal
from flowlib.distributions._normal import StandardNormal as StandardNormal
from flowlib.distributions._student_t import StudentT as StudentT
from flowlib.distributions._transformed import AbstractTransformed as AbstractTransformed
from flowlib.distributions._transformed import Transformed as Transformed
from flowlib.distributions._uniform import Uniform as Uniform
from flowlib.distributions._vmap_mixture import VmapMixture as VmapMixture
