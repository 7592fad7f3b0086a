"""Saving, loading, pickling and copying."""

import copy
import functools
import inspect
import io
import json
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import paramax
import pytest

from flowlib import _serial_names, constraints
from flowlib import bijections as bij
from flowlib import distributions as dist
from flowlib._serial_names import class_name, find_class, find_function, function_name
from flowlib.errors import FileFormatError
from flowlib.serialisation import load, save

DATA = Path(__file__).parent / "data"
X64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


def identical(a: Any, b: Any) -> bool:
    """Same structure and static data, and every leaf the same to the bit, dtype and weak type included."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(identical_leaf(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def identical_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, jax.Array | np.ndarray | np.generic):
        if type(a) is not type(b) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jr.key_data(cast(jax.Array, a)), jr.key_data(b)
        weak = getattr(a, "weak_type", None) == getattr(b, "weak_type", None)
        return weak and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(a, functools.partial):
        return (a.func, a.args, repr(a.keywords)) == (b.func, b.args, repr(b.keywords))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def layer(key: jax.Array) -> bij.AbstractBijection:
    keys = jr.split(key, 3)
    net = eqx.nn.MLP(3, 2, 4, 1, jax.nn.silu, key=keys[0])
    affine = bij.Affine(jr.normal(keys[1], (2,)), jnp.exp(jr.normal(keys[2], (2,))))
    return bij.Chain([affine, bij.AdditiveCondition(net, (2,), (3,)), bij.Permute(jnp.array([1, 0]))])


@eqx.filter_jit
def make_flow(key: jax.Array) -> Any:
    """Conditional; with a scan, an inverse, a network and a frozen part."""
    keys = jr.split(key, 3)
    scan = bij.Scan(eqx.filter_vmap(layer)(keys[:2]))
    frozen = paramax.non_trainable(bij.Affine(jr.normal(keys[2], (2,))))
    return dist.Transformed(dist.StandardNormal((2,)), bij.Chain([bij.Invert(scan), frozen, bij.SoftPlus((2,))]))


def filled(leaf: Any) -> Any:
    # Arrays from NumPy: initialisers compile a program for every shape.
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jnp.asarray(np.arange(np.prod(leaf.shape, dtype=int)).reshape(leaf.shape), leaf.dtype)


def network(*activations: Any) -> eqx.nn.MLP:
    make = functools.partial(eqx.nn.MLP, 3, 2, 4, 1, key=jr.key(0))
    return jax.tree.map(filled, eqx.filter_eval_shape(make, *activations))


X = np.array([[0.5, 1.5], [2.0, 0.25], [-1.0, 1.0]], np.float32)
CONDITION = np.array([0.1, -0.2, 0.3], np.float32)


class OwnNet(eqx.Module):
    weight: jax.Array
    width: int = eqx.field(static=True)

    def __call__(self, x):
        return jnp.tanh(self.weight @ x)


class OwnShift(bij.AbstractBijection):
    by: jax.Array
    shape: tuple[int, ...] = eqx.field(default=(2,), static=True, kw_only=True)
    cond_shape: ClassVar[None] = None

    def _transform_and_log_det(self, x, condition):
        return x + self.by, 0.0

    def _inverse_and_log_det(self, y, condition):
        return y - self.by, 0.0


def own_activation(x):
    return x * jax.nn.sigmoid(x)


@jax.jit
def own_jitted(x):
    return x + 1


def with_own_parts() -> Any:
    net = OwnNet(jnp.arange(6.0).reshape(2, 3), 3)
    parts = [OwnShift(jnp.ones(2)), bij.AdditiveCondition(net, (2,), (3,))]
    return dist.Transformed(dist.StandardNormal((2,)), bij.Chain(parts))


# --- what comes back ---------------------------------------------------------------------------------------------


def test_a_loaded_flow_is_identical_and_reuses_compiled_code(tmp_path, key, compiles):
    flow = make_flow(key)
    expected = flow.log_prob(X, CONDITION)
    save(tmp_path / "flow", flow)
    loaded = load(tmp_path / "flow")
    assert identical(loaded, flow)
    assert hash(jax.tree.structure(loaded)) == hash(jax.tree.structure(flow))
    with compiles.expect_none():
        again = loaded.log_prob(X, CONDITION)
    np.testing.assert_array_equal(again, expected)
    assert np.isneginf(expected[2])


def test_another_process_reads_the_same_flow_from_a_file_and_from_a_pickle(tmp_path, key):
    flow = make_flow(key)
    save(tmp_path / "flow", flow)
    (tmp_path / "pickle").write_bytes(pickle.dumps(flow))
    program = """
