"""Coupling layers of images."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, PRNGKeyArray

from flowlib._arrays import as_shape, check_count, check_key, is_concrete
from flowlib._module import peel
from flowlib.bijections._bijection import AbstractBijection, LogDet, check_is_bijection, one_row
from flowlib.bijections._transformers import Transformers
from flowlib.nn import AbstractImageNet, ConvNet

# A point at which a transformer has neither an end nor a pole.
_ORDINARY = 0.5


class ImageCoupling(AbstractBijection):
    """y_A = x_A and y_B = t(x_B; parameters made from x_A and the condition), for images (channels, height, width).

    A is either the first channels, or the part of the image where a mask is True (a checkerboard, say; Dinh et al.
    2017, arXiv:1605.08803). The parameters come from a network of images, which sees x_A, with 0 for x_B under a
    mask. Each direction costs one call of the network and one of the transformer t a number. Starts as
    the transformer given: its parameters plus the network's output, which is 0 at first.

    Args:
        key: a PRNG key.
        transformer: t: an unconditional bijection of shape (), given to every number of x_B. Its trainable arrays
            become functions of what the network sees; frozen ones stay. Without a mask also a sequence of such
            bijections, one for each channel of x_B; or one of shape (channels of x_B,), given to every pixel.
        shape: (channels, height, width) of an event.
        keep: the number of channels of A, the first ones. Defaults to half of them, rounded down.
        mask: instead, True for A: a boolean array of shape (channels, height, width), or (1, height, width) for all
            channels alike; see `flowlib.masks.checkerboard_mask`.
        cond_dim: the size of a condition, a vector. Defaults to None.
        cond_channels: instead, the channels of a condition that is an image of the same height and width; the network
            sees them after those of x_A. Defaults to None.
        conditioner: what makes the network, `conditioner(key, in_channels, out_channels)`, called with `cond_dim=` too
            if that is given. Then the network is called as `network(x, condition)`, else as `network(x)`, with x of
            shape (in_channels, height, width). It gives (out_channels, height, width): the offsets of all parameters
            of the first channel of x_B (under a mask, of x), then those of the second, and so on. Defaults to a
            `flowlib.nn.ConvNet` of width 64; `jax.tree_util.Partial(flowlib.nn.ConvResNet, width=32, depth=2)` makes
            another one.

    Raises:
        ValueError: if sizes, shapes or the mask are wrong, or a network gives another shape.
        TypeError: if the transformer is not a bijection, or `key` no key.
    """

    transformers: Transformers
    conditioner: Callable[..., Array]
    mask: Bool[Array, "*stack c h w"] | None
    keep: int | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        transformer: AbstractBijection | Sequence[AbstractBijection],
        shape: tuple[int, int, int],
        keep: int | None = None,
        mask: ArrayLike | None = None,
        cond_dim: int | None = None,
        cond_channels: int | None = None,
        conditioner: Callable[..., Callable[..., Array]] | None = None,
    ):
        self.shape = as_shape(shape)
        if len(self.shape) != 3 or 0 in self.shape:
            raise ValueError(f"ImageCoupling expected a shape (channels, height, width), got {shape!r}.")
        channels = self.shape[0]
        alike = not isinstance(transformer, Sequence)
        if alike:
            check_is_bijection(transformer, "ImageCoupling")
        if mask is not None and keep is not None:
            raise ValueError("ImageCoupling expected either keep or mask, got both.")
        if mask is None:
            self.mask, self.keep = None, _kept_channels(keep, channels)
            self.transformers = Transformers(transformer, channels - self.keep, "ImageCoupling")
            seen, made = self.keep, self.transformers.size
        else:
            if not alike or peel(transformer).shape != ():
                raise ValueError("ImageCoupling with a mask expected one transformer of shape ().")
            self.mask, self.keep = _checked_mask(mask, self.shape), None
            # One coordinate, of which each channel is so many more lanes: those kept have no part in the log-det.
            self.transformers = Transformers(transformer, 1, "ImageCoupling")
            seen, made = channels, self.transformers.size * channels
        if cond_dim is not None and cond_channels is not None:
            raise ValueError("ImageCoupling expected either cond_dim or cond_channels, got both.")
        self.cond_shape, condition = None, {}
        if cond_dim is not None:
            self.cond_shape = (check_count(cond_dim, "cond_dim"),)
            condition = {"cond_dim": self.cond_shape[0]}
        elif cond_channels is not None:
            self.cond_shape = (check_count(cond_channels, "cond_channels"), *self.shape[1:])
            seen += self.cond_shape[0]
        make = Partial(ConvNet, width=64) if conditioner is None else conditioner
        self.conditioner = make(check_key(key), seen, max(made, 1), **condition)

    def _transform_and_log_det(self, x: Array, condition: Array | None = None):
        return one_row(self._transform_and_log_det_batch, x, condition)

    def _inverse_and_log_det(self, y: Array, condition: Array | None = None):
        return one_row(self._inverse_and_log_det_batch, y, condition)

    def _transform_and_log_det_batch(self, x: Array, condition: Array | None):
        return self._apply(x, condition, inverse=False)

    def _inverse_and_log_det_batch(self, y: Array, condition: Array | None):
        return self._apply(y, condition, inverse=True)

    def _apply(self, x, condition, *, inverse):
        condition = None if condition is None else condition.astype(x.dtype)
        if self.mask is None:
            return self._apply_channels(x, condition, inverse=inverse)
        return self._apply_masked(self.mask, x, condition, inverse=inverse)

    def _apply_channels(self, x, condition, *, inverse):
        kept, changed = x[:, : self.keep], x[:, self.keep :]
        params = self._offsets(kept, condition, self.transformers.size) + self.transformers.initial[:, None]
        y, log_det = self.transformers.apply_columns(params, _lanes(changed), inverse=inverse)
        y = jnp.concatenate([kept, _images(y, changed)], axis=1)
        return y, _by_row(log_det, len(x))

    def _apply_masked(self, mask, x, condition, *, inverse):
        size, channels = self.transformers.size, self.shape[0]
        kept = jnp.broadcast_to(mask, x.shape)
        keeps = _lanes(kept)
        offsets = self._offsets(jnp.where(kept, x, 0), condition, size * channels)
        offsets = jnp.where(keeps[:, None], 0, offsets.reshape(channels, size, keeps.shape[1]))
        params = offsets + self.transformers.initial[:, None]

        def apply_channel(params, x):
            y, log_det = self.transformers.apply_columns(params, x[None], inverse=inverse)
            return y[0], log_det

        y, log_det = jax.vmap(apply_channel)(params, jnp.where(keeps, _ORDINARY, _lanes(x)))
        log_det = LogDet(jnp.where(keeps, 0, log_det.value).sum(0), (keeps | log_det.valid).all(0))
        return jnp.where(kept, x, _images(y, x)), _by_row(log_det, len(x))

    def _offsets(self, x, condition, size):
        """The network's outputs, of shape (size, lanes)."""
        height, width = self.shape[1:]
        if self.cond_shape is not None and len(self.cond_shape) == 3:
            shown = jnp.broadcast_to(condition, (len(x), *self.cond_shape))
            x, condition = jnp.concatenate([x, shown], axis=1), None
        if isinstance(self.conditioner, AbstractImageNet):
            rows = condition if condition is None or condition.ndim == 2 else condition[None]
            offsets = jnp.moveaxis(self.conditioner.batch(jnp.moveaxis(x, 1, -1), rows), -1, 1)
        elif condition is None:
            offsets = jax.vmap(self.conditioner)(x)
        else:
            offsets = jax.vmap(self.conditioner, (0, None if condition.ndim == 1 else 0))(x, condition)
        wanted, got = (size, height, width), offsets.shape[1:]
        if got not in (wanted, (max(size, 1), height, width)):
            raise ValueError(f"ImageCoupling expected its conditioner to give shape {wanted}, got {got}.")
        return _lanes(offsets[:, :size])


