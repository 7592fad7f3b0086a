"""Premade flows: each returns a `Transformed` distribution in one call."""

from flowlib.flows._block_neural_autoregressive import (
    block_neural_autoregressive_flow as block_neural_autoregressive_flow,
)
from flowlib.flows._coupling import coupling_flow as coupling_flow
from flowlib.flows._masked_autoregressive import masked_autoregressive_flow as masked_autoregressive_flow
from flowlib.flows._planar import planar_flow as planar_flow
from flowlib.flows._triangular_spline import triangular_spline_flow as triangular_spline_flow
