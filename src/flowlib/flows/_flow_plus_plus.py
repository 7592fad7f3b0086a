"""Flow++."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from flowlib._arrays import check_count
from flowlib._module import Module
from flowlib._run_once import run_once
from flowlib.bijections import Chain, EmbedCondition, Gradient, LogisticMixture, Sigmoid
from flowlib.distributions import Dequantized, Logistic, Transformed
from flowlib.flows._image_tail import ImageShape, Preprocess, alternating, build_image_flow, prior, scanned, steps
from flowlib.flows._tail import default_transformer
from flowlib.masks import channel_mask, checkerboard_mask
from flowlib.nn import ConvNet, GatedAttentionNet
from flowlib.parameters import freeze


def flow_plus_plus(
    key: PRNGKeyArray,
    *,
    shape: ImageShape,
    n_values: int | None = 256,
    n_levels: int = 1,
    n_checkerboard: int = 4,
    n_channelwise: int = 2,
    n_after: int = 3,
    components: int = 8,
    nn_width: int = 32,
    nn_depth: int = 2,
    nn_heads: int = 4,
    noise_steps: int = 2,
    cond_dim: int | None = None,
    num_classes: int | None = None,
    preprocess: Preprocess = "logit",
    gradient: Gradient = "store",
) -> Dequantized | Transformed:
    """Flow++, a flow of images (Ho, Chen, Srinivas, Duan and Abbeel 2019, arXiv:1902.00275).

    Couplings map pixels by the cumulative distribution function of a mixture of logistics and an affine map, with
    networks of gated convolutions and self-attention, and the noise in the cells of the pixels is a flow given the
    image (variational dequantization), trained along. Each level takes couplings of the colours of a checkerboard,
    squeezes 2 by 2 pixels into channels, and takes couplings of channels and then of a checkerboard again, all with
    activation normalisation and 1x1 convolutions. `log_prob` costs one network pass a coupling; `sample` one too, and a
    numerical inverse of each pixel.

    It starts near the identity between the base and the preprocessed pixels (|log dy/dx| < 0.009 for each pixel of a
    coupling, with eight components or more), and noise near the uniform;
    `flowlib.init_from_data(flow, images[:256])` sets the normalisations. The paper has the numbers of couplings
    that are the defaults, 32 components, and networks of 10 blocks and 96 channels, for 32 by 32 pixels.

    Args:
        key: a PRNG key.
        shape: (channels, height, width) of an image; height and width are multiples of 2 to the power of `n_levels`.
        n_values: pixels are whole numbers from 0 to n_values - 1, and the flow is `Dequantized`: `log_prob`, `sample`
            and fits are in these numbers. None for images of real numbers, about 1 in size, and no noise.
        n_levels: the number of levels.
        n_checkerboard: couplings before the squeeze of each level.
        n_channelwise: couplings of channels after it.
        n_after: couplings of a checkerboard after these.
        components: of each mixture.
        nn_width: the channels of the networks, a multiple of `nn_heads`.
        nn_depth: their number of blocks.
        nn_heads: their number of attention heads.
        noise_steps: couplings of the noise; 0 for uniform noise.
        cond_dim: the size of a vector condition. Defaults to None, an unconditional flow.
        num_classes: instead, the number of classes: conditions are labels from 0.
        preprocess: "logit" for the logit of 0.05 + 0.9 x / n_values, or "scale" for x / n_values - 1/2. After both, a
            little of the density is outside the range of the pixels; draws from there are brought to its ends.
        gradient: what the gradient keeps of each coupling, "store" or "recompute"; see `Scan`.

    Raises:
        ValueError: if the image does not squeeze or split at a level, or a size is out of range.
        TypeError: if `key` is no key.
    """
    width, depth = check_count(nn_width, "nn_width"), check_count(nn_depth, "nn_depth")
    make_level = Partial(
        _make_level,
        counts=tuple(
            check_count(n, name)
            for n, name in [
                (n_checkerboard, "n_checkerboard"), (n_channelwise, "n_channelwise"), (n_after, "n_after")
            ]
        ),
        network=Partial(GatedAttentionNet, width=width, depth=depth, heads=check_count(nn_heads, "nn_heads")),
        transformer=Chain([LogisticMixture(components), default_transformer()]),
        gradient=gradient,
    )  # fmt: skip
    noise_steps = check_count(noise_steps, "noise_steps", 0)
    return build_image_flow(
        key,
        make_level,
        shape=shape,
        n_levels=n_levels,
        n_values=n_values,
        preprocess=preprocess,
        cond_dim=cond_dim,
        num_classes=num_classes,
        noise=Partial(_noise, noise_steps, width) if noise_steps else None,
    )


def _make_level(key, shape, squeezed, cond_dim, *, last, counts, network, transformer, gradient):
    def couplings(i, make_mask, image):
        make_coupling = Partial(
            alternating,
            make_mask,
            shape=image,
            transformer=transformer,
            cond_dim=cond_dim,
            conditioner=Partial(network, image_shape=image[1:]),
        )
        return steps(jr.fold_in(key, i), counts[i], make_coupling, image, gradient)

    after = [couplings(1, channel_mask, squeezed), couplings(2, checkerboard_mask, squeezed)]
    if not last:
        after.append(prior(jr.fold_in(key, 3), squeezed, cond_dim, Partial(network, image_shape=squeezed[1:])))
    return couplings(0, checkerboard_mask, shape), Chain(after)


class ScaledPixels(Module):
    """Whole numbers from 0 to n_values - 1 as numbers around 0."""

    n_values: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return x / self.n_values - 0.5


def _noise(n_steps, width, key, shape, n_values):
    return _make_noise(key, shape, n_values, n_steps, width)


@run_once
def _make_noise(key, shape, n_values, n_steps, width):
    """Noise in the cells of pixels, given these: uniform at first, for a sigmoid makes a logistic number uniform."""
    make_coupling = Partial(
        alternating,
        checkerboard_mask,
        shape=shape,
        transformer=default_transformer(),
        cond_channels=shape[0],
        conditioner=Partial(ConvNet, width=width),
    )
    couplings = EmbedCondition(scanned(key, n_steps, make_coupling, "store"), ScaledPixels(n_values), shape)
    base = freeze(Logistic(jnp.zeros(shape), jnp.ones(shape)))
    return Transformed(base, Chain([couplings, Sigmoid(shape)]))
