"""Pictures of flows, with matplotlib (`pip install flowlib[plot]`), which is imported at the first of them.

Each function draws into the axes it is given, or into a new figure, and returns the axes. Nothing is shown, and no
setting of matplotlib is changed.
"""

from flowlib.plot._animation import animate_layers as animate_layers
from flowlib.plot._density import plot_density as plot_density
from flowlib.plot._images import plot_images as plot_images
from flowlib.plot._interpolation import plot_interpolation as plot_interpolation
from flowlib.plot._layers import plot_layers as plot_layers
from flowlib.plot._losses import plot_losses as plot_losses
from flowlib.plot._pairs import plot_pairs as plot_pairs
from flowlib.plot._temperatures import plot_temperatures as plot_temperatures
from flowlib.plot._warped_grid import plot_warped_grid as plot_warped_grid
