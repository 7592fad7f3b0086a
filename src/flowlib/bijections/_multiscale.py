"""Multi-scale flows of images, composed of parts."""

from collections.abc import Sequence

from flowlib._arrays import check_count
from flowlib._module import peel
from flowlib.bijections._bijection import AbstractBijection, check_is_bijection
from flowlib.bijections._chain import Chain
from flowlib.bijections._concatenate import Concatenate
from flowlib.bijections._elementwise import Identity
from flowlib.bijections._invert import Invert
from flowlib.bijections._squeeze import Layout, Squeeze


def multiscale(
    levels: Sequence[AbstractBijection],
    *,
    shape: tuple[int, ...],
    before: Sequence[AbstractBijection | None] | None = None,
    factor: int = 2,
    layout: Layout = "CHW",
) -> Chain:
    """A multi-scale flow of images, as a bijection that keeps their shape.

    Each level squeezes its image (`Squeeze`), takes its steps, hands the first half of the channels to the next level
    as an image of their own, leaves the other half as it is, and undoes the squeeze. No
    dimension is dropped: what a level leaves stays where its pixels were. Costs are those of the steps.

    Args:
        levels: the steps of each level, first those at the finest resolution, each a bijection of the shape that
            `multiscale_shapes` gives for it. They may be conditional.
        shape: the shape of an image.
        before: what each level does before its squeeze, a bijection of its image's shape, or None. Defaults to nothing.
        factor: of each squeeze. Defaults to 2.
        layout: which axis has the channels, "CHW" or "HWC". Defaults to "CHW".

    Raises:
        ValueError: if there are no levels, the image of a level does not squeeze or split, or steps have another shape.
        TypeError: if the steps of a level are no bijection.

    References:
        Dinh et al. 2017, arXiv:1605.08803, section 3.6.
    """
    squeezes = _squeezes(shape, len(levels), factor, layout)
    before = [None] * len(levels) if before is None else before
    if len(before) != len(levels):
        raise ValueError(f"multiscale expected `before` for each of {len(levels)} levels, got {len(before)}.")
    flow = None
    for squeeze, first, steps in zip(reversed(squeezes), reversed(before), reversed(levels), strict=True):
        parts = [squeeze, _checked(steps, squeeze.out_shape)]
        if first is not None:
            parts.insert(0, _checked(first, squeeze.shape))
        if flow is not None:
            # Slices, where `Indexed` would gather and scatter.
            parts.append(Concatenate([flow, Identity(flow.shape)], axis=_channel_axis(layout)))
        flow = Chain([*parts, Invert(squeeze)])
    assert flow is not None
    return flow


def multiscale_shapes(
    shape: tuple[int, ...], n_levels: int, *, factor: int = 2, layout: Layout = "CHW"
) -> list[tuple[int, ...]]:
    """The shapes that the steps of the levels of `multiscale` must have, first that at the finest resolution.

    Args:
        shape: the shape of an image.
        n_levels: the number of levels.
        factor: of each squeeze. Defaults to 2.
        layout: which axis has the channels, "CHW" or "HWC". Defaults to "CHW".

    Raises:
        ValueError: if there are no levels, or the image of a level does not squeeze or split.
    """
    return [squeeze.out_shape for squeeze in _squeezes(shape, n_levels, factor, layout)]


def _squeezes(shape, n_levels, factor, layout) -> list[Squeeze]:
    found = []
    for level in range(check_count(n_levels, "the number of levels")):
        try:
            squeeze = Squeeze(shape, factor, layout=layout)
        except ValueError as error:
            raise ValueError(f"At level {level} of {n_levels} of a multi-scale flow: {error}") from None
        found.append(squeeze)
        halved = list(squeeze.out_shape)
        axis = _channel_axis(layout)
        if level + 1 < n_levels and halved[axis] % 2:
            raise ValueError(
                f"At level {level} of {n_levels} of a multi-scale flow: "
                f"expected an even number of channels to split, got {halved[axis]}."
            )
        halved[axis] //= 2
        shape = tuple(halved)
    return found


def _channel_axis(layout: Layout) -> int:
    return 0 if layout == "CHW" else 2


def _checked(steps, shape):
    check_is_bijection(steps, "multiscale")
    part = peel(steps)
    if part.shape != shape or part.out_shape != shape:
        raise ValueError(
            f"multiscale expected steps that keep the shape {shape}, got {part.shape} -> {part.out_shape}."
        )
    return steps