import pickle, sys, jax, numpy
folder = sys.argv[1]
pickled = pickle.load(open(folder + "/pickle", "rb"))
from flowlib.serialisation import load
loaded = load(folder + "/flow")
assert jax.tree.structure(pickled) == jax.tree.structure(loaded)
for name, flow in (("loaded", loaded), ("pickled", pickled)):
    numpy.savez(f"{folder}/{name}", *(leaf for leaf in jax.tree.leaves(flow) if hasattr(leaf, "dtype")))
print(repr(loaded))
"""
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == repr(flow)
    for name in ("loaded", "pickled"):
        found = np.load(tmp_path / f"{name}.npz")
        assert identical(
            [found[key] for key in found.files], [*map(np.asarray, jax.tree.leaves(eqx.filter(flow, eqx.is_array)))]
        )


def test_every_kind_of_value_comes_back(tmp_path):
    values = {
        "plain": [None, True, False, 0, -(2**80), 1.5, -0.0, 5e-324, "", 'text "quoted" \n \u00e9 \ud800'],
        "special": (float("nan"), float("inf"), -float("inf")),
        "nested": {"": (), "a": [], "tuple": {}, "b": ((1,), [2, (3,)])},
        "slices": (slice(None), slice(1, None, -2), ...),
        "types": (float, int, bool, complex, jnp.float32, jnp.bool_, jnp.bfloat16, np.float64, np.int32),
        "dtypes": (np.dtype("float32"), np.dtype("bool"), np.dtype(jnp.bfloat16)),
        "struct": jax.ShapeDtypeStruct((2, 0), jnp.float32),
        "functions": (jax.nn.relu, jax.nn.softplus, jnp.tanh, jnp.exp, jax.lax.add, jnp.linalg.norm),
        "partials": (functools.partial(jnp.sum, axis=0), jtu.Partial(jnp.add, jnp.arange(2.0), 3)),
        "arrays": [
            jnp.arange(6, dtype=dtype).reshape(2, 3)
            for dtype in (jnp.float32, jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.int4, jnp.float8_e4m3fn)
        ],
        "odd arrays": [
            jnp.zeros((0, 3)),
            jnp.float32(2.5),
            jnp.array([True, False]),
            jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-45], jnp.float32),
            jnp.ones((2,), jnp.complex64) * 1j,
        ],
        "weak": (jnp.asarray(1.0), jnp.full((3,), 2.0), jnp.asarray(3)),
        "numpy": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(10)[::-2], np.zeros((0,), np.int8)],
        "scalars": (np.float64(0.1), np.bool_(True), np.int16(-3), jnp.bfloat16(1.5)),
        "keys": (jr.key(3), jr.split(jr.key(1, impl="rbg"), 2), jr.PRNGKey(0)),
    }
    save(tmp_path / "values", values)
    loaded = load(tmp_path / "values")
    assert identical(loaded, values)
    assert loaded["numpy"][0].flags.writeable
    assert str(jr.key_impl(loaded["keys"][1])) == "rbg"
    # Leaves such as nan compare by identity in a tree, and -0.0 equals 0.0.
    assert repr(loaded["plain"]) == repr(values["plain"])
    assert repr(loaded["types"]) == repr(values["types"])


def test_big_endian_arrays_and_memory_maps_come_back_as_plain_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "map", np.float32, "w+", shape=(3,))
    mapped[:] = 1, 2, 3
    save(tmp_path / "file", [np.arange(3, dtype=">i4"), mapped])
    big, plain = load(tmp_path / "file")
    assert (big.dtype, type(plain)) == (np.dtype(np.int32), np.ndarray)
    assert (big.tolist(), plain.tolist()) == ([0, 1, 2], [1.0, 2.0, 3.0])


def test_an_array_that_occurs_twice_is_stored_once(tmp_path):
    array = jnp.arange(3.0)
    save(tmp_path / "file", (array, [array]))
    assert sorted(zipfile.ZipFile(tmp_path / "file").namelist()) == ["arrays/0.npy", "manifest.json"]
    first, (second,) = load(tmp_path / "file")
    assert first is second


def test_the_same_flow_makes_the_same_bytes(tmp_path, key):
    save(tmp_path / "one", make_flow(key))
    save(str(tmp_path / "two"), make_flow(key))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def equinox_layers() -> dict[str, Any]:
    nn, key = eqx.nn, jr.key(0)
    linear = nn.Linear(2, 3, key=key)
    layers = {
        "PReLU": nn.PReLU(0.1),
        "MultiheadAttention": nn.MultiheadAttention(2, 4, key=key),
        "BatchNorm": nn.make_with_state(nn.BatchNorm)(3, "batch", mode="batch"),
        "Dropout": nn.Dropout(0.3),
        "Embedding": nn.Embedding(4, 2, key=key),
        "RotaryPositionalEmbedding": nn.RotaryPositionalEmbedding(4),
        "Identity": nn.Identity(),
        "Linear": linear,
        "MLP": nn.MLP("scalar", 2, 3, 1, key=key),
        "GroupNorm": nn.GroupNorm(2, 4),
        "LayerNorm": nn.LayerNorm(3),
        "RMSNorm": nn.RMSNorm(3),
        "GRUCell": nn.GRUCell(2, 3, key=key),
        "LSTMCell": nn.LSTMCell(2, 3, key=key),
        "Lambda": nn.Lambda(jnp.tanh),
        "Sequential": nn.Sequential([linear, nn.Lambda(jax.nn.gelu)]),
        "Shared": nn.Shared((linear, linear), pick_second, pick_first),
        "SpectralNorm": nn.make_with_state(nn.SpectralNorm)(linear, "weight", key=key),
        "StateIndex": nn.make_with_state(nn.StateIndex)(jnp.ones(2)),
        "WeightNorm": nn.WeightNorm(linear),
        "Conv": nn.Conv(1, 1, 2, 3, padding="SAME", key=key),
        "ConvTranspose": nn.ConvTranspose(1, 1, 2, 3, key=key),
        "Pool": nn.Pool(0.0, jax.lax.add, 1, 2),
        "AdaptivePool": nn.AdaptivePool(2, 1, jnp.mean),
    }
    for n in (1, 2, 3):
        layers[f"Conv{n}d"] = getattr(nn, f"Conv{n}d")(1, 1, 2, key=key)
        layers[f"ConvTranspose{n}d"] = getattr(nn, f"ConvTranspose{n}d")(1, 1, 2, key=key)
        for kind in ("Avg", "Max"):
            layers[f"{kind}Pool{n}d"] = getattr(nn, f"{kind}Pool{n}d")(2)
            layers[f"Adaptive{kind}Pool{n}d"] = getattr(nn, f"Adaptive{kind}Pool{n}d")(2)
    return layers


def pick_first(pair):
    return pair[0].weight


def pick_second(pair):
    return pair[1].weight


def test_every_layer_of_equinox_comes_back(tmp_path):
    layers = jax.tree.map(filled, eqx.filter_eval_shape(equinox_layers))
    public = {name for name, cls in vars(eqx.nn).items() if inspect.isclass(cls) and issubclass(cls, eqx.Module)}
    assert public - set(layers) == {"StatefulLayer"}, "an Equinox layer has no test, or is abstract now"
    save(tmp_path / "layers", layers)
    loaded = load(tmp_path / "layers", classes=[pick_first, pick_second])
    for name in layers:
        if name == "Shared":
            # Equinox's own placeholder has no equality.
            assert loaded[name]().__class__ is tuple
        else:
            assert identical(loaded[name], layers[name]), name


def test_every_wrapper_of_paramax_comes_back(tmp_path):
    wrappers = [
        paramax.Parameterize(jnp.exp, jnp.zeros(2)),
        paramax.Parameterize(functools.partial(jnp.clip, min=0.0), jnp.zeros(2)),
        paramax.WeightNormalization(jnp.ones((2, 2))),
        paramax.NonTrainable((jnp.ones(2), 3.0)),
        paramax.RealToIncreasingOnInterval(jnp.zeros(3), (-1.0, 1.0), min_width=0.1, include_endpoints="both"),
        eqx.Partial(jnp.add, jnp.ones(2)),
    ]
    save(tmp_path / "wrappers", wrappers)
    loaded = load(tmp_path / "wrappers")
    assert identical(loaded, wrappers)
    assert identical(paramax.unwrap(loaded[0]), jnp.ones(2))


# --- files of earlier versions -----------------------------------------------------------------------------------

V1 = json.loads((DATA / "v1.json").read_text())


@pytest.mark.parametrize("name", V1["log_prob"])
def test_a_flow_saved_in_version_1_gives_the_same_densities(name):
    flow = load(DATA / f"v1_{name}.flow")
    condition = None if flow.cond_shape is None else np.array(V1["conditions"], np.float32)
    log_prob = flow.log_prob(np.array(V1["points"], np.float32), condition)
    assert log_prob.dtype == np.float32
    # The arithmetic may change with a version, but not what is computed.
    np.testing.assert_allclose(log_prob, V1["log_prob"][name], rtol=1e-4, atol=1e-4)


def test_values_saved_in_version_1_are_the_same():
    loaded = load(DATA / "v1_values.flow")
    norm, state = loaded.pop("layers")
    values = {
        "plain": [None, True, 3, -1.5, "text"],
        "odd": ((float("inf"), -float("inf")), ..., slice(1, None), np.float16(0.5)),
        "types": (jnp.float32, np.int8, float, np.dtype("int16"), jax.ShapeDtypeStruct((2,), jnp.float32)),
        "functions": (jax.nn.relu, jnp.tanh, functools.partial(jnp.clip, min=0.0), jtu.Partial(jnp.exp)),
        "arrays": (
            *(jnp.array([1.5, 2.5], jnp.bfloat16), jnp.array([True])),
            *(jnp.zeros((0, 2), jnp.float32), np.arange(3, dtype=np.int8)),
        ),
        "weak": jnp.asarray(2.0),
        "key": jr.key(7),
    }
    # Weakly typed float32 arrays exist only where float32 is the default.
    if X64:
        del loaded["weak"], values["weak"]
    assert identical(loaded, values)
    assert isinstance(norm, eqx.nn.BatchNorm)
    assert isinstance(state, eqx.nn.State)


# --- names -------------------------------------------------------------------------------------------------------


def all_subclasses(cls: type) -> list[type]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in all_subclasses(child))]


def test_every_concrete_module_of_flowlib_has_a_name_of_its_own():
    find_class("flowlib.Chain")
    own = [cls for cls in all_subclasses(eqx.Module) if cls.__module__.startswith("flowlib.")]
    concrete = [cls for cls in own if not inspect.isabstract(cls)]
    assert len(concrete) > 40
    for cls in concrete:
        assert class_name(cls) == f"flowlib.{cls.__name__}"


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "builtins.eval", "eval", "flowlib.save", "flowlib.serialisation.save", "flowlib.serialisation"),
        *("jax.numpy.save", "jax.numpy.load", "jax.numpy.savez", "jax.numpy.fromfile", "jax.numpy.apply_along_axis"),
        *("jax.numpy.frompyfunc", "jax.numpy.vectorize", "jax.debug.print", "jax.debug.callback", "jax.pure_callback"),
        *(
            "jax.jit",
            "jax.lax.map",
            "jax.nn.initializers",
            "jax.nn.initializers.zeros",
            "paramax.unwrap",
            "equinox.jit",
        ),
        *("flowlib.constraints.np", "flowlib.constraints.jax.jit", "flowlib.constraints.paramax", "flowlib.nn.eqx"),
        *("flowlib.constraints.__loader__", "equinox.filter_pure_callback", "functools.partial", ""),
    ],
)
def test_no_other_function_can_be_named(name):
    assert find_function(name) is None
    assert find_class(name) is None


def test_the_nameable_functions_are_pure_mathematics_of_their_own_modules():
    assert function_name(jax.nn.relu) == "jax.nn.relu"
    assert function_name(jax.nn.silu) == "jax.nn.silu"
    assert function_name(constraints.softplus_positive) == "flowlib.constraints.softplus_positive"
    assert find_function("equinox.identity")(3) == 3  # pyright: ignore[reportOptionalCall]
    suspicious = ("save", "load", "file", "print", "callback", "debug", "eval", "exec", "import", "open", "jit")
    for name in _serial_names._functions():
        assert not any(word in name.rpartition(".")[2] for word in suspicious), name


# --- what cannot be saved ----------------------------------------------------------------------------------------


class Holder(eqx.Module):
    inside: Any

    def method(self):
        return self


def local_function():
    def inner(x):
        return x

    return inner


class SubArray(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, r"flow\.inside: a lambda cannot be saved; use a named function such as jax\.nn\.relu"),
        (jax.jit(lambda x: x), r"flow\.inside: a lambda cannot be saved"),
        (local_function(), r"flow\.inside: the function inner, which cannot be imported by its name, cannot be saved"),
        ("text".upper, r"flow\.inside: the function upper, which cannot be imported by its name"),
        (Holder(1).method, r"flow\.inside: a bound method cannot be saved"),
        ([1, (2, {"a": {3}})], r"flow\.inside\[1\]\[1\]\['a'\]: a value of type set cannot be saved"),
        ({1: 2}, r"flow\.inside: a dict with keys other than strings cannot be saved"),
        (functools.partial(jnp.sum, axis=cast(int, object())), r"flow\.inside\.keywords\['axis'\]: a bare object\(\)"),
        (Holder, r"flow\.inside: a value of type .*Meta cannot be saved"),
        (np.array(["text"]), r"flow\.inside: an array of dtype <U4 cannot be saved"),
        (np.array([None]), r"flow\.inside: an array of dtype object cannot be saved"),
        (np.zeros(2).view(SubArray), r"flow\.inside: a SubArray cannot be saved"),
        (eqx.nn.BatchNorm(2, "a", mode="ema"), r"marker: a bare object\(\) .*make_with_state"),
        (save, r"flow\.inside: flowlib\.serialisation\.save has no name of its own in saved files"),
        (eqx.filter_jit(own_activation), r"flow\.inside: a value of type _JitWrapper"),
        (b"bytes", r"flow\.inside: a value of type bytes cannot be saved"),
    ],
)
def test_what_cannot_be_saved_fails_when_saved_and_is_named(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "file", Holder(value))
    assert not any(tmp_path.iterdir())


def test_a_lambda_deep_in_a_flow_is_named(tmp_path):
    net = network(lambda x: x)
    parts = bij.Invert(bij.Chain([bij.Exp((2,)), bij.Invert(bij.Exp((2,))), bij.AdditiveCondition(net, (2,), (3,))]))
    flow = dist.Transformed(dist.StandardNormal((2,)), parts)
    with pytest.raises(TypeError, match=r"^flow\.bijection\.bijection\.bijections\[2\]\.module\.activation: a lambda"):
        save(tmp_path / "file", flow)


def test_a_traced_flow_cannot_be_saved(tmp_path):
    @jax.jit
    def inside(x):
        save(tmp_path / "file", (x,))
        return x

    with pytest.raises(TypeError, match=r"flow\[0\]: a traced array cannot be saved; save outside jit"):
        inside(1.0)


# --- the user's own ----------------------------------------------------------------------------------------------


def test_own_classes_and_functions_are_handed_to_load(tmp_path):
    tree = (with_own_parts(), own_activation, own_jitted)
    save(tmp_path / "file", tree)
    listed = r"needs classes or functions of your own; pass load\(path, classes=\[OwnNet, OwnShift, "
    with pytest.raises(FileFormatError, match=listed + r"own_activation, own_jitted\]\)"):
        load(tmp_path / "file")
    with pytest.raises(FileFormatError, match=r"classes=\[OwnShift\]"):
        load(tmp_path / "file", classes=[OwnNet, own_activation, own_jitted])
    loaded = load(tmp_path / "file", classes=[OwnNet, OwnShift, own_activation, own_jitted, Holder])
    assert identical(loaded, tree)


def test_classes_are_checked(tmp_path):
    save(tmp_path / "file", 1)
    for wrong in (int, functools.partial(jnp.sum)):
        with pytest.raises(TypeError, match="expected Equinox module classes and functions"):
            load(tmp_path / "file", classes=[wrong])
    twin = type("OwnNet", (eqx.Module,), {})
    with pytest.raises(ValueError, match="two called OwnNet"):
        load(tmp_path / "file", classes=[OwnNet, twin])
    with pytest.raises(TypeError, match=r"flow\[1\]: two different classes or functions of the name user\.OwnNet"):
        save(tmp_path / "file", [OwnNet(jnp.ones(2), 1), twin()])


def test_a_class_with_other_fields_is_an_error_and_a_new_field_with_a_default_is_not(tmp_path):
    save(tmp_path / "file", OwnNet(jnp.ones(2), 1))

    def converted(value):
        return value + 1

    class Changed(eqx.Module):
        weight: jax.Array
        size: int

    class Grown(eqx.Module):
        weight: jax.Array
        width: int = eqx.field(static=True)
        depth: int = eqx.field(static=True, default=1, converter=converted)

    Changed.__name__ = Grown.__name__ = "OwnNet"
    with pytest.raises(FileFormatError, match=r"OwnNet has the fields \['weight', 'width'\], but in this version"):
        load(tmp_path / "file", classes=[Changed])
    grown = load(tmp_path / "file", classes=[Grown])
    assert identical(grown, Grown(jnp.ones(2), 1))
    assert grown.depth == 2


# --- the file ----------------------------------------------------------------------------------------------------


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing\. Create it first"):
        save(tmp_path / "missing" / "file", 1)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        save(tmp_path, 1)
    assert not any(tmp_path.iterdir())
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file.with.dots")
    save(tmp_path / "link", 1)
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real" / "file.with.dots") == 1


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save(tmp_path / "file", 1)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace", "numpy.lib.format.write_array"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    save(tmp_path / "file", jnp.ones(2))
    before = (tmp_path / "file").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "file", jnp.zeros(3))
    monkeypatch.undo()
    with pytest.raises(TypeError):
        save(tmp_path / "file", [jnp.zeros(3), object()])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == before


def load_bytes(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return load(path)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"hello, world", "it is no flowlib file"),
        (pickle.dumps({"a": 1}), "it is no flowlib file"),
        (b"\x93NUMPY" + bytes(100), "it is no flowlib file"),
        (b"PK\x03\x04" + bytes(100), "it is damaged"),
        (b"PK", "it is no flowlib file"),
    ],
)
def test_a_foreign_file_is_one_clear_error(tmp_path, content, cause):
    with pytest.raises(FileFormatError, match=rf"^Cannot load .*file: {cause}.*\.$"):
        load_bytes(tmp_path / "file", content)


def test_a_foreign_zip_archive_is_one_clear_error(tmp_path):
    np.savez(tmp_path / "arrays.npz", np.ones(2))
    with pytest.raises(FileFormatError, match="it is a zip archive, but no flowlib file"):
        load(tmp_path / "arrays.npz")


def small_tree() -> Any:
    return [dist.Transformed(dist.StandardNormal((2,)), bij.Affine(jnp.array([1.0, 2.0]))), jnp.arange(3), 1.5]


def test_truncation_anywhere_is_noticed(tmp_path):
    save(tmp_path / "whole", small_tree())
    whole = (tmp_path / "whole").read_bytes()
    for end in range(0, len(whole), 3):
        with pytest.raises(FileFormatError, match="Cannot load"):
            load_bytes(tmp_path / "file", whole[:end])


def test_a_flipped_byte_anywhere_is_noticed_or_harmless(tmp_path):
    tree = small_tree()
    save(tmp_path / "whole", tree)
    whole = (tmp_path / "whole").read_bytes()
    draw = random.Random(0)
    noticed = 0
    for position in range(0, len(whole), 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << draw.randrange(8)
        try:
            loaded = load_bytes(tmp_path / "file", bytes(damaged))
        except FileFormatError:
            noticed += 1
        else:
            assert identical(loaded, tree), f"byte {position} of {len(whole)}"
    assert noticed > 0.4 * len(whole)


def test_appended_and_removed_pieces_are_noticed_or_harmless(tmp_path):
    tree = small_tree()
    save(tmp_path / "whole", tree)
    whole = (tmp_path / "whole").read_bytes()
    draw = random.Random(1)
    for _ in range(300):
        start, length = draw.randrange(len(whole)), draw.randrange(1, 64)
        piece = whole[start : start + length]
        at = draw.randrange(len(whole))
        damaged = draw.choice([whole[:start] + whole[start + length :], whole[:at] + piece + whole[at:], whole + piece])
        try:
            loaded = load_bytes(tmp_path / "file", damaged)
        except FileFormatError:
            continue
        assert identical(loaded, tree)


# --- a hostile file: well-formed, its checksums right ------------------------------------------------------------


def forge(path: Path, tree: Any = None, *, members=None, **others) -> Path:
    """A file with any manifest and members."""
    manifest = {"format": "flowlib", "version": 1, "own": [], "arrays": [], "tree": tree} | others
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_a_newer_version_says_so(tmp_path):
    forge(tmp_path / "file", {"new": "thing"}, version=2, written_by="flowlib 9.9", members={"extra": "x"})
    with pytest.raises(FileFormatError, match=r"format version 2 \(written by flowlib 9\.9\).* up to 1\. Upgrade"):
        load(tmp_path / "file")


@pytest.mark.parametrize(
    ("tree", "cause"),
    [
        ({"module": ["os.system", {}]}, "names the class 'os.system', which this version of flowlib does not know"),
        ({"module": ["flowlib.Gone", {}]}, "names the class 'flowlib.Gone'"),
        ({"module": ["user.Own", {}]}, r"needs 'user\.Own'; pass it as load"),
        ({"module": [3, {}]}, "needs 3"),
        ({"module": ["flowlib.Exp", {"shape": {"tuple": []}, "__class__": 1}]}, "Exp has the fields"),
        ({"module": ["flowlib.Affine", {}]}, "Affine has the fields"),
        ({"module": ["flowlib.AbstractBijection", {}]}, "names the class 'flowlib.AbstractBijection'"),
        ({"module": ["flowlib.Exp"]}, "manifest is damaged"),
        ({"function": "jax.numpy.save"}, "names the function 'jax.numpy.save'"),
        ({"function": ["jax.nn.relu"]}, "manifest is damaged"),
        ({"partial": [3, [], {}]}, "manifest is damaged"),
        ({"object": 0}, "unknown kind 'object'"),
        ({"array": 0}, "manifest is damaged"),
        ({"array": "0"}, "manifest is damaged"),
        ({"key": [0, "no such"]}, "manifest is damaged"),
        ({"dtype": "V9"}, "manifest is damaged"),
        ({"type": "os.system"}, "manifest is damaged"),
        ({"tuple": 3}, "manifest is damaged"),
        ({"float": "zero"}, "manifest is damaged"),
        ({"slice": [1, 2, 3, 4]}, "manifest is damaged"),
        ({"struct": [1]}, "manifest is damaged"),
        ({"state": [[[]], [1]]}, "manifest is damaged"),
        ({}, "manifest is damaged"),
        ({"tuple": [], "dict": {}}, "manifest is damaged"),
    ],
)
def test_a_hostile_tree_is_refused(tmp_path, tree, cause):
    with pytest.raises(FileFormatError, match=cause):
        load(forge(tmp_path / "file", [tree]))


def test_deep_nesting_is_refused(tmp_path):
    for depth in (400, 30_000):
        tree = '{"tuple": [' * depth + "]}" * depth
        with zipfile.ZipFile(tmp_path / "file", "w") as archive:
            archive.writestr("manifest.json", f'{{"format":"flowlib","version":1,"own":[],"arrays":[],"tree":{tree}}}')
        with pytest.raises(FileFormatError, match="nested too deeply"):
            load(tmp_path / "file")


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        (["float32", [4]], npy(ONES)),
        (["float32", [3, 1]], npy(ONES)),
        (["float32", [-3]], npy(ONES)),
        (["float32", [10**12]], npy(ONES)),
        (["float32", "3"], npy(ONES)),
        (["int32", [3]], npy(ONES)),
        (["object", [3]], npy(ONES)),
        (["float32", [3]], npy(np.array([1, 2, 3], object))),
        (["float32", [3]], npy(ONES)[:-1]),
        (["float32", [3]], npy(ONES) + b"x"),
        (["float32", [3]], b"cos\nsystem\n(S'true'\ntR."),
        (["float32", [3]], b""),
        (["float32", [10**12]], npy(ONES).replace(b"(3,), }" + b" " * 11, b"(1000000000000,), }")[: len(npy(ONES))]),
        ("float32", npy(ONES)),
    ],
)
def test_an_array_that_is_not_what_the_manifest_says_is_refused(tmp_path, entry, content):
    with pytest.raises(FileFormatError, match="it is damaged"):
        load(forge(tmp_path / "file", {"array": 0}, arrays=[entry], members={"arrays/0.npy": content}))


def test_members_must_be_those_listed_and_uncompressed(tmp_path):
    entry = ["float32", [3]]
    with pytest.raises(FileFormatError, match="its members are not those"):
        load(forge(tmp_path / "file", {"array": 0}, arrays=[entry]))
    members = {"arrays/0.npy": npy(ONES), "../evil": "x"}
    with pytest.raises(FileFormatError, match="its members are not those"):
        load(forge(tmp_path / "file", {"array": 0}, arrays=[entry], members=members))
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", " " * 10**6)
    with pytest.raises(FileFormatError, match="a member is compressed"):
        load(tmp_path / "bomb")


def test_random_changes_of_a_manifest_end_in_one_kind_of_error(tmp_path):
    save(tmp_path / "whole", [small_tree(), jnp.asarray(1.0), np.float32(2), jr.key(0), slice(1, 2), jnp.float32])
    with zipfile.ZipFile(tmp_path / "whole") as archive:
        manifest = json.loads(archive.read("manifest.json"))
        members = {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}
    draw = random.Random(0)
    junk = [None, 0, -1, 1.5, "", "flowlib.Exp", "jax.nn.relu", [], [1], {}, {"tuple": []}, {"a": 1, "b": 2}, True]

    def mutate(node):
        if draw.random() < 0.02:
            return draw.choice(junk)
        if isinstance(node, dict):
            return {
                draw.choice(["tuple", "dict", key]) if draw.random() < 0.02 else key: mutate(node[key]) for key in node
            }
        return [mutate(item) for item in node] if isinstance(node, list) else node

    refused = 0
    for _ in range(300):
        changed = mutate(manifest)
        forge(tmp_path / "file", members=members, **(changed if isinstance(changed, dict) else {}))
        try:
            load(tmp_path / "file")
        except FileFormatError:
            refused += 1
    assert 50 < refused < 300


def test_loading_calls_nothing_that_the_file_names(tmp_path):
    # A function is referred to, and first called when the user unwraps the parameter.
    node = {"module": ["paramax.Parameterize", {"fn": {"function": "user.own_failing"}, "args": {"tuple": []}}]}
    node["module"][1]["kwargs"] = {"dict": {}}
    loaded = load(forge(tmp_path / "file", node, own=["user.own_failing"]), classes=[own_failing])
    with pytest.raises(RuntimeError, match="called"):
        paramax.unwrap(loaded)


def own_failing():
    raise RuntimeError("called")


# --- precision ---------------------------------------------------------------------------------------------------


def wide_file(path: Path, values: np.ndarray) -> Path:
    entry = [values.dtype.name, list(values.shape)]
    return forge(
        path, [{"array": 0}, {"array": 0}, {"numpy": 0}], arrays=[entry], members={"arrays/0.npy": npy(values)}
    )


@pytest.mark.skipif(X64, reason="64-bit arrays are kept in this run")
def test_wide_arrays_are_rounded_with_one_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"holds float64 arrays, rounded to 32 bits because jax_enable_x64") as record:
        loaded = load(wide_file(tmp_path / "file", np.array([0.1, 1e300])))
    assert len(record) == 1
    assert identical(loaded[0], jnp.array([0.1, jnp.inf], jnp.float32))
    assert loaded[2].dtype == np.float64
    with pytest.warns(UserWarning, match="int64"):
        assert load(wide_file(tmp_path / "file", np.array([1, -5])))[0].tolist() == [1, -5]
    with pytest.raises(FileFormatError, match="int64 values beyond 32 bits, and jax_enable_x64 is off"):
        load(wide_file(tmp_path / "file", np.array([2**40])))


@pytest.mark.skipif(not X64, reason="needs 64 bits")
def test_wide_arrays_stay_wide(tmp_path):
    save(tmp_path / "file", jnp.array([0.1, 1e300]))
    assert identical(load(tmp_path / "file"), jnp.array([0.1, 1e300]))
    assert load(wide_file(tmp_path / "file", np.array([2**40])))[0].tolist() == [2**40]


# --- pickles and copies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_flow_pickles(key, protocol):
    flow = make_flow(key)
    assert identical(pickle.loads(pickle.dumps(flow, protocol)), flow)


def test_a_flow_copies(key):
    flow = make_flow(key)
    shallow, deep = copy.copy(flow), copy.deepcopy(flow)
    assert identical(shallow, flow)
    assert identical(deep, flow)
    assert shallow is not flow
    assert shallow.bijection.bijections[1].loc.tree is flow.bijection.bijections[1].loc.tree
    assert copy.deepcopy([flow, {"a": flow}])[1]["a"] is not flow


def test_own_classes_and_functions_pickle_by_reference():
    net = network(own_activation, own_jitted)
    flow = bij.Chain([OwnShift(jnp.ones(2)), bij.AdditiveCondition(net, (2,), (3,))])
    again: Any
    for again in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), copy.copy(flow)):
        assert identical(again, flow)
        assert again.bijections[1].module.final_activation is own_jitted
    # What a file cannot hold is left to pickle.
    odd = bij.AdditiveCondition(eqx.nn.Lambda(cast(Any, Holder({1, 2}))), (2,), (3,))
    assert pickle.loads(pickle.dumps(odd)).module.fn.inside == {1, 2}
    odd = bij.AdditiveCondition(eqx.nn.Lambda(cast(Any, Holder((eqx.filter_jit(own_activation), {1: 2})))), (2,), (3,))
    assert copy.deepcopy(odd).module.fn.inside[1] == {1: 2}


def test_a_lambda_copies_but_does_not_pickle():
    flow = bij.AdditiveCondition(network(lambda x: x), (2,), (3,))
    assert identical(copy.deepcopy(flow), flow)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(flow)


@pytest.mark.parametrize("tag", ["numpy", "array", "key"])
def test_an_array_that_is_named_many_times_is_there_once(tmp_path, tag):
    data = np.zeros((100_000, 2), np.uint32)
    entry = {tag: [0, "threefry2x32"] if tag == "key" else 0}
    path = forge(
        tmp_path / "file", [entry] * 3000, arrays=[["uint32", [100_000, 2]]], members={"arrays/0.npy": npy(data)}
    )
    tracemalloc.start()
    loaded = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(loaded) == 3000
    assert peak < 20 * path.stat().st_size
    assert len({id(leaf) for leaf in loaded}) == 1
