"""What the contract harness measures: one compiled function a direction, from which every test of a case reads.

Most of the time of such tests is compiling, about 0.2 s for the smallest program. So the harness draws with NumPy
rather than with `jax.random`, and calls the few compiled functions of a case again and again at equal shapes.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any
from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from flowlib.bijections import AbstractBijection, backward_batch, forward_batch
from flowlib.distributions import AbstractDistribution
from flowlib.support import Real, Subset, Support
from hash_keys import hash_key

X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
FLOAT = np.float64 if X64 else np.float32
EPS = float(np.finfo(FLOAT).eps)
# The round trip promised at well-conditioned points.
ROUND_TRIP = 1e-9 if X64 else 1e-4
# Rows of one call: every call of a case has this many, so that it compiles once.
ROWS = 16
SLOPE = 0.7


def generator(*parts: Any) -> np.random.Generator:
    """A random generator that depends on the parts only, the same in every run."""
    return np.random.default_rng(crc32(repr(parts).encode()))


def perturb(tree: Any, rng: np.random.Generator, scale: float = 0.5) -> Any:
    """Noise on EVERY inexact array of the tree, NumPy and frozen ones included; integers and masks stay."""

    def noisy(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        moved = (np.asarray(leaf) + scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return moved if isinstance(leaf, np.ndarray) else jnp.asarray(moved)

    return jax.tree.map(noisy, tree)


def draws(support: Support, rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """`n` test points of a support."""
    if isinstance(support, Real):
        return rng.standard_normal((n, *shape)).astype(FLOAT)
    return np.asarray(_draws(support, jr.split(hash_key(int(rng.integers(1 << 30))), n), shape))


@eqx.filter_jit
def _draws(support, keys, shape):
    return jax.vmap(lambda key: support.draw(key, shape, jnp.dtype(FLOAT)))(keys)


def members(support: Support, x: np.ndarray) -> np.ndarray:
    """Which rows lie in the support, their positions on circles brought into range."""
    if isinstance(support, Real):
        return np.asarray(np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    return np.asarray(_members(support, jnp.asarray(x)))


@eqx.filter_jit
def _members(support, x):
    return jax.vmap(lambda one: support.contains(support.in_range(one)))(x)


def outsiders(support: Support, inside: np.ndarray) -> np.ndarray:
    """A few finite events outside the support, each an inside one with one bad coordinate.

    None for the real line, and for circles, on which positions count in any turn.
    """
    if isinstance(support, Real):
        return inside[:0]
    size = inside[0].size
    # The ends of open intervals too: there a logarithm has a pole.
    values = (0.0, 1.0, -1e3, 1e3, -7.0, 7.0)
    candidates = np.repeat(inside[:1].reshape(1, size), len(values) * size, 0)
    for row, (value, position) in enumerate((v, p) for v in values for p in range(size)):
        candidates[row, position] = value
    candidates = candidates.reshape(-1, *inside.shape[1:])
    candidates = candidates[~members(support, candidates)]
    return candidates[:: max(1, len(candidates) // 4)][:4]


@dataclasses.dataclass
class Record:
    """One direction of a bijection at a batch of points.

    `value` and `log_det` come from the public method, one event at a time under jit and vmap, and so do the
    gradients of the sum over rows of `weights . value + slope log_det`: in the parameters one for each inexact array,
    in the point and the condition one for each row. `jacobian` has shape (rows, out size, in size). `batch_*` comes
    from the private batched form (its gradients only where the class writes that form itself), `shared_*` likewise with
    the first row's condition for all rows; `valid` says which points were inside.
    """

    value: Any
    log_det: Any
    grad_params: list[np.ndarray]
    grad_x: Any
    grad_condition: Any = None
    jacobian: Any = None
    valid: Any = None
    batch_value: Any = None
    batch_log_det: Any = None
    batch_grad_params: list[np.ndarray] | None = None
    batch_grad_x: Any = None
    shared_value: Any = None
    shared_log_det: Any = None


@eqx.filter_jit
def _measure(bijection, x, condition, weights, slope, *, inverse, jacobian, part, batch, batch_gradient):
    arrays, rest = eqx.partition(bijection, eqx.is_inexact_array)
    differentiable = condition is not None and jnp.issubdtype(condition.dtype, jnp.floating)
    axis = None if condition is None else 0

    def apply(arrays, x, condition):
        b = eqx.combine(arrays, rest)
        return b.inverse_and_log_det(x, condition) if inverse else b.transform_and_log_det(x, condition)

    def total(value, log_det, valid):
        value, log_det = (weights * value).reshape(len(x), -1).sum(1), slope * log_det
        rows = {"both": value + log_det, "value": value, "log_det": log_det}[part]
        return jnp.where(valid, rows, 0).sum()

    def loss(diff, label):
        arrays, x, condition = diff
        seen = condition if differentiable else label
        value, log_det = jax.vmap(apply, (None, 0, axis))(arrays, x, seen)
        return total(value, log_det, ~jnp.isnan(log_det)), (value, log_det)

    def batch_loss(arrays, x, condition):
        b = eqx.combine(arrays, rest)
        value, log_det = (backward_batch if inverse else forward_batch)(b, x, condition)
        return total(value, log_det.value, log_det.valid), (value, log_det)

    diff = (arrays, x, condition if differentiable else None)
    grads, (value, log_det) = jax.grad(loss, has_aux=True)(diff, condition)
    found = {
        "value": value,
        "log_det": log_det,
        "grad_params": jax.tree.leaves(grads[0]),
        "grad_x": grads[1],
        "grad_condition": grads[2],
    }
    if jacobian:
        found["jacobian"] = jax.vmap(jax.jacfwd(lambda x, c: apply(arrays, x, c)[0]), (0, axis))(x, condition)
    if batch:
        if batch_gradient:
            grads, aux = jax.grad(batch_loss, argnums=(0, 1), has_aux=True)(arrays, x, condition)
            found["batch_grad_params"], found["batch_grad_x"] = jax.tree.leaves(grads[0]), grads[1]
        else:
            _, aux = batch_loss(arrays, x, condition)
        found["batch_value"], flagged = aux
        found["batch_log_det"], found["valid"] = flagged.value, flagged.valid
        if condition is not None:
            _, (found["shared_value"], flagged) = batch_loss(arrays, x, condition[0])
            found["shared_log_det"] = flagged.value
    return found


def measure(
    bijection: AbstractBijection,
    x: np.ndarray,
    condition: np.ndarray | None,
    *,
    inverse: bool = False,
    weights: np.ndarray | None = None,
    slope: np.ndarray | float = SLOPE,
    thorough: bool = True,
    part: str = "both",
) -> Record:
    """A `Record` at `ROWS` points or fewer, each with its row of the condition.

    Without `thorough` there are no Jacobian and no batched form. `part` leaves "value" or "log_det" alone to be
    differentiated: where both derivatives are infinite, their sum is NaN.
    """
    n = len(x)
    assert 0 < n <= ROWS
    rows = np.minimum(np.arange(ROWS), n - 1)
    real = np.arange(ROWS) < n
    weights = default_weights(n, bijection.shape if inverse else bijection.out_shape) if weights is None else weights
    weights = np.where(real.reshape(-1, *[1] * (weights.ndim - 1)), weights[rows], 0)
    name = "_inverse_and_log_det_batch" if inverse else "_transform_and_log_det_batch"
    result = _measure(
        bijection,
        jnp.asarray(x[rows], FLOAT),
        None if condition is None else jnp.asarray(condition[rows]),
        jnp.asarray(weights, FLOAT),
        jnp.asarray(np.where(real, np.broadcast_to(slope, n)[rows], 0), FLOAT),
        inverse=inverse,
        jacobian=thorough and not inverse,
        part=part,
        batch=thorough,
        batch_gradient=thorough and getattr(type(bijection), name) is not getattr(AbstractBijection, name),
    )
    summed = {name: result.pop(name) for name in ("grad_params", "batch_grad_params") if name in result}
    result = jax.tree.map(lambda a: np.asarray(a)[:n], result)
    if "jacobian" in result:
        result["jacobian"] = result["jacobian"].reshape(n, -1, int(np.prod(bijection.shape)))
    return Record(**result, **jax.tree.map(np.asarray, summed))


@eqx.filter_jit
def _apply(bijection, x, condition, inverse):
    def one(x, condition):
        return bijection.inverse_and_log_det(x, condition) if inverse else bijection.transform_and_log_det(x, condition)

    return jax.vmap(one, (0, None if condition is None else 0))(x, condition)


def apply(bijection, x: np.ndarray, condition: np.ndarray | None, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """The public method at each row, without anything else."""
    labels = None if condition is None else jnp.asarray(condition)
    value, log_det = _apply(bijection, jnp.asarray(x, FLOAT), labels, inverse)
    return np.asarray(value), np.asarray(log_det)


def default_weights(n: int, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of `measure` where none are given."""
    return generator("weights").standard_normal((n, *shape))


