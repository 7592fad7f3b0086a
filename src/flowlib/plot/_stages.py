"""The points that are drawn layer by layer, and their colours."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, PRNGKeyArray

from flowlib._module import peel
from flowlib.bijections import AbstractBijection, Chain, EmbedCondition, Flip, Invert, NumericalInverse, Permute
from flowlib.plot._arguments import as_reals, check_planar, flow_of

Direction = Literal["sample", "data"]


class Stages(NamedTuple):
    """Points (n, 2) and a title for each stage in the order in which they are drawn, and a colour for each point."""

    points: list[Float[np.ndarray, "n 2"]]
    titles: list[str]
    colours: Any


def stages_of(
    dist: Any,
    x: ArrayLike | None,
    key: PRNGKeyArray | None,
    n: int,
    condition: ArrayLike | None,
    direction: Direction,
    color_by: Any,
    where: str,
) -> Stages:
    """The stages of events `x`, or of `n` draws."""
    flow = flow_of(dist, where)
    layers = flow.layers
    for shape in [flow.shape, *(layer.shape for layer in layers)]:
        check_planar(shape, where)
    if direction not in ("sample", "data"):
        raise ValueError(f'direction expected "sample" or "data", got {direction!r}.')
    if x is not None:
        found = flow.layer_values(as_reals(dist, x), condition)
    elif key is not None:
        found = flow.sample_layer_values(key, n, condition)
    else:
        raise ValueError(f"{where} needs events, or a key to draw some: pass key=jax.random.key(0).")
    points = [np.asarray(value).reshape(-1, 2) for value in found.values]
    # A permutation moves no point, it renames the coordinates: all stages have them in the order of the data.
    swapped = False
    for i in reversed(range(len(layers))):
        swapped ^= _swaps(layers[i])
        points[i] = points[i][:, ::-1] if swapped else points[i]
    # The numbers are those of `flow.layers`, and of what `repr` shows.
    titles = [f"{i}: {name}" for i, name in enumerate(found.names[1:])]
    colours = _colours(points[0], color_by)
    if direction == "sample":
        return Stages(points, ["base", *titles], colours)
    # A title says what has just been done to the points, here the inverse of a layer.
    return Stages(points[::-1], ["data", *(f"{title}⁻¹" for title in titles[::-1])], colours)


def _swaps(layer: AbstractBijection) -> bool:
    """Whether the permutations in a layer of two coordinates come to an exchange of the two."""
    layer = peel(layer)
    if isinstance(layer, Chain):
        return sum(map(_swaps, layer)) % 2 == 1
    if isinstance(layer, Invert | EmbedCondition | NumericalInverse):
        return _swaps(layer.bijection)
    return isinstance(layer, Flip) or (isinstance(layer, Permute) and bool(layer.permutation.ravel()[0] == 1))


def _colours(base: np.ndarray, color_by: Any) -> Any:
    if not isinstance(color_by, str):
        colours = np.asarray(color_by)
        if len(colours) != len(base):
            raise ValueError(f"color_by expected a value for each of {len(base)} points, got {len(colours)}.")
        return colours
    x, y = (base - np.nanmedian(base, axis=0)).T
    if color_by == "angle":
        return _hues(np.arctan2(y, x))
    if color_by == "quadrant":
        return np.array(["tab:blue", "tab:orange", "tab:green", "tab:red"])[2 * (x > 0) + (y > 0)]
    raise ValueError(f'color_by expected "angle", "quadrant" or a value for each point, got {color_by!r}.')


def _hues(angle: np.ndarray) -> np.ndarray:
    """Colours around the circle that are equally light and equally far apart: OKLCh to sRGB (Ottosson 2020)."""
    lightness, chroma = 0.68, 0.14
    angle = np.nan_to_num(angle)
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(np.array(to_rgb) @ cones**3, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T
