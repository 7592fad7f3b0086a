"""What all premade flows of images share: steps with mixed channels, levels, pixels as whole numbers, conditions."""

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import as_shape, check_count, check_key
from flowlib._run_once import run_once
from flowlib.bijections import (
    AbstractBijection,
    ActNorm,
    Affine,
    Chain,
    EmbedCondition,
    Gradient,
    ImageCoupling,
    InDataUnits,
    Invert,
    InvertibleConv1x1,
    Logit,
    Scan,
    multiscale,
    multiscale_shapes,
)
from flowlib.distributions import Dequantized, StandardNormal, Transformed
from flowlib.flows._mixing import product_of
from flowlib.flows._tail import default_transformer
from flowlib.nn import LabelEmbedding
from flowlib.support import Integers

ImageShape = tuple[int, int, int]
Preprocess = Literal["scale", "logit"]
# RealNVP's, section 4.1: of the interval between the least and the greatest value, this part lies beyond each.
_ALPHA = 0.05


def build_image_flow(
    key: PRNGKeyArray,
    make_level: Partial,
    *,
    shape: ImageShape,
    n_levels: int,
    n_values: int | None,
    preprocess: Preprocess,
    cond_dim: int | None,
    num_classes: int | None,
    noise: Partial | None = None,
) -> Dequantized | Transformed:
    """A multi-scale flow of images whose latent array has the shape of an image.

    `make_level(key, shape, squeezed_shape, cond_dim, last)` gives what a level does before its squeeze, or None, and
    its steps after it; it is a `Partial`, so that a second flow of the kind compiles nothing.
    `noise(key, shape, n_values)` gives a distribution for variational dequantization.

    Raises:
        ValueError: for a shape that does not squeeze, a number out of range, or a preprocessing that there is not.
    """
    shape = image_shape(shape)
    if preprocess not in get_args(Preprocess):
        raise ValueError(f"preprocess expected one of {get_args(Preprocess)}, got {preprocess!r}.")
    if cond_dim is not None and num_classes is not None:
        raise ValueError("A flow is conditional on cond_dim numbers or on num_classes labels: got both.")
    # Errors of sizes before anything is compiled.
    multiscale_shapes(shape, n_levels)
    n_values = None if n_values is None else check_count(n_values, "n_values", 2)
    seen = cond_dim if num_classes is None else _EMBEDDED
    key, label_key, noise_key = jr.split(check_key(key), 3)
    bijection = _make_levels(key, make_level, shape, n_levels, seen)
    to_data = None
    if n_values is not None and preprocess == "logit":
        to_data = Invert(Logit(shape, interval=(0.0, float(n_values)), alpha=_ALPHA))
    elif n_values is not None:
        to_data = Affine(jnp.full(shape, n_values / 2), jnp.full(shape, float(n_values)))
    bijection = Invert(bijection)
    if num_classes is not None:
        bijection = EmbedCondition(bijection, LabelEmbedding(label_key, num_classes, _EMBEDDED), ())
    # Whole-numbered pixels have the unit of their range: a fit does not standardise every one by itself.
    units = InDataUnits.unset(bijection, to_data=to_data, columns=n_values is None)
    flow = Transformed(StandardNormal(shape), units)
    if n_values is None:
        return flow
    values = Integers(0, n_values - 1)
    return Dequantized(flow, values=values, noise=None if noise is None else noise(noise_key, shape, n_values))


# The size of the embedding of a class label.
_EMBEDDED = 32


def image_shape(shape: Any) -> ImageShape:
    """`shape` as (channels, height, width).

    Raises:
        ValueError: if it is not that.
    """
    checked = as_shape(shape)
    if len(checked) != 3 or 0 in checked:
        raise ValueError(f"shape expected (channels, height, width), as in (1, 28, 28), got {shape!r}.")
    return checked


def steps(
    key: PRNGKeyArray, n_steps: int, make_coupling: Partial, shape: ImageShape, gradient: Gradient
) -> AbstractBijection:
    """`n_steps` of activation normalisation, a 1x1 convolution and the coupling that `make_coupling(key, i)` gives.

    At the end the product of the initial rotations is undone, so that identity couplings make an identity.
    """

    def make_step(key, i):
        conv_key, coupling_key = jr.split(key)
        mixing = [] if shape[0] == 1 else [InvertibleConv1x1(conv_key, shape=shape)]
        return Chain([ActNorm(shape), *mixing, make_coupling(coupling_key, i)])

    scan = scanned(key, n_steps, make_step, gradient)
    if shape[0] == 1:
        return scan
    convolutions: Any = cast(Chain, scan.bijection)[1]
    return Chain([scan, InvertibleConv1x1(key, shape=shape, init=product_of(convolutions).T)])


def alternating(
    make_mask: Callable, key: PRNGKeyArray, i: Array, *, shape: ImageShape, **options: Any
) -> ImageCoupling:
    """A coupling under a mask of `flowlib.masks`, whose halves take turns with i."""
    mask = jnp.where(i % 2 == 0, make_mask(shape), make_mask(shape, parity=1))
    return ImageCoupling(key, shape=shape, mask=mask, **options)


def scanned(key: PRNGKeyArray, n_steps: int, make_step: Callable, gradient: Gradient) -> Scan:
    """A scan of the steps that `make_step(key, i)` gives."""
    keys = jr.split(key, n_steps)
    return Scan(eqx.filter_vmap(make_step)(keys, jnp.arange(n_steps, dtype=jnp.int32)), gradient=gradient)


def prior(key: PRNGKeyArray, shape: ImageShape, cond_dim: int | None, conditioner: Callable) -> ImageCoupling:
    """The prior of the channels that a level leaves, given those that go on: an affine map to a standard normal."""
    return ImageCoupling(
        key, transformer=default_transformer(), shape=shape, cond_dim=cond_dim, conditioner=conditioner
    )


@run_once
def _make_levels(key, make_level, shape, n_levels, cond_dim):
    before, levels = [], []
    for i, (level_key, squeezed) in enumerate(
        zip(jr.split(key, n_levels), multiscale_shapes(shape, n_levels), strict=True)
    ):
        channels, height, width = squeezed
        unsqueezed = (channels // 4, 2 * height, 2 * width)
        first, steps = make_level(level_key, unsqueezed, squeezed, cond_dim, last=i == n_levels - 1)
        before.append(first)
        levels.append(steps)
    return multiscale(levels, shape=shape, before=before)
