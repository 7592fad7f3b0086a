"""Images from a base made narrower."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray

from flowlib._arrays import check_count, check_positive, real_array
from flowlib._module import peel
from flowlib.distributions import AbstractDistribution
from flowlib.plot._arguments import check_condition, flow_of, is_image, value_range
from flowlib.plot._images import centres, plot_images

if TYPE_CHECKING:
    import matplotlib.axes


def plot_temperatures(
    flow: AbstractDistribution,
    key: PRNGKeyArray,
    *,
    temperatures: Sequence[float] = (0.5, 0.7, 0.9, 1.0),
    n: int = 8,
    condition: ArrayLike | None = None,
    limits: Any = None,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Images made from the same draws of the base, which are multiplied by a temperature: a row for each.

    Below 1 images are more typical and less varied. Meant for a base that is symmetric about 0, such as the standard
    normal, of which the product is a normal with that standard deviation.

    Args:
        flow: a `Transformed` distribution of images, (height, width) or (1 or 3, height, width).
        key: a JAX PRNG key.
        temperatures: of the rows.
        n: images in a row.
        condition: one condition, of a conditional flow.
        limits: the values of black and white. Defaults to the least and greatest of whole numbers with a range, and
            else as in `plot_images`.
        ax: where to draw. Defaults to a new figure.

    Raises:
        ValueError: for events that are no images, a wrong condition, or a temperature that is not positive.
        TypeError: if `flow` is not a flow.
    """
    inner = flow_of(flow, "plot_temperatures")
    if not is_image(inner.shape):
        raise ValueError(
            "plot_temperatures can draw events of shape (height, width), (1, height, width) or (3, height, width), "
            f"got events of shape {inner.shape}."
        )
    check_condition(inner, condition, "plot_temperatures")
    check_positive(temperatures, "temperatures")
    base = peel(inner.base_dist)
    z = base.sample(key, check_count(n, "n"), None if base.cond_shape is None else condition)
    factors = real_array(temperatures, "temperatures").astype(z.dtype)
    x = inner.from_base(factors.reshape(-1, *[1] * z.ndim) * z, condition)
    limits = value_range(flow) if limits is None else limits
    ax = plot_images(jnp.reshape(x, (-1, *inner.shape)), n_columns=n, limits=limits, ax=ax)

    ax.set_axis_on()
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks(centres(len(factors), inner.shape[-2]), [f"{temperature:g}" for temperature in temperatures])
    ax.tick_params(length=0)
    ax.set_ylabel("temperature")
    return ax
