"""Fingerprints: equal for what means the same, in every process, and different for what does not."""

import dataclasses
import enum
import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow
from flowlib.train import MaximumLikelihoodLoss
from flowlib.train._fingerprint import fingerprint

FACTOR = 2.0


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Settings:
    name: str
    parts: object = ()


def checked_loss(factor):
    @jaxtyped(typechecker=beartype)
    def loss(x: Float[Array, " n"] | int) -> Float[Array, ""]:
        return factor * jnp.sum(x)

    return loss


class Plain:
    def __init__(self, value):
        self.value = value

    def method(self):
        return self.value


class Scaled:
    """Calls a function, times a number."""

    def __init__(self, fn, factor):
        self.__wrapped__ = fn
        self.factor = factor


def scaled_loss(factor, *, shift=0.0):
    def loss(params, static, x, key, *, shift=shift):
        return factor * x + shift

    return loss


def uses_global(x):
    return FACTOR * x


def positional(a, b):
    return a, b


def keyword(a, *, b):
    return a, b


def module(seed=0, nn_width=5):
    return coupling_flow(jr.key(seed), base_dist=StandardNormal((2,)), flow_layers=2, nn_width=nn_width)


def cyclic(value):
    ring = [value]
    ring.append(ring)
    return ring


def values():
    """Builders of values by name: each call of one gives an equal value, and no two of them give the same."""
    x = np.arange(6.0).reshape(2, 3)
    return {
        "none": lambda: None,
        "text none": lambda: "None",
        "one": lambda: 1,
        "true": lambda: True,
        "float one": lambda: 1.0,
        "text": lambda: "long text " * 20,
        "other text": lambda: "long text " * 19,
        "tuple": lambda: (1, 2.5, "a"),
        "list": lambda: [1, 2.5, "a"],
        "nested": lambda: [[1], 2.5, "a"],
        "set": lambda: {"a", "b", "c"},
        "dict": lambda: {"a": 1, "b": 2},
        "other dict": lambda: {"a": 2, "b": 1},
        "bytes": lambda: b"abc",
        "enum": lambda: Colour.RED,
        "other enum": lambda: Colour.BLUE,
        "class": lambda: Colour,
        "slice": lambda: slice(1, 2),
        "dtype": lambda: np.dtype("float32"),
        "x": lambda: x.copy(),
        "transposed": lambda: x.T,
        "reshaped": lambda: x.reshape(3, 2),
        "integers": lambda: x.astype(np.int64),
        "bfloat16": lambda: jnp.ones(3, jnp.bfloat16),
        "empty": lambda: np.zeros((0, 3)),
        "other empty": lambda: np.zeros((3, 0)),
        "objects": lambda: np.array(["a", 1], object),
        "key": lambda: jr.key(0),
        "other key": lambda: jr.key(1),
        "rbg": lambda: jr.key(0, impl="rbg"),
        "legacy key": lambda: jr.PRNGKey(0),
        "rate": lambda: jnp.asarray(5e-4, jnp.float32),
        "dataclass": lambda: Settings("a"),
        "other dataclass": lambda: Settings("a", ("b",)),
        "object": lambda: Plain(1),
        "other object": lambda: Plain(2),
        "method": lambda: Plain(1).method,
        "other method": lambda: Plain(2).method,
        "cycle": lambda: cyclic(1),
        "other cycle": lambda: cyclic(2),
        "flow": lambda: module(),
        "other weights": lambda: module(1),
        "wider flow": lambda: module(0, 6),
        "loss module": MaximumLikelihoodLoss,
        "function": lambda: uses_global,
        "jitted": lambda: jax.jit(uses_global),
        "filter-jitted": lambda: eqx.filter_jit(uses_global),
        "closure": lambda: scaled_loss(1.0),
        "other closure": lambda: scaled_loss(2.0),
        "array closure": lambda: scaled_loss(jnp.ones(2)),
        "checked at run time": lambda: checked_loss(1.0),
        "checked by beartype": lambda: beartype(scaled_loss(3.0)),
        "annotation": lambda: int | list[str],
        "other default": lambda: scaled_loss(1.0, shift=1.0),
        "positional": lambda: positional,
        "keyword": lambda: keyword,
        "wrapped": lambda: Scaled(uses_global, 1.0),
        "otherwise wrapped": lambda: Scaled(uses_global, 2.0),
        "partial": lambda: functools.partial(uses_global, 1),
        "other partial": lambda: functools.partial(uses_global, 2),
        "relu": lambda: jax.nn.relu,
        "silu": lambda: jax.nn.silu,
        "built-in": lambda: len,
        "ufunc": lambda: np.sin,
        "adam": lambda: optax.adam(1e-3),
        "other adam": lambda: optax.adam(2e-3),
        "adam by schedule": lambda: optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
        "schedule": lambda: optax.cosine_decay_schedule(1e-3, 100),
        "other schedule": lambda: optax.cosine_decay_schedule(1e-3, 101),
        "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
        "multi-step": lambda: optax.MultiSteps(optax.adam(1e-3), 4),
        "lbfgs": optax.lbfgs,
    }