def chunks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Rows in portions that `measure` takes."""
    for start in range(0, len(arrays[0]), ROWS):
        yield tuple(array[start : start + ROWS] for array in arrays)


def conditions(case, instance, rng: np.random.Generator, n: int) -> np.ndarray | None:
    """Random conditions for a bijection or distribution; None if it is unconditional."""
    if instance.cond_shape is None:
        return None
    if case.condition is not None:
        return np.stack([np.asarray(case.condition(rng)) for _ in range(n)])
    return rng.standard_normal((n, *instance.cond_shape)).astype(FLOAT)


class Subject:
    """One case with random parameters, and what its tests share."""

    n = ROWS

    def __init__(self, case):
        self.case = case
        # As constructed, and with noise on every floating array.
        self.initial: Any = case.make(self.key(0))
        self.noisy: Any = perturb(self.initial, self.rng("noise"), case.noise)
        self.condition = conditions(case, self.noisy, self.rng("condition"), self.n)

    def key(self, i: int) -> jax.Array:
        return hash_key(1000 * (crc32(self.case.id.encode()) % 10**6) + i)

    def rng(self, *parts) -> np.random.Generator:
        return generator(self.case.id, *parts)

    def twin(self) -> Any:
        """What `noisy` is, built anew from the same arguments."""
        return perturb(self.case.make(self.key(0)), self.rng("noise"), self.case.noise)

    @cached_property
    def stack(self) -> Any:
        """Instances built from the keys 0 to 3 under vmap and jit, as constructed."""
        keys = jnp.stack([self.key(i) for i in range(4)])
        return eqx.filter_jit(eqx.filter_vmap(self.case.make))(keys)

    def built_inside(self, i: int) -> Any:
        """The instance of `stack` made from key `i`."""
        return layer_of(self.stack, i)

    @cached_property
    def special_numbers(self) -> list[float]:
        """Zero, one, a million, and the case's own knots and ends, at initial and at random parameters."""
        return [0.0, 1.0, -1.0, 1e6, -1e6, *self.case.special(self.initial), *self.case.special(self.noisy)]


