"""The cases of image-shaped bijections, part of `cases.py`.

Heights, widths and numbers of channels are unequal, and a case's size is the number of coordinates.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.tree_util import Partial

import flowlib.bijections as bij
from flowlib import flows, nn
from flowlib.flows._tail import default_transformer
from flowlib.masks import checkerboard_mask
from parts import normal, positive, rotation, shift
from registry import Case, entry, only_when_all


def affine_image(key, *shape):
    loc, scale = jr.split(key)
    return bij.Affine(normal(loc, *shape), positive(scale, *shape))


def turned_image(key, shape, d):
    """Steps of a level that mix all coordinates."""
    keys = jr.split(key)
    return bij.Chain([bij.Reshape(rotation(keys[0], d), shape), affine_image(keys[1], *shape)])


def two_levels(key, shape, *, cond=False, **options):
    keys = jr.split(key, 3)
    steps = []
    for key_, wanted in zip(keys, bij.multiscale_shapes(shape, 2, **options), strict=False):
        size = wanted[0] * wanted[1] * wanted[2]
        steps.append(turned_image(key_, wanted, size))
    if cond:
        steps[1] = bij.Chain([steps[1], shift(keys[2], *steps[1].shape)])
    return bij.multiscale(steps, shape=shape, **options)


def mixing(key, shape, **options):
    """A matrix at each pixel."""
    return bij.InvertibleConv1x1(key, shape=shape, **options)


def image_coupling(key, shape, **options):
    """Of few channels, with the default transformer."""
    options = {"conditioner": Partial(nn.ConvNet, width=4), **options}
    return bij.ImageCoupling(key, shape=shape, **{"transformer": default_transformer(), **options})


def own_network(key, in_channels, out_channels):
    """A network of the user's own."""
    return eqx.nn.Conv2d(in_channels, out_channels, (3, 1), padding=((1, 1), (0, 0)), key=key)


def narrow_spline():
    return bij.RationalQuadraticSpline(knots=4, interval=2.0)


def image_flow(constructor, key, **options):
    """Of real numbers: its shape is (1, 2, 4)."""
    return constructor(key, shape=(1, 2, 4), n_values=None, n_levels=1, nn_width=4, **options)


def glow(key, d):
    return image_flow(flows.glow, key, n_steps=2, cond_dim=2)


def realnvp(key, d):
    return image_flow(flows.realnvp_image, key, n_checkerboard=2, n_channelwise=2, nn_depth=1)


def flow_plus_plus(key, d):
    counts = {"n_checkerboard": 1, "n_channelwise": 1, "n_after": 1}
    return image_flow(flows.flow_plus_plus, key, nn_depth=1, components=2, num_classes=3, **counts)


def label(rng):
    return rng.integers(3, dtype="int32")


def whole_glow(key, d):
    return flows.glow(key, shape=(1, 2, 4), n_values=4, n_levels=1, nn_width=4, n_steps=1)


FLOWS: list[Case] = [
    *entry("glow", glow, default=8, sizes=(8,), noise=0.15, stacked=False),
    *map(only_when_all, entry("realnvp_image", realnvp, default=8, sizes=(8,), noise=0.15, stacked=False)),
    *map(
        only_when_all,
        entry("flow_plus_plus", flow_plus_plus, default=8, sizes=(8,), noise=0.15, stacked=False, condition=label),
    ),
]
DISTRIBUTIONS: list[Case] = [
    *map(only_when_all, FLOWS),
    *entry("glow_whole", whole_glow, default=8, sizes=(8,), noise=0.15, stacked=False),
]


BIJECTIONS: list[Case] = [
    *entry("Squeeze", lambda key, d: bij.Squeeze((3, 2, 4)), default=24, sizes=(24,)),
    *entry(
        "Squeeze_channels_last",
        lambda key, d: bij.Squeeze((3, 6, 2), 3, layout="HWC"),
        default=36,
        sizes=(36,),
    ),
    *entry("CheckerboardSqueeze", lambda key, d: bij.CheckerboardSqueeze((2, 3, 4)), default=24, sizes=(24,)),
    *entry(
        "CheckerboardSqueeze_mixed",
        lambda key, d: bij.Chain(
            [turned_image(key, (3, 1, 2), d), bij.CheckerboardSqueeze((3, 1, 2)), affine_image(key, 6, 1, 1)]
        ),
        default=6,
        sizes=(6,),
    ),
    *entry("multiscale", lambda key, d: two_levels(key, (1, 4, 8)), default=32, sizes=(32,), noise=0.3),
    *entry(
        "multiscale_conditional",
        lambda key, d: two_levels(key, (8, 4, 1), cond=True, layout="HWC"),
        default=32,
        sizes=(32,),
        noise=0.3,
    ),
    *entry(
        "Logit_image",
        lambda key, d: bij.Logit((2, 1, 3), interval=(0.0, 8.0), alpha=0.05),
        default=6,
        sizes=(6,),
        special=lambda b: (0.0, 8.0),
    ),
    *entry("ActNorm_image", lambda key, d: bij.ActNorm((3, 1, 2)), default=6, sizes=(6,)),
    *entry("ActNorm_matrix", lambda key, d: bij.ActNorm((2, 5)), default=10, sizes=(10,)),
    *entry("InvertibleConv1x1", lambda key, d: mixing(key, (3, 1, 2)), default=6, sizes=(6,), noise=0.2),
    *entry(
        "InvertibleConv1x1_init",
        lambda key, d: mixing(key, (2, 2, 3), init=jnp.eye(2) + 0.5 * normal(key, 2, 2)),
        default=12,
        sizes=(12,),
        noise=0.2,
    ),
    *entry("InvertibleConv1x1_single", lambda key, d: mixing(key, (1, 1, 2)), default=2, sizes=(2,)),
    *entry("ImageCoupling", lambda key, d: image_coupling(key, (3, 2, 4)), default=24, sizes=(24,)),
    *entry(
        "ImageCoupling_conditional",
        lambda key, d: image_coupling(
            key, (2, 3, 2), cond_dim=3, conditioner=Partial(nn.ConvResNet, width=4, depth=1, activation=jnp.tanh)
        ),
        default=12,
        sizes=(12,),
        noise=0.3,
    ),
    *entry(
        "ImageCoupling_mask",
        lambda key, d: image_coupling(key, (2, 3, 2), mask=checkerboard_mask((1, 3, 2)), transformer=narrow_spline()),
        default=12,
        sizes=(12,),
        noise=0.15,
        special=lambda b: (-2.0, 2.0),
    ),
    *entry(
        "ImageCoupling_mask_conditional",
        lambda key, d: image_coupling(
            key,
            (3, 1, 2),
            mask=np.arange(6).reshape(3, 1, 2) % 4 == 1,
            transformer=bij.TanhAffine(),
            cond_dim=2,
            conditioner=Partial(nn.GatedAttentionNet, width=4, depth=1, heads=2, image_shape=(1, 2)),
        ),
        default=6,
        sizes=(6,),
        noise=0.3,
    ),
    *entry(
        "ImageCoupling_image_condition",
        lambda key, d: image_coupling(key, (2, 1, 3), cond_channels=1, conditioner=Partial(nn.ConvNet, width=3)),
        default=6,
        sizes=(6,),
    ),
    *entry(
        "ImageCoupling_kinds",
        lambda key, d: image_coupling(
            key,
            (3, 2, 1),
            keep=1,
            transformer=[default_transformer(), narrow_spline()],
            conditioner=own_network,
        ),
        default=6,
        sizes=(6,),
        special=lambda b: (-2.0, 2.0),
    ),
]
