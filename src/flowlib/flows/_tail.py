"""What all premade flows share: stack the layers, mix between them, invert, embed, wrap."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray
from paramax import Parameterize

from flowlib._arrays import check_count, check_key
from flowlib._module import peel
from flowlib._run_once import run_once
from flowlib._wanted import kind_of
from flowlib.bijections import AbstractBijection, Affine, Chain, EmbedCondition, Gradient, InDataUnits, Invert, Scan
from flowlib.constraints import bounded_scale
from flowlib.distributions import AbstractDistribution, Dequantized, Transformed, with_support
from flowlib.flows._mixing import Groups, Mixing, add_mixing, check_mixing, undo_mixing

# What a constructor returns: a `Dequantized` only where `support` has columns of whole numbers, which types cannot say.
if TYPE_CHECKING:
    Flow = Transformed
else:
    Flow = Transformed | Dequantized


def vector_dim(base_dist: AbstractDistribution) -> int:
    """The dimension of a base distribution over vectors.

    Raises:
        TypeError: if it is no distribution.
        ValueError: if its events are not vectors.
    """
    base = peel(base_dist)
    if not isinstance(base, AbstractDistribution):
        raise TypeError(f"base_dist must be a distribution, got {kind_of(base)}.")
    if base.ndim != 1:
        raise ValueError(f"base_dist must have vectors as events, of shape (dim,), got shape {base.shape}.")
    return int(base.shape[0])


def checked_sizes(cond_dim: int | None, **sizes: tuple[int, int]) -> dict[str, int | None]:
    """`cond_dim` and the sizes as ints, each given with its minimum.

    Raises:
        ValueError: if one is no integer of at least its minimum.
    """
    checked = {name: check_count(value, name, minimum) for name, (value, minimum) in sizes.items()}
    return {"cond_dim": None if cond_dim is None else check_count(cond_dim, "cond_dim"), **checked}


def default_transformer() -> Affine:
    """An affine map with its scale within (1/100, 100), starting as the identity."""
    scale = Parameterize(bounded_scale, jnp.zeros(()))
    return eqx.tree_at(lambda affine: affine.scale, Affine(), scale)


def build_flow(
    key: PRNGKeyArray,
    make_layer: Partial,
    *,
    base_dist: AbstractDistribution,
    flow_layers: int,
    invert: bool,
    cond_dim: int | None,
    embedding: Callable[[Array], Array] | None,
    raw_cond_shape: tuple[int, ...] | None,
    gradient: Gradient,
    mixing: Mixing | Groups | None = "permutation",
    last: AbstractBijection | None = None,
    support: Any = None,
) -> Flow:
    """Stack `flow_layers` layers with what mixes the coordinates between them, in units that a first fit sets.

    At the end all of the mixing is undone, so that identity layers make an identity flow; `last` comes after that.
    Layers that mix by themselves have None as `mixing`.
    `make_layer`, called with a key, gives a layer; it is a `jax.tree_util.Partial` and no closure, so that
    all layers are made by one compiled program, which a second flow of the same kind uses again. Its sizes
    must have been checked: to a cache of programs 1, 1.0 and True are the same.
    """
    _check_embedding(cond_dim, embedding, raw_cond_shape)
    # A NumPy number would be traced as an array.
    make_layer = jax.tree.map(lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf, make_layer)
    flow_layers = check_count(flow_layers, "flow_layers")
    dim, mixing = vector_dim(base_dist), None if mixing is None else check_mixing(mixing)
    bijection = _make_layers(check_key(key), make_layer, dim, flow_layers, gradient, mixing)
    bijection = bijection if last is None else Chain([bijection, last]).merge_chains()
    bijection = Invert(bijection) if invert else bijection
    if embedding is not None and raw_cond_shape is not None:
        bijection = EmbedCondition(bijection, embedding, raw_cond_shape)
    return on_support(Transformed(base_dist, InDataUnits.unset(bijection)), support)


def on_support(flow: Transformed, support: Any) -> Any:
    """The flow on a support, the real line if it is None."""
    return flow if support is None else with_support(flow, support)


def without_units(flow: Transformed) -> AbstractBijection:
    """The bijection of a flow that was just built, out of its units."""
    assert isinstance(flow.bijection, InDataUnits)
    return flow.bijection.bijection


def refuse_support(options: Any, name: str) -> None:
    """Raise a TypeError where a flow onto a set of its own is given another support."""
    if options.get("support") is not None:
        raise TypeError(f"{name} has a support of its own: leave support= out.")


@run_once
def _make_layers(key, make_layer, dim, flow_layers, gradient, mixing) -> AbstractBijection:
    def make_mixed(key):
        layer_key, mixing_key = jr.split(key)
        layer = make_layer(layer_key)
        return layer if mixing is None else add_mixing(mixing_key, layer, mixing)

    layers = eqx.filter_vmap(make_mixed)(jr.split(key, flow_layers))
    if mixing is None:
        return Scan(layers, gradient=gradient)
    scan, undo = Scan(layers, gradient=gradient), undo_mixing(key, layers, mixing, dim, flow_layers)
    return scan if undo is None else Chain([scan, undo]).merge_chains()


def _check_embedding(cond_dim, embedding, raw_cond_shape):
    if (embedding is None) != (raw_cond_shape is None):
        raise ValueError("embedding and raw_cond_shape belong together: got only one of them.")
    if embedding is not None and cond_dim is None:
        raise ValueError("embedding needs cond_dim, the size of its output: got cond_dim=None.")