class Study(Subject):
    """A bijection at random points."""

    @property
    def bijection(self) -> AbstractBijection:
        return self.noisy

    @cached_property
    def x(self) -> np.ndarray:
        return draws(self.bijection.domain, self.rng("x"), self.n, self.bijection.shape)

    @cached_property
    def forward(self) -> Record:
        return measure(self.bijection, self.x, self.condition)

    @cached_property
    def returned(self) -> Record:
        """The inverse at the images of `x`."""
        return measure(self.bijection, self.forward.value, self.condition, inverse=True)

    @cached_property
    def y(self) -> np.ndarray:
        b = self.bijection
        if not isinstance(b.codomain, Subset):
            return draws(b.codomain, self.rng("y"), self.n, b.out_shape)
        # Part of the set only: its own points are images.
        return measure(b, draws(b.domain, self.rng("y"), self.n, b.shape), self.condition).value

    @cached_property
    def inverse(self) -> Record:
        return measure(self.bijection, self.y, self.condition, inverse=True)

    @cached_property
    def reached(self) -> Record:
        """The transform at the preimages of `y`."""
        return measure(self.bijection, self.inverse.value, self.condition)


class DensityStudy(Subject):
    """A distribution, its draws, and what its density is there."""

    # Rows of the large batches: draws, and portions of a grid.
    many = 4096

    @property
    def dist(self) -> AbstractDistribution:
        return self.noisy

    @property
    def one_condition(self) -> np.ndarray | None:
        return None if self.condition is None else self.condition[0]

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Many draws for one condition, and their log densities from the same pass."""
        x, log_prob = self.dist.sample_and_log_prob(jr.key(crc32(self.case.id.encode())), self.many, self.one_condition)
        return np.asarray(x), np.asarray(log_prob)

    @property
    def x(self) -> np.ndarray:
        """A few of the draws."""
        return self.drawn[0][: self.n]

    def log_prob(self, dist: AbstractDistribution, x: np.ndarray) -> np.ndarray:
        """The log density at any number of events for one condition, from plain calls of one shape."""
        found = []
        for start in range(0, len(x), self.many):
            rows = np.minimum(np.arange(start, start + self.many), len(x) - 1)
            found.append(np.asarray(dist.log_prob(x[rows].astype(FLOAT), self.one_condition)))
        return np.concatenate(found)[: len(x)].astype(np.float64)


@cache
def study(case) -> Study:
    """The one `Study` of a bijection's case."""
    return Study(case)


@cache
def density_study(case) -> DensityStudy:
    """The one `DensityStudy` of a distribution's case."""
    return DensityStudy(case)


@dataclasses.dataclass
class DensityRecord:
    """`log_prob` of a distribution at rows, one condition each, and the gradients of its sum.

    `broadcast` is the log density of the first four events for each of the first four conditions.
    """

    log_prob: Any
    grad_params: list[np.ndarray]
    grad_x: Any
    grad_condition: Any = None
    broadcast: Any = None