# The pixels of all rows become lanes, the axis along which XLA vectorises.


def _lanes(x: Array) -> Array:
    n, channels, height, width = x.shape
    return jnp.moveaxis(x, 1, 0).reshape(channels, n * height * width)


def _images(y: Array, like: Array) -> Array:
    n, channels, height, width = like.shape
    return jnp.moveaxis(y.reshape(channels, n, height, width), 0, 1)


def _by_row(log_det: LogDet, n: int) -> LogDet:
    shape = (n, log_det.value.size // max(n, 1))
    return LogDet(log_det.value.reshape(shape).sum(1), log_det.valid.reshape(shape).all(1))


def _kept_channels(keep: int | None, channels: int) -> int:
    if channels < 2:
        raise ValueError(f"ImageCoupling expected two channels at least, or a mask, got {channels}.")
    keep = channels // 2 if keep is None else check_count(keep, "keep")
    if keep >= channels:
        raise ValueError(f"ImageCoupling expected keep below the number of channels {channels}, got {keep}.")
    return keep


def _checked_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    mask = np.asarray(mask) if is_concrete(mask) else mask
    if mask.dtype != bool or mask.shape not in (shape, (1, *shape[1:])):
        raise ValueError(
            f"ImageCoupling expected a boolean mask of shape {shape} or {(1, *shape[1:])}, "
            f"got dtype {mask.dtype} and shape {mask.shape}."
        )
    if is_concrete(mask) and mask.all():
        raise ValueError("ImageCoupling expected a mask that is not all True: nothing would change.")
    return jnp.asarray(mask)
