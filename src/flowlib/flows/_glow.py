"""Glow."""

from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from flowlib._arrays import check_count
from flowlib.bijections import AbstractBijection, Chain, Gradient, ImageCoupling
from flowlib.distributions import Dequantized, Transformed
from flowlib.flows._image_tail import ImageShape, Preprocess, build_image_flow, prior, steps
from flowlib.flows._tail import default_transformer
from flowlib.nn import ConvNet


def glow(
    key: PRNGKeyArray,
    *,
    shape: ImageShape,
    n_values: int | None = 256,
    n_levels: int = 2,
    n_steps: int = 8,
    nn_width: int = 64,
    cond_dim: int | None = None,
    num_classes: int | None = None,
    transformer: AbstractBijection | None = None,
    preprocess: Preprocess = "scale",
    gradient: Gradient = "store",
) -> Dequantized | Transformed:
    """Glow, a flow of images (Kingma and Dhariwal 2018, arXiv:1807.03039).

    Each level squeezes 2 by 2 pixels into channels, takes steps of activation normalisation, an invertible 1x1
    convolution and an affine coupling of half the channels, and leaves half of them with a prior given the others (an
    affine map of them to the standard normal base). The steps of a level are scanned. Both directions cost one network
    pass a step.

    It starts as the identity between the base and the preprocessed pixels; `flowlib.init_from_data(flow, images[:256])`
    sets the normalisations from images, as the paper does. The paper's sizes are 3 levels of 32 steps of width 512 for
    32 by 32 pixels, trained at a learning rate of 1e-3 with Adamax or Adam.

    Args:
        key: a PRNG key.
        shape: (channels, height, width) of an image; height and width are multiples of 2 to the power of `n_levels`.
        n_values: pixels are whole numbers from 0 to n_values - 1, and the flow is `Dequantized`: `log_prob`, `sample`
            and fits are in these numbers. None for images of real numbers, about 1 in size.
        n_levels: the number of levels.
        n_steps: the number of steps of each level.
        nn_width: the channels of the hidden layers of each `flowlib.nn.ConvNet`.
        cond_dim: the size of a vector condition. Defaults to None, an unconditional flow.
        num_classes: instead, the number of classes: conditions are labels from 0.
        transformer: the scalar bijection of the couplings. Defaults to an affine map with its scale in (1/100, 100).
        preprocess: "scale" for x / n_values - 1/2, or "logit" as `realnvp_image` does. After both, a little of the
            density is outside the range of the pixels; draws from there are brought to its ends.
        gradient: what the gradient keeps of each step, "store", "recompute" or "rebuild"; see `Scan`. With "rebuild",
            memory hardly grows with the steps.

    Raises:
        ValueError: if the image does not squeeze or split at a level, or a size is out of range.
        TypeError: if `key` is no key.
    """
    make_level = Partial(
        _make_level,
        n_steps=check_count(n_steps, "n_steps"),
        conditioner=Partial(ConvNet, width=check_count(nn_width, "nn_width")),
        transformer=default_transformer() if transformer is None else transformer,
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


def _make_level(key, shape, squeezed, cond_dim, *, last, n_steps, conditioner, transformer, gradient):
    make_coupling = Partial(
        _make_coupling, transformer=transformer, shape=squeezed, cond_dim=cond_dim, conditioner=conditioner
    )
    taken = steps(key, n_steps, make_coupling, squeezed, gradient)
    return None, taken if last else Chain([taken, prior(key, squeezed, cond_dim, conditioner)])


def _make_coupling(key, i, **options):
    return ImageCoupling(key, **options)