def test_equal_values_agree_and_different_ones_do_not():
    found = {name: fingerprint(build()) for name, build in values().items()}
    assert found == {name: fingerprint(build()) for name, build in values().items()}
    assert len(set(found.values())) == len(found), sorted(found.items(), key=lambda item: item[1])
    assert all(len(line) < 100 and "\n" not in line and " at 0x" not in line for line in found.values())


def test_other_processes_agree():
    # Sets, and frozensets in code, have an order that depends on the seed.
    here = Path(__file__)
    program = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; t.print_all()"
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    first, second = (
        run([sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}).stdout for seed in "12"
    )
    assert first == second
    assert len(first.splitlines()) == len(values())


def print_all():
    for name, build in values().items():
        print(name, fingerprint(build()), sep=": ")


def test_short_values_stand_for_themselves():
    cases = {"None": None, "0.001": 1e-3, "'abc'": "abc", "(16, 'a')": (16, "a"), "True": True, "nan": float("nan")}
    assert {text: fingerprint(value) for text, value in cases.items()} == {text: text for text in cases}
    assert fingerprint(jnp.asarray(5e-4, jnp.float32)) == "float32(0.0005)"
    assert fingerprint(np.float32(-0.0)) == "float32(-0.0)"
    assert fingerprint(jnp.zeros((5, 2), jnp.float32)).startswith("float32[5,2] ")
    assert fingerprint(scaled_loss(1.0)).startswith("scaled_loss.<locals>.loss ")


def test_one_bit_counts(key):
    x = np.asarray(jr.normal(key, (1000, 3)))
    other = x.copy()
    other.view(np.uint8)[17, 3] ^= 1
    assert fingerprint(x) != fingerprint(other)
    assert fingerprint(np.array([0.0])) != fingerprint(np.array([-0.0]))


def test_where_an_array_lives_does_not_count(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    mapped[:] = x
    same = [x, jnp.asarray(x), np.asfortranarray(x), np.repeat(x, 2, 0)[::2], mapped]
    assert len({fingerprint(value) for value in same}) == 1


def test_numbers_that_a_function_reads_from_its_module_count(monkeypatch):
    before = fingerprint(uses_global)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(uses_global) != before


def test_functions_differ_by_code_alone():
    def define(source):
        names = {"__name__": "script"}
        exec(source, names)
        return fingerprint(names["f"])

    base = define("def f(x):\n    return x in {1, 2} and 0.5 * x")
    assert define("# moved\n\n\ndef f(x):\n    return x in {1, 2} and 0.5 * x") == base
    others = ["def f(x):\n    return x in {1, 3} and 0.5 * x", "def f(x):\n    return x in {1, 2} and 0.5 + x"]
    inner = [f"def f(x):\n    return [i * {factor} for i in (lambda: x)()]" for factor in (2, 3)]
    assert len({base, *map(define, others + inner)}) == 5


def test_a_function_that_calls_itself_ends():
    def build(step):
        def loss(n):
            return loss(n - step) if n > 0 else 0

        return loss

    assert fingerprint(build(1)) == fingerprint(build(1)) != fingerprint(build(2))


def test_what_has_no_content_is_an_error():
    with pytest.raises(TypeError, match=r"A _thread\.lock has no content"):
        fingerprint(Plain([threading.Lock()]))
    with pytest.raises(TypeError, match=r"A builtins\.generator has no content"):
        fingerprint(x for x in ())
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(fingerprint)(1.0)
