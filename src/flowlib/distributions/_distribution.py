"""The contract of a distribution, and the functions through which every distribution is called."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from flowlib._arrays import as_shape, cast_floats, check_key, float_dtype, promoted, real_array
from flowlib._module import Node, check_condition, peel, unwrap_own
from flowlib._ranks import broadcasting
from flowlib._tables import check_same_rows, row_labels
from flowlib._wanted import batch_of, in_sequence, kind_of
from flowlib.support import Real, Support

D = TypeVar("D", bound="AbstractSampler")


class AbstractSampler(Node):
    """What can be drawn from: events of one shape, perhaps given a condition.

    Subclasses declare `shape`, `cond_shape` and, unless it is the reals, `support`; they write `_sample` for one event,
    with a `self` whose parameters are plain arrays.
    """

    # The shape of one event.
    shape: eqx.AbstractVar[tuple[int, ...]]
    # The shape of one condition, or None if there is none.
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    @property
    def support(self) -> Support:
        """Where the density is positive: the reals, unless a subclass says otherwise."""
        return Real()

    @abstractmethod
    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        """One draw."""

    # Several; override it where they are cheaper at once. `condition` is None, one condition for all, or one for each.

    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        keys = jr.split(key, size)
        return jax.vmap(self._sample, (0, _condition_axis(self, condition)))(keys, condition)

    @property
    def ndim(self) -> int:
        """The number of axes of one event."""
        return len(self.shape)

    @property
    def cond_ndim(self) -> int | None:
        """The number of axes of one condition, or None."""
        return None if self.cond_shape is None else len(self.cond_shape)

    def sample(
        self, key: PRNGKeyArray, sample_shape: int | tuple[int, ...] = (), condition: ArrayLike | None = None
    ) -> Array:
        """Draws, of shape `sample_shape + batch of condition + shape`.

        Args:
            key: a JAX PRNG key, typed or legacy.
            sample_shape: draws for each condition; an int stands for a one-tuple.
            condition: conditions, of shape `(*batch, *cond_shape)`; None if unconditional.

        Raises:
            ValueError: if a shape is wrong, or the condition is missing or cannot be used.
            TypeError: if `key` is no key.
        """
        return map_draws(draw_batch, self, key, sample_shape, condition)


class AbstractDistribution(AbstractSampler):
    """A density that can be evaluated and sampled.

    Subclasses declare `shape`, `cond_shape` and, unless it is the reals, `support`; they write `_log_prob` and
    `_sample` (and `_sample_and_log_prob` where both together are cheaper) for one event, with a `self`
    whose parameters are plain arrays. The public methods vectorise with one rule: results have shape
    `sample_shape + batch shape of the condition + event shape`, and `log_prob` broadcasts the
    batch shapes of `x` and `condition` as NumPy does. They run compiled; a second call with
    equal shapes, also of an equal distribution, compiles nothing.
    """

    @abstractmethod
    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        """The log density at one event inside the support."""

    def _sample_and_log_prob(self, key: PRNGKeyArray, condition: Array | None) -> tuple[Array, Array]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition)

    # The same for a batch on a leading axis; override them where a batch is cheaper at once.
    # `condition` is None, one condition for all rows, or a batch of them.

    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        return jax.vmap(self._log_prob, (0, _condition_axis(self, condition)))(x, condition)

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        if type(self)._sample_and_log_prob is AbstractDistribution._sample_and_log_prob:
            # Nothing is cheaper together; the draws are then those of `sample` with the same key.
            x = self._sample_batch(key, size, condition)
            return x, self._log_prob_batch(x, condition)
        keys = jr.split(key, size)
        return jax.vmap(self._sample_and_log_prob, (0, _condition_axis(self, condition)))(keys, condition)

    def log_prob(self, x: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """The log density at `x`, of shape `broadcast(batch of x, batch of condition)`.

        It is -inf outside the support and NaN where `x` has a NaN. On circles a position counts in any turn.

        Args:
            x: events, of shape `(*batch, *shape)`.
            condition: conditions, of shape `(*batch, *cond_shape)`; None if unconditional.

        Raises:
            ValueError: if trailing shapes do not match, batches do not broadcast, a needed
                condition is missing or one is given that cannot be used.
            TypeError: if either does not hold real numbers.
        """
        return map_batch(density_of_events, self, x, condition, self.shape)

    def sample_and_log_prob(
        self, key: PRNGKeyArray, sample_shape: int | tuple[int, ...] = (), condition: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """`sample`, and the log density of each draw, cheaper than by `log_prob` if possible. Raises as `sample`."""
        return map_draws(draw_with_density_batch, self, key, sample_shape, condition)


def density(dist: AbstractDistribution, x: Array, condition: Array | None = None) -> Array:
    """The log density of one event, evaluated inside another distribution: -inf outside the support, NaN at NaN."""
    return density_batch(dist, x[None], condition)[0]


def draw(dist: AbstractSampler, key: PRNGKeyArray, condition: Array | None = None) -> Array:
    """One draw inside another distribution."""
    dist = unwrap_own(dist)
    return dist._sample(key, _own(dist, condition))


def draw_with_density(
    dist: AbstractDistribution, key: PRNGKeyArray, condition: Array | None = None
) -> tuple[Array, Array]:
    """One draw and its log density inside another distribution."""
    dist = unwrap_own(dist)
    return dist._sample_and_log_prob(key, _own(dist, condition))


def density_batch(dist: AbstractDistribution, x: Array, condition: Array | None = None) -> Array:
    """`density` over a leading axis of `x`; `condition` is None, shared, or one for each row."""
    dist = unwrap_own(dist)
    return guarded(dist.support, x, lambda safe: dist._log_prob_batch(safe, _own(dist, condition)))


def density_of_events(dist: AbstractDistribution, x: Array, condition: Array | None = None) -> Array:
    """`density_batch` of events as users give them, their positions on circles in any turn."""
    return density_batch(dist, in_range(unwrap_own(dist).support, x), condition)


def in_range(support: Support, x: Array) -> Array:
    """A batch of events as users give them, with positions on circles in the turn of the support."""
    return jax.vmap(support.in_range)(x) if support.has_circles else x


def guarded(support: Support, x: Array, log_prob: Callable[[Array], Array]) -> Array:
    """`log_prob` of the rows of x in the support, -inf of others, and NaN where x has a NaN.

    It sees members only, so that the others do not spoil gradients of parameters that all rows share.
    """
    is_nan = jnp.isnan(x)
    safe, inside = jax.vmap(support.guard)(jnp.where(is_nan, jnp.inf, x))
    values = jnp.where(inside, log_prob(safe), -jnp.inf)
    return jnp.where(is_nan.any(axis=tuple(range(1, x.ndim))), jnp.nan, values)


def draw_batch(dist: AbstractSampler, key: PRNGKeyArray, size: int, condition: Array | None = None) -> Array:
    """`size` independent draws."""
    dist = unwrap_own(dist)
    return dist._sample_batch(key, size, _own(dist, condition))


def draw_with_density_batch(
    dist: AbstractDistribution, key: PRNGKeyArray, size: int, condition: Array | None = None
) -> tuple[Array, Array]:
    """`size` independent draws and their log densities."""
    dist = unwrap_own(dist)
    return dist._sample_and_log_prob_batch(key, size, _own(dist, condition))


def map_batch(
    fn: Callable[..., Any],
    dist: AbstractSampler,
    x: ArrayLike,
    condition: ArrayLike | None,
    event_shape: tuple[int, ...],
) -> Any:
    """Validate, broadcast, and run `fn(dist, x, condition)`, compiled, over one batch axis.

    `fn` is a module-level function, since compiled code is found again by its identity. It gives events, or a
    tuple: events, and what keeps its digits where events are rounded (densities).
    """
    return _map_batch(fn, dist, *validated(dist, x, condition, event_shape))


def validated(
    dist: AbstractSampler, x: ArrayLike, condition: ArrayLike | None, event_shape: tuple[int, ...]
) -> tuple[Array, Array | None, tuple[int, ...], tuple[int, ...]]:
    """`x` and `condition` as arrays, the event shape, and the batch shape to which the two broadcast."""
    check_same_rows(row_labels(x), "x", row_labels(condition), "condition")
    x = real_array(x, "x")
    batch_x = _batch_shape(dist, x, event_shape, "x")
    condition, batch_c = _validated_condition(dist, condition)
    try:
        batch = jnp.broadcast_shapes(batch_x, batch_c)
    except ValueError:
        raise ValueError(
            f"{type(dist).__name__}: the batch shape {batch_x} of x does not broadcast with {batch_c} of condition."
        ) from None
    return x, condition, event_shape, batch


def as_rows(
    dist: D, x: Array, condition: Array | None, event_shape: tuple[int, ...], batch: tuple[int, ...]
) -> tuple[D, Array, Array | None]:
    """All in the dtype of computation; x, and conditions unless all rows share one, with one batch axis."""
    _, compute = _promoted(dist, x)
    dist, x, condition = cast_floats((dist, x, condition), compute)
    x = jnp.broadcast_to(x, batch + event_shape).reshape((math.prod(batch), *event_shape))
    return dist, x, _flat(condition, dist.cond_shape, batch)


def map_draws(
    fn: Callable[..., Any],
    dist: AbstractSampler,
    key: PRNGKeyArray,
    sample_shape: int | tuple[int, ...],
    condition: ArrayLike | None,
) -> Any:
    """Validate, and run `fn(dist, key, size, condition)`, compiled; `fn` as in `map_batch`."""
    key = check_key(key)
    sample_shape = as_shape(sample_shape, "sample_shape")
    condition, batch = _validated_condition(dist, condition)
    return _map_draws(fn, dist, key, condition, sample_shape + batch)


def check_is_distribution(value: Any, where: str, name: str = "dist") -> AbstractDistribution:
    """`value` out of its paramax wrapper, if it sits in one; a TypeError unless it is a distribution."""
    node = peel(value)
    if not isinstance(node, AbstractDistribution):
        raise TypeError(f"{where} expected a distribution as {name}, got {kind_of(node)}.")
    return node


def checked_dists(dists: Any, where: str, what: str) -> tuple[Any, ...]:
    """The distributions of a sequence, one at least and each called `what`, as a tuple; some may be in a wrapper.

    Raises:
        TypeError: if it is no sequence, or one of them no distribution.
        ValueError: if there is none.
    """
    given = in_sequence(dists, AbstractDistribution, "distribution", where)
    if not given:
        raise ValueError(f"{where} expected at least one {what}, got none.")
    for dist in given:
        if not isinstance(peel(dist), AbstractDistribution):
            raise TypeError(f"{where} expected distributions, got {kind_of(dist)}.")
    return given


def _own(dist: AbstractSampler, condition: Array | None) -> Array | None:
    return None if dist.cond_shape is None else condition


def _condition_axis(dist: AbstractSampler, condition: Array | None) -> int | None:
    if condition is None or dist.cond_shape is None:
        return None
    return None if condition.ndim == len(dist.cond_shape) else 0


def _batch_shape(dist, array, event_shape, name):
    n_batch = array.ndim - len(event_shape)
    if n_batch < 0 or array.shape[n_batch:] != event_shape:
        wanted = batch_of(event_shape)
        raise ValueError(f"{type(dist).__name__} expected {name} of shape {wanted}, got {array.shape}.")
    return array.shape[:n_batch]


def _validated_condition(dist, condition):
    label = type(dist).__name__
    if dist.cond_shape is None:
        if condition is not None:
            raise ValueError(f"{label} is unconditional, but got a condition. Leave it out, or build it with cond_dim.")
        return None, ()
    if condition is None:
        raise ValueError(f"{label} expected a condition of shape {batch_of(dist.cond_shape)}, got none.")
    condition = real_array(condition, "condition", keep_integers=True)
    batch = _batch_shape(dist, condition, dist.cond_shape, "condition")
    check_condition(dist, condition)
    return condition, batch


def _flat(array: Array | None, event_shape: tuple[int, ...] | None, batch: tuple[int, ...]) -> Array | None:
    """`array` with one batch axis; without any if it is a condition shared by all rows."""
    if array is None or event_shape is None or array.shape == event_shape:
        return array
    array = jnp.broadcast_to(array, batch + event_shape)
    return array.reshape((math.prod(batch), *event_shape))


def _promoted(*trees: Any) -> tuple[Any, Any]:
    # Half precision loses densities: compute in float32 and round the draws only.
    dtype = float_dtype(*trees)
    return dtype, promoted(dtype, jnp.float32)


@broadcasting
@eqx.filter_jit
def _map_batch(fn, dist, x, condition, event_shape, batch):
    dtype, compute = _promoted(dist, x)
    dist, x, condition = as_rows(dist, x, condition, event_shape, batch)
    # A density keeps its digits; an event comes back in the precision it came in.
    return _in_batch(fn(dist, x, condition), batch, compute if fn is density_of_events else dtype)


@broadcasting
@eqx.filter_jit
def _map_draws(fn, dist, key, condition, batch):
    dtype, compute = _promoted(dist)
    dist, condition = cast_floats((dist, condition), compute)
    condition = _flat(condition, dist.cond_shape, batch)
    return _in_batch(cast_floats(fn(dist, key, math.prod(batch), condition), compute), batch, dtype)


def _in_batch(result, batch, dtype):
    events, *rest = result if isinstance(result, tuple) else (result,)
    result = cast_floats(events, dtype), *rest

    def reshape(leaf):
        return leaf.reshape(batch + leaf.shape[1:]) if eqx.is_array(leaf) else leaf

    result = jax.tree.map(reshape, result)
    return result if rest else result[0]
