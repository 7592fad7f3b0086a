"""Distributions: densities with samplers."""

from flowlib.distributions._distribution import AbstractDistribution as AbstractDistribution
from flowlib.distributions._normal import StandardNormal as StandardNormal
from flowlib.distributions._transformed import AbstractTransformed as AbstractTransformed
from flowlib.distributions._transformed import Transformed as Transformed
