"""Premade flows: each returns a `Transformed` distribution in one call."""

from flowlib.flows._bernstein import bernstein_flow as bernstein_flow
from flowlib.flows._block_neural_autoregressive import (
    block_neural_autoregressive_flow as block_neural_autoregressive_flow,
)
from flowlib.flows._circular_spline import circular_spline_flow as circular_spline_flow
from flowlib.flows._coupling import coupling_flow as coupling_flow
from flowlib.flows._ffjord import ffjord as ffjord
from flowlib.flows._flow_plus_plus import flow_plus_plus as flow_plus_plus
from flowlib.flows._gaussianization import gaussianization_flow as gaussianization_flow
from flowlib.flows._glow import glow as glow
from flowlib.flows._heavy_tailed import heavy_tailed_flow as heavy_tailed_flow
from flowlib.flows._inverse_autoregressive import inverse_autoregressive_flow as inverse_autoregressive_flow
from flowlib.flows._logistic_mixture import logistic_mixture_flow as logistic_mixture_flow
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow as masked_autoregressive_flow
from flowlib.flows._neural_autoregressive import neural_autoregressive_flow as neural_autoregressive_flow
from flowlib.flows._neural_spline import neural_spline_flow as neural_spline_flow
from flowlib.flows._nice import nice as nice
from flowlib.flows._ordered import ordered_flow as ordered_flow
from flowlib.flows._planar import planar_flow as planar_flow
from flowlib.flows._radial import radial_flow as radial_flow
from flowlib.flows._realnvp import realnvp as realnvp
from flowlib.flows._realnvp_image import realnvp_image as realnvp_image
from flowlib.flows._residual import residual_flow as residual_flow
from flowlib.flows._simplex import simplex_flow as simplex_flow
from flowlib.flows._sphere import sphere_flow as sphere_flow
from flowlib.flows._sum_of_squares import sum_of_squares_flow as sum_of_squares_flow
from flowlib.flows._sylvester import sylvester_flow as sylvester_flow
from flowlib.flows._triangular_spline import triangular_spline_flow as triangular_spline_flow
from flowlib.flows._unconstrained_monotonic import unconstrained_monotonic_flow as unconstrained_monotonic_flow
