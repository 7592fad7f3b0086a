"""Flow matching, for continuous flows."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from flowlib._arrays import float_dtype
from flowlib._module import peel
from flowlib._ranks import broadcasting
from flowlib.bijections import AbstractBijection, ContinuousFlow, backward_batch, continuous_part, forward_batch
from flowlib.distributions import AbstractTransformed
from flowlib.train._estimated_likelihood import transformed_with
from flowlib.train._losses import AbstractSingleRowLoss, _check_events

Coupling = Literal["independent", "optimal"]


class FlowMatchingLoss(AbstractSingleRowLoss):
    """E |v(t, (1 - t) z + t x) - (x - z)|^2, with z from the base and t uniform: flow matching on straight paths.

    Its minimiser v is the field of an equation that carries the base to the data. No equation is solved in training;
    `log_prob` and `sample` of the fitted flow solve it, as ever. For a flow with exactly one `ContinuousFlow`, such as
    `flowlib.flows.ffjord`. What comes after it, such as the units that `fit_to_data` puts in, is taken off x first, and
    what comes before it is applied to z: paths are straight between these. Only the field and an embedding of the
    condition are trained; base and other layers stay as they are. Losses are no log densities: they do not go to 0,
    and compare fits of the same data, base and coupling alone.

    Costs one pass through the field a row, and "optimal" an assignment, O(rows^3), a batch; in one dimension a sort.

    Args:
        coupling: how rows x and draws z are paired.
            "independent": at random.
            "optimal": such that the sum of |x - z|^2 over the batch is least. Paths then hardly cross, and are
            straighter for the solver. For unconditional flows: pairs chosen across conditions would make the draws
            that belong to a condition depend on it. For the same reason without sample weights.

    Raises:
        ValueError: for an unknown coupling, or "optimal" with conditions; before a fit, if the flow has not exactly one
            `ContinuousFlow`.
        TypeError: before a fit, if the distribution is no `Transformed`.

    References:
        Lipman, Chen, Ben-Hamu, Nickel and Le (2023), https://arxiv.org/abs/2210.02747, section 4.1;
        Tong et al. (2024), https://arxiv.org/abs/2302.00482, sections 3.2.2 and 3.2.3.
    """

    coupling: Coupling = eqx.field(static=True)

    def __init__(self, coupling: Coupling = "independent"):
        if coupling not in get_args(Coupling):
            raise ValueError(f"FlowMatchingLoss expected coupling to be one of {get_args(Coupling)}, got {coupling!r}.")
        self.coupling = coupling

    @broadcasting
    def per_row(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        dist = peel(eqx.combine(params, static))
        before, layer, after = _around_the_field(dist)
        self._check_condition(dist)
        if key is None:
            raise ValueError("FlowMatchingLoss expected a key, got None.")
        x, condition = arrays[0].astype(float_dtype(dist)), arrays[1] if len(arrays) > 1 else None
        draw_key, time_key = jr.split(key)
        base = peel(dist.base_dist)
        z = base.sample(draw_key, len(x)) if base.cond_shape is None else base.sample(draw_key, (), condition)
        z, valid = z.astype(x.dtype), jnp.ones(len(x), bool)
        for one in before:
            z, _ = forward_batch(one, z, condition)
        for one in reversed(after):
            x, log_det = backward_batch(one, x, condition)
            valid &= log_det.valid
        # A base or a scale that is trained would make the task easy rather than solve it.
        x, z = jax.lax.stop_gradient((x, z))
        if self.coupling == "optimal":
            z = z[cheapest_pairs(x, z)]
        # Times spread over the batch: each is uniform, and their mean is nearly always 1/2.
        spread = jnp.arange(len(x), dtype=x.dtype) / len(x)
        t = (jr.uniform(time_key, (), x.dtype) + spread) % 1
        velocity = _velocity(layer, t, _between(z, x, t), condition)
        square = ((velocity - (x - z)) ** 2).reshape(len(x), -1).sum(1)
        return jnp.where(valid, square, jnp.inf)

    def check(self, tree: Any, *arrays: Array) -> None:
        _check_events(tree, arrays)
        dist = peel(tree)
        _around_the_field(dist)
        self._check_condition(dist)

    def _check_condition(self, dist: AbstractTransformed) -> None:
        if self.coupling == "optimal" and dist.cond_shape is not None:
            raise ValueError(
                'FlowMatchingLoss expected coupling="independent" for a conditional flow, got "optimal": '
                "pairs chosen across conditions would make the base depend on the condition."
            )


def cheapest_pairs(x: Float[Array, "rows *shape"], z: Float[Array, "rows *shape"]) -> Int[Array, " rows"]:
    """For each x the z that it gets when all are paired such that the sum of squared distances is least."""
    from optax.assignment import hungarian_algorithm

    x, z = x.reshape(len(x), -1), z.reshape(len(z), -1)
    if x.shape[1] == 1:
        return jnp.argsort(z[:, 0])[jnp.argsort(jnp.argsort(x[:, 0]))]
    # |x|^2, |z|^2 and the centre of x come to the same in every pairing; without them fewer digits are lost.
    costs = -(x - x.mean(0)) @ z.T
    with jax.numpy_dtype_promotion("standard"):
        # On a cost that is no number the search would not end.
        rows, pairs = hungarian_algorithm(jnp.where(jnp.isfinite(costs), costs, 0))
    # They come in the order of z.
    return pairs[jnp.argsort(rows)]


def _between(z, x, t):
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return (1 - t) * z + t * x


def _velocity(layer, t, x, condition):
    """The field at rows, where time runs from 0 at the base to 1 at the data."""

    def one(t, x, condition):
        flow, condition, inverted = _part(layer, condition)
        return -flow.velocity(1 - t, x, condition) if inverted else flow.velocity(t, x, condition)

    return jax.vmap(one, (0, 0, None if condition is None else 0))(t, x, condition)


def _part(layer: Any, condition: Array | None) -> Any:
    """What `continuous_part` says of a layer that is known to be one."""
    return continuous_part(layer, condition)


def _around_the_field(dist: Any) -> tuple[tuple, AbstractBijection, tuple]:
    """The layers before the one continuous flow, that one, and those after it."""
    layers = transformed_with(ContinuousFlow, dist, "ffjord").layers
    places = [i for i, layer in enumerate(layers) if continuous_part(layer) is not None]
    if len(places) != 1:
        hint = "use flow_layers=1" if places else "there is one, but inside of a layer that has several parts"
        raise ValueError(f"FlowMatchingLoss expected exactly one ContinuousFlow, got {len(places)}: {hint}.")
    (i,) = places
    return layers[:i], layers[i], layers[i + 1 :]
