"""RealNVP for images."""

import jax.random as jr
from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import ActNorm, Chain, Gradient, TanhAffine
from flowlib.distributions import Dequantized, Transformed
from flowlib.flows._image_tail import ImageShape, Preprocess, alternating, build_image_flow, scanned
from flowlib.masks import channel_mask, checkerboard_mask
from flowlib.nn import ConvResNet


def realnvp_image(
    key: PRNGKeyArray,
    *,
    shape: ImageShape,
    n_values: int | None = 256,
    n_levels: int = 2,
    n_checkerboard: int = 3,
    n_channelwise: int = 3,
    nn_width: int = 32,
    nn_depth: int = 2,
    cond_dim: int | None = None,
    num_classes: int | None = None,
    preprocess: Preprocess = "logit",
    gradient: Gradient = "store",
) -> Dequantized | Transformed:
    """Multi-scale RealNVP, a flow of images (Dinh, Sohl-Dickstein and Bengio 2017, arXiv:1605.08803).

    Each level takes affine couplings that alternate between the colours of a checkerboard, squeezes 2 by 2 pixels into
    channels, takes couplings that alternate between halves of the channels, and leaves half of them to the base. The
    networks are residual, with weight normalisation; the scale of a coupling is a tanh times a trained bound.
    Activation normalisation stands before each coupling in place of the paper's batch normalisation, so that a density
    does not depend on other rows. Both directions cost one network pass a coupling.

    It starts as the identity between the base and the preprocessed pixels; `flowlib.init_from_data(flow, images[:256])`
    sets the normalisations. The paper has 3 couplings of each kind (the defaults), and for 32 by 32 pixels
    residual networks of 8 blocks and 64 channels.

    Args:
        key: a PRNG key.
        shape: (channels, height, width) of an image; height and width are multiples of 2 to the power of `n_levels`.
        n_values: pixels are whole numbers from 0 to n_values - 1, and the flow is `Dequantized`: `log_prob`, `sample`
            and fits are in these numbers. None for images of real numbers, about 1 in size.
        n_levels: the number of levels.
        n_checkerboard: couplings before the squeeze of each level.
        n_channelwise: couplings after it.
        nn_width: the channels of the hidden layers of each `flowlib.nn.ConvResNet`.
        nn_depth: its number of residual blocks.
        cond_dim: the size of a vector condition. Defaults to None, an unconditional flow.
        num_classes: instead, the number of classes: conditions are labels from 0.
        preprocess: "logit" for the logit of 0.05 + 0.9 x / n_values, or "scale" for x / n_values - 1/2. After both, a
            little of the density is outside the range of the pixels; draws from there are brought to its ends.
        gradient: what the gradient keeps of each coupling, "store", "recompute" or "rebuild"; see `Scan`.

    Raises:
        ValueError: if the image does not squeeze or split at a level, or a size is out of range.
        TypeError: if `key` is no key.
    """
    width, depth = check_count(nn_width, "nn_width"), check_count(nn_depth, "nn_depth")
    make_level = Partial(
        _make_level,
        n_checkerboard=check_count(n_checkerboard, "n_checkerboard"),
        n_channelwise=check_count(n_channelwise, "n_channelwise"),
        conditioner=Partial(ConvResNet, width=width, depth=depth),
        gradient=gradient,
    )
    return build_image_flow(
        key,
        make_level,
        shape=shape,
        n_levels=n_levels,
        n_values=n_values,
        preprocess=preprocess,
        cond_dim=cond_dim,
        num_classes=num_classes,
    )


def _make_level(key, shape, squeezed, cond_dim, *, last, n_checkerboard, n_channelwise, conditioner, gradient):
    del last
    options = {"cond_dim": cond_dim, "conditioner": conditioner}
    first = Partial(_make_step, checkerboard_mask, shape=shape, **options)
    then = Partial(_make_step, channel_mask, shape=squeezed, **options)
    first_key, then_key = jr.split(key)
    return scanned(first_key, n_checkerboard, first, gradient), scanned(then_key, n_channelwise, then, gradient)


def _make_step(make_mask, key, i, *, shape, **options):
    return Chain([ActNorm(shape), alternating(make_mask, key, i, shape=shape, transformer=TanhAffine(), **options)])
