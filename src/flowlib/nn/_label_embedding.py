"""Vectors that stand for class labels."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import check_count, is_concrete, real_array
from flowlib._host_array import host_array
from flowlib._module import Module


class LabelEmbedding(Module):
    """A trained vector for each class label 0, ..., num_classes - 1; a standard normal draw at first.

    Called with one label, an integer or a whole number in floating point. It is made to be the `embedding_net` of an
    `EmbedCondition`: then distributions and fits refuse labels out of range. Inside `jit`, where the value of a label
    is not known, the embedding of one out of range is NaN.

    Args:
        key: a PRNG key.
        num_classes: the number of labels.
        size: the size of a vector.

    Raises:
        ValueError: if a size is out of range, or a label whose value is known.
    """

    weight: Float[Array, "*stack num_classes size"]
    num_classes: int = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, num_classes: int, size: int):
        self.num_classes = check_count(num_classes, "num_classes")
        self.weight = jr.normal(key, (self.num_classes, check_count(size, "size")))

    # The key that an `equinox.nn.Sequential` gives to each of its layers is not used.
    def __call__(self, label: ArrayLike, *, key: PRNGKeyArray | None = None) -> Float[Array, " size"]:
        self.check_condition(label)
        label = real_array(label, "label", keep_integers=True)
        label = label if jnp.issubdtype(label.dtype, jnp.floating) else label.astype(jnp.int32)
        index = jnp.clip(label, 0, self.num_classes - 1).astype(jnp.int32)
        return jnp.where(index.astype(label.dtype) == label, self.weight[index], jnp.nan)

    def check_condition(self, labels: Any) -> None:
        """Raise a ValueError that names the first label out of range, in an array whose values are known."""
        if not is_concrete(labels):
            return
        labels = np.asarray(host_array(labels, "condition"))
        good = (labels >= 0) & (labels < self.num_classes) & (labels == np.floor(labels))
        if not good.all():
            at = tuple(np.argwhere(~good)[0].tolist())
            where = f" at row {at[0] if len(at) == 1 else at}" if at else ""
            most = self.num_classes - 1
            raise ValueError(f"condition expected a class label from 0 to {most}, got {labels[at]}{where}.")
