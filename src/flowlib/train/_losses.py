"""What a fit minimises.

A loss for `fit_to_data` is called as `loss(params, static, *arrays, key=key)` and one for
`fit_to_key_based_loss` as `loss(params, static, key=key)`; `equinox.combine(params, static)` is the
tree that is trained. Any function with one of these signatures will do.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from flowlib._arrays import check_count, check_flag, real_array
from flowlib._module import Module, check_condition
from flowlib.distributions import AbstractDistribution, AbstractMarginal, AbstractSampler
from flowlib.train._target import target_of_draws


class AbstractRowLoss(Module):
    """The mean of one value a row of the batch.

    Because the values are known by row, `fit_to_data` can fill the last batch of an epoch up with
    other rows that count for nothing, and compiles a single batch shape. Of any other loss it
    compiles the remainder as a step of its own.
    """

    @property
    @abstractmethod
    def min_rows(self) -> int:
        """The least number of rows a batch needs."""

    @abstractmethod
    def per_row(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        """The loss of each row, of shape (rows,)."""

    @abstractmethod
    def __call__(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        """The mean of `per_row`."""

    @abstractmethod
    def check(self, tree: Any, *arrays: Array) -> None:
        """Raise if `tree` cannot be trained on these arrays with this loss; called once, before a fit."""


class AbstractSingleRowLoss(AbstractRowLoss):
    """A row loss in which rows do not depend on each other, so that one is enough for a batch."""

    @property
    def min_rows(self) -> int:
        return 1

    @eqx.filter_jit
    def __call__(
        self, params: Any, static: Any, x: Array, condition: Array | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, ""]:
        arrays = (x,) if condition is None else (x, condition)
        return self.per_row(params, static, *arrays, key=key).mean()


class MaximumLikelihoodLoss(AbstractSingleRowLoss):
    """-mean(log p(x_i | condition_i)): the negative log-likelihood, for conditional and unconditional fits.

    Of what has a random `lower_bound` (`Dequantized`, `Augmented`), minus that bound where there is a key.

    Costs one `log_prob` of the batch. Called as `loss(params, static, x, condition=None, key=None)`.

    Args:
        num_samples: draws a row for such a bound: with more it is tighter, and costs as many times as much.

    Raises:
        ValueError: when called, of what has nothing but a bound, without a key.
    """

    num_samples: int = eqx.field(static=True)

    def __init__(self, num_samples: int = 1):
        self.num_samples = check_count(num_samples, "num_samples")

    def per_row(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        dist = eqx.combine(params, static)
        if isinstance(dist, AbstractMarginal) and key is not None:
            return -dist.lower_bound(key, *arrays, num_samples=self.num_samples)
        if not isinstance(dist, AbstractDistribution):
            raise ValueError(f"MaximumLikelihoodLoss expected a key for {type(dist).__name__}, got None.")
        return -dist.log_prob(*arrays)

    def check(self, tree: Any, *arrays: Array) -> None:
        _check_events(tree, arrays)


class ContrastiveLoss(AbstractRowLoss):
    r"""The loss of automatic posterior transformation, for learning a posterior from proposals that are not the prior.

    With r(x, c) = q(x | c) / prior(x), the loss of row i is

        -log( r(x_i, c_i) / (r(x_i, c_i) + sum_j r(x_j, c_i)) )

    where j runs over `n_contrastive` other rows of the batch, drawn without replacement. Here `x` are the
    simulator's parameters and `condition` is its output. It is minimised by any q proportional
    to the posterior in `x`. Costs `n_contrastive + 1` evaluations of the density a row.

    The last batch of an epoch, if short, is filled up with rows from the beginning of that epoch, and a short
    validation set with training rows: these serve as contrast only. During a fit the contrast
    of the validation rows is drawn once, so that epochs are compared on equal terms.

    Args:
        prior: the prior over `x`. A row outside its support has loss infinity, and is no contrast for others.
        n_contrastive: the number of contrastive rows, less than the batch size.

    Raises:
        ValueError: if there are not more rows in a batch than `n_contrastive`; before a fit, also if
            a row of `x` is outside the support of the prior.

    References:
        Greenberg, Nonnenmacher and Macke (2019), https://arxiv.org/abs/1905.07488;
        Durkan, Murray and Papamakarios (2020), https://arxiv.org/abs/2002.03712.
    """

    prior: AbstractDistribution
    n_contrastive: int = eqx.field(static=True)

    def __init__(self, prior: AbstractDistribution, n_contrastive: int):
        if not isinstance(prior, AbstractDistribution):
            raise TypeError(f"ContrastiveLoss expected a distribution as prior, got {type(prior).__name__}.")
        self.prior = prior
        self.n_contrastive = check_count(n_contrastive, "n_contrastive")

    @property
    def min_rows(self) -> int:
        return self.n_contrastive + 1

    @eqx.filter_jit
    def __call__(self, params: Any, static: Any, x: Array, condition: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        arrays = (x,) if condition is None else (x, condition)
        return self.per_row(params, static, *arrays, key=key).mean()

    def per_row(self, params: Any, static: Any, *arrays: Array, key: PRNGKeyArray | None = None) -> Array:
        x, condition = arrays
        if len(x) < self.min_rows:
            raise ValueError(
                f"ContrastiveLoss expected more rows in a batch than n_contrastive={self.n_contrastive}, got {len(x)}."
            )
        dist = eqx.combine(params, static)
        prior = self.prior.log_prob(x)
        # Each row first, then its contrast.
        atoms = jnp.concatenate(
            [jnp.arange(len(x), dtype=jnp.int32)[:, None], _others(key, len(x), self.n_contrastive)], axis=1
        )
        # One condition for all atoms of a row, so that an embedding of it is computed once.
        logits = jax.vmap(dist.log_prob)(x[atoms], condition)
        prior = prior[atoms].astype(logits.dtype)
        outside = jnp.isneginf(prior)
        logits = jnp.where(outside, -jnp.inf, logits - jnp.where(outside, 0, prior))
        return jax.nn.logsumexp(logits, axis=1) - logits[:, 0]

    def check(self, tree: Any, *arrays: Array) -> None:
        _check_events(tree, arrays)
        if len(arrays) != 2:
            raise ValueError("ContrastiveLoss expected a conditional distribution and the data (x, condition).")
        outside = jnp.isneginf(self.prior.log_prob(arrays[0]))
        if outside.any():
            row = int(jnp.argmax(outside))
            raise ValueError(f"ContrastiveLoss expected x inside the support of the prior, got row {row} outside it.")


class ElboLoss(Module):
    """The negative evidence lower bound, E_q[log q(x) - target(x)], over `num_samples` draws from the distribution.

    The loss is an upper bound of minus the log normaliser of the target, reached when q is
    the normalised target. Its gradient goes through the draws (reparametrisation), so target and flow must be
    differentiable. Costs one sampling pass with densities, and one `target` a draw.

    Args:
        target: the unnormalised log density of ONE event, a function `(*shape) -> ()`; it is mapped over draws.
        num_samples: the number of draws a step.
        stick_the_landing: drop the score term from the gradient, whose variance then vanishes as q approaches the
            target. It costs an inverse pass besides, which is slow for some flows.
        condition: for a conditional q(x | c), conditions in rows. The bound is then the mean over them, of which a step
            sees `num_samples` at random, with one draw for each; the target is called with event and condition.
        data: an array of rows, or a tuple of several with as many rows each: the target is called with a random batch
            of each too, the same for all draws of a step.
        batch_size: rows in such a batch; without replacement.

    Raises:
        ValueError: for data without a batch size of at most its rows; when called, if the target does not
            return a scalar.
        TypeError: for a target that is no function; when called, if it cannot take one event, or returns whole numbers.

    References:
        Roeder, Wu and Duvenaud (2017), https://arxiv.org/abs/1703.09194.
    """

    target: Callable[..., Array]
    num_samples: int = eqx.field(static=True)
    stick_the_landing: bool = eqx.field(static=True)
    condition: Array | None
    data: tuple[Array, ...]
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        target: Callable[..., Array],
        num_samples: int,
        *,
        stick_the_landing: bool = False,
        condition: ArrayLike | None = None,
        data: ArrayLike | tuple[ArrayLike, ...] | None = None,
        batch_size: int | None = None,
    ):
        if not callable(target):
            raise TypeError(f"ElboLoss expected a function as target, got {type(target).__name__}.")
        self.target = target
        self.num_samples = check_count(num_samples, "num_samples")
        self.stick_the_landing = check_flag(stick_the_landing, "stick_the_landing")
        self.condition = None if condition is None else real_array(condition, "condition", keep_integers=True)
        arrays = () if data is None else data if isinstance(data, tuple) else (data,)
        self.data = tuple(real_array(array, "data", keep_integers=True) for array in arrays)
        if (batch_size is None) != (data is None):
            raise ValueError("data and batch_size belong together: got only one of them.")
        rows = [len(array) for array in self.data]
        if batch_size is not None and (len(set(rows)) != 1 or check_count(batch_size, "batch_size") > rows[0]):
            raise ValueError(
                f"data expected arrays of as many rows each, at least batch_size={batch_size}, got {rows}."
            )
        self.batch_size = batch_size

    @eqx.filter_jit
    def __call__(self, params: Any, static: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        _, _, log_prob, target = self.terms(params, static, key)
        return (log_prob - target.astype(log_prob.dtype)).mean()

    def terms(
        self, params: Any, static: Any, key: PRNGKeyArray
    ) -> tuple[tuple[Array, ...], tuple[Array, ...], Array, Array]:
        """Draws (and their conditions), the batch of data, log densities and targets of the draws."""
        dist = eqx.combine(params, static)
        batch, condition, shape = (), None, self.num_samples
        if self.batch_size is not None:
            key, batch_key = jr.split(key)
            rows = jr.choice(batch_key, len(self.data[0]), (self.batch_size,), replace=False)
            batch = tuple(array[rows] for array in self.data)
        if self.condition is not None:
            key, condition_key = jr.split(key)
            condition, shape = jr.choice(condition_key, self.condition, (self.num_samples,)), ()
        if self.stick_the_landing:
            x = dist.sample(key, shape, condition)
            log_prob = eqx.combine(jax.lax.stop_gradient(params), static).log_prob(x, condition)
        else:
            x, log_prob = dist.sample_and_log_prob(key, shape, condition)
        mapped = (x,) if condition is None else (x, condition)
        return mapped, batch, log_prob, target_of_draws(self.target, mapped, batch)


def check_conditions(dist: AbstractDistribution, condition: Any) -> None:
    """Raise unless there are conditions, in rows, exactly where the distribution is conditional."""
    if dist.cond_shape is None:
        if condition is not None:
            raise ValueError(f"{type(dist).__name__} is unconditional, but got conditions: leave them out.")
        return
    if condition is None:
        raise ValueError(
            f"fit_to_variational_target expected an unconditional distribution, got one with conditions of shape "
            f"{dist.cond_shape}: give condition=, rows of them to average over."
        )
    shape = real_array(condition, "condition", keep_integers=True).shape
    if len(shape) != len(dist.cond_shape) + 1 or shape[1:] != dist.cond_shape or shape[0] == 0:
        raise ValueError(f"condition expected rows of shape {dist.cond_shape}, got shape {shape}.")


def _others(key: PRNGKeyArray | None, rows: int, count: int) -> Array:
    """For each of `rows` rows, `count` different other rows: those of its highest random scores."""
    if key is None:
        raise ValueError("ContrastiveLoss expected a key, got None.")
    scores = jr.uniform(key, (rows, rows))
    return jax.lax.top_k(jnp.where(jnp.eye(rows, dtype=bool), -1, scores), count)[1]


def _check_events(dist: Any, arrays: tuple[Array, ...]) -> None:
    """Raise unless `arrays` are (x,) or (x, condition) with the event and condition shapes of `dist`."""
    if not isinstance(dist, AbstractSampler):
        raise TypeError(f"expected a distribution to fit, got {type(dist).__name__}. Pass a loss_fn of your own.")
    label = type(dist).__name__
    wanted = [dist.shape] if dist.cond_shape is None else [dist.shape, dist.cond_shape]
    if len(arrays) > 2:
        raise ValueError(f"{label} expected data as x or (x, condition), got {len(arrays)} arrays.")
    if len(arrays) > len(wanted):
        raise ValueError(f"{label} is unconditional, but got a condition. Leave it out, or build it with cond_dim.")
    if len(arrays) < len(wanted):
        raise ValueError(
            f"{label} expected data (x, condition) with conditions of shape {dist.cond_shape}, got x alone."
        )
    for name, shape, array in zip(("x", "condition"), wanted, arrays, strict=False):
        if array.shape[1:] != shape:
            expected = f"({', '.join(['rows', *map(str, shape)])}{'' if shape else ','})"
            raise ValueError(f"{label} expected {name} of shape {expected}, got {array.shape}.")
    if len(arrays) == 2:
        check_condition(dist, arrays[1])