@eqx.filter_jit
def _density(dist, x, condition, counted):
    arrays, rest = eqx.partition(dist, eqx.is_inexact_array)
    differentiable = condition is not None and jnp.issubdtype(condition.dtype, jnp.floating)

    def loss(diff, label):
        arrays, x, condition = diff
        log_prob = eqx.combine(arrays, rest).log_prob(x, condition if differentiable else label)
        return jnp.where(counted, log_prob, 0).sum(), log_prob

    diff = (arrays, x, condition if differentiable else None)
    grads, log_prob = jax.grad(loss, has_aux=True)(diff, condition)
    found = {"log_prob": log_prob, "grad_x": grads[1], "grad_condition": grads[2]}
    if condition is not None:
        found["broadcast"] = dist.log_prob(x[:4, None], condition[:4])
    return found, jax.tree.leaves(grads[0])


def measure_density(
    dist: AbstractDistribution, x: np.ndarray, condition: np.ndarray | None, counted: np.ndarray | None = None
) -> DensityRecord:
    """A `DensityRecord` at `ROWS` events or fewer, each with its condition; those not `counted` add no gradient."""
    n = len(x)
    counted = np.arange(ROWS) < n if counted is None else counted
    assert 0 < n <= ROWS
    rows = np.minimum(np.arange(ROWS), n - 1)
    labels = None if condition is None else jnp.asarray(condition[rows])
    found, grads = _density(dist, jnp.asarray(x[rows], FLOAT), labels, jnp.asarray(counted))
    found = {name: value if name == "broadcast" else value[:n] for name, value in found.items() if value is not None}
    return DensityRecord(**jax.tree.map(np.asarray, found), grad_params=list(map(np.asarray, grads)))


def layer_of(stack: Any, i: int) -> Any:
    """One layer of a stack."""
    return jax.tree.map(lambda leaf: _item(leaf, i) if eqx.is_array(leaf) else leaf, stack)


def _item(leaf, i):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf[i]
    # Through NumPy, since a slice of each shape would be a program to compile.
    return jnp.asarray(np.asarray(leaf)[i])


def special_rows(numbers: list[float], ordinary: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Events filled with one of the numbers or a float neighbour, and ordinary events with one in one coordinate."""
    exact = np.unique(np.asarray(numbers, FLOAT))
    every = np.concatenate([exact, np.nextafter(exact, FLOAT(np.inf)), np.nextafter(exact, FLOAT(-np.inf))])
    filled = np.stack([np.full(shape, v, FLOAT) for v in every])
    size = int(np.prod(shape))
    if size == 1:
        return filled
    mixed = ordinary[np.arange(len(every)) % len(ordinary)].copy().reshape(len(every), size)
    mixed[np.arange(len(every)), np.arange(len(every)) % size] = every
    return np.concatenate([filled, mixed.reshape(filled.shape)])


def singular_values(jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest singular value of each row's Jacobian."""
    values = np.linalg.svd(jacobian.astype(np.float64), compute_uv=False)
    return values[:, 0], values[:, -1]


def largest(array: np.ndarray) -> np.ndarray:
    """The largest magnitude in each row."""
    return np.abs(array.astype(np.float64)).reshape(len(array), -1).max(1)


def rowwise(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`mask`, one entry a row, broadcastable to `like`."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))


def well_conditioned(x: np.ndarray, y: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Rows at which neither direction stretches more than thirty times, near the origin."""
    high, low = singular_values(jacobian)
    return (high < 30) & (low > 1 / 30) & (largest(x) < 30) & (largest(y) < 30)


def functions_in(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every function reachable through fields, static or not, with where it was found."""
    if isinstance(tree, eqx.Module):
        if type(tree).__module__.startswith("equinox."):
            # Equinox's own networks keep functions of their own, the same ones in every instance.
            return
        for field in dataclasses.fields(tree):
            if hasattr(tree, field.name):
                yield from functions_in(getattr(tree, field.name), f"{path}.{field.name}")
    elif isinstance(tree, tuple | list):
        for index, item in enumerate(tree):
            yield from functions_in(item, f"{path}[{index}]")
    elif isinstance(tree, dict):
        for name, item in tree.items():
            yield from functions_in(item, f"{path}[{name!r}]")
    elif isinstance(tree, functools.partial):
        yield from functions_in((tree.func, tree.args, tree.keywords), f"{path}.partial")
    elif callable(tree) and not isinstance(tree, type | jax.Array | np.ndarray):
        yield path, tree


def is_public_function(function: Any) -> bool:
    """Whether the function can be found again under its module and name: no lambda, closure or bound method."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    name = name or getattr(function, "__name__", None)
    if module is None or name is None or "<" in name:
        return False
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function


def static_part(tree: Any) -> tuple[Any, Any]:
    """What is no array: the leaves and the tree definition."""
    leaves, treedef = jax.tree.flatten(eqx.partition(tree, eqx.is_array)[1])
    return tuple(leaves), treedef


def assert_same_tree(a: Any, b: Any) -> None:
    """The same structure, static parts and arrays."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert static_part(a) == static_part(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if eqx.is_array(one):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
