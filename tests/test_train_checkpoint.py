"""Files of checkpoints: bit for bit, whole or passed over, and refused where they are of another fit."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

from flowlib.errors import CheckpointError, CheckpointMismatchError, CheckpointWarning
from flowlib.train import _checkpoint
from flowlib.train._checkpoint import Checkpoints
from flowlib.train._state import initial_state
from train_tools import gaussian, halves

SETTINGS = {"x": "float32[100,2] 0123456789abcdef", "batch_size": "64"}


def checkpoints(directory, keep=3, **changes):
    return Checkpoints(directory, keep=keep, settings=SETTINGS | changes)


def bits(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jr.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_same_bits(tree, other):
    assert jtu.tree_structure(tree) == jtu.tree_structure(other)
    for a, b in zip(jtu.tree_leaves(tree), jtu.tree_leaves(other), strict=True):
        assert isinstance(b, jax.Array)
        assert (a.dtype, a.shape, bits(a)) == (b.dtype, b.shape, bits(b))


def odd_tree():
    nans = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 1], np.uint32).view(np.float32)
    return {
        # First, so that what follows is not aligned.
        "bool": jnp.array([True, False, True]),
        "bfloat16": jnp.array([1.5, -0.0, jnp.nan, jnp.inf], jnp.bfloat16),
        "none": None,
        "nan payloads": jnp.asarray(nans),
        "float8": jnp.arange(3, dtype=jnp.float8_e4m3fn),
        "int4": jnp.array([-8, 7, 1], jnp.int4),
        "default float": jnp.array([math.pi, 5e-324]),
        "complex": jnp.array([1 + 2j]),
        "0-d": (jnp.asarray(3), jnp.asarray(0.1, jnp.float16)),
        "empty": [jnp.zeros((0, 3)), jnp.zeros((2, 0), jnp.int8)],
        "keys": [jr.key(7), jr.split(jr.key(1, impl="rbg"), 3), jr.PRNGKey(2)],
        "transposed": jnp.arange(6.0).reshape(2, 3).T,
        "last": jnp.zeros((0,), jnp.uint16),
    }


def numbers_in(directory):
    return sorted(int(path.name[4:12]) for path in directory.glob("fit-*.ckpt"))


def latest(directory):
    return max(directory.glob("fit-*.ckpt"))


def fill(directory, numbers=(1, 2, 3), **kwargs):
    files = checkpoints(directory, **kwargs)
    for number in numbers:
        files.save(number, {"a": jnp.full(5, number)}, {"number": number})
    return files


SKELETON = {"a": jax.ShapeDtypeStruct((5,), jnp.asarray(1).dtype)}


@pytest.mark.parametrize("abstract", [False, True])
def test_odd_trees_come_back_bit_for_bit(tmp_path, abstract):
    tree = odd_tree()
    checkpoints(tmp_path).save(12, tree, {})
    assert [path.name for path in tmp_path.iterdir()] == ["fit-00000012.ckpt"]
    skeleton = jax.eval_shape(lambda: tree) if abstract else jax.tree.map(jnp.zeros_like, tree)
    found = checkpoints(tmp_path).load(skeleton)
    assert found is not None
    assert found[0] == 12
    assert_same_bits(tree, found[1])


def test_records_come_back_exactly(tmp_path):
    values = [0.1, 1 / 3, 5e-324, -0.0, math.inf, -math.inf, 1e300, *np.random.default_rng(0).normal(size=100).tolist()]
    record = {"losses": {"train": values, "val": []}, "nan": math.nan, "text": "ü\n", "none": None, "epoch": 3}
    checkpoints(tmp_path).save(1, {}, record)
    found = checkpoints(tmp_path).load({})
    assert found is not None
    assert repr(found[2]) == repr(record)


def test_the_state_of_a_fit_comes_back_and_can_be_donated(tmp_path, key):
    state = initial_state(key, halves(gaussian())[0], optax.adam(0.1), follow_best=True)
    checkpoints(tmp_path).save(1, state, {})
    found = checkpoints(tmp_path).load(state)
    assert found is not None
    assert_same_bits(state, found[1])
    moved = jax.jit(lambda s: jax.tree.map(jnp.copy, s), donate_argnums=0)(found[1])
    assert_same_bits(state, moved)
    again = checkpoints(tmp_path).load(state)
    assert again is not None
    assert_same_bits(state, again[1])


def test_an_empty_or_new_directory_has_none(tmp_path):
    directory = tmp_path / "a" / "b"
    assert checkpoints(directory).load({}) is None
    assert list(directory.iterdir()) == []
    (directory / "notes.txt").write_text("of the user's own")
    (directory / "fit-best.ckpt").write_text("of the user's own")
    assert fill(directory, range(9)).load(SKELETON)
    assert {"notes.txt", "fit-best.ckpt"} < {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(tmp_path, keep):
    fill(tmp_path, [1, 2, 5, 9, 20], keep=keep)
    assert numbers_in(tmp_path) == [1, 2, 5, 9, 20][-keep:]


def test_a_saved_file_is_never_deleted_for_older_ones_of_higher_numbers(tmp_path):
    fill(tmp_path, [7, 8, 9])
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    fill(tmp_path, [1], keep=1)
    assert numbers_in(tmp_path) == [1]


def test_nine_digits_are_newer_than_eight(tmp_path):
    found = fill(tmp_path, [99_999_999, 100_000_000]).load(SKELETON)
    assert found is not None
    assert found[0] == 100_000_000


def test_torn_files_are_passed_over_with_one_warning(tmp_path):
    files = fill(tmp_path)
    path = latest(tmp_path)
    whole = path.read_bytes()
    lines = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in sorted({0, 1, 20, lines[0] - 1, *lines[:2], len(whole) // 2, len(whole) - 5, len(whole) - 1}):
        path.write_bytes(whole[:length])
        with pytest.warns(CheckpointWarning, match=r"fit-00000002\.ckpt is used: fit-00000003\.ckpt\.$"):
            found = files.load(SKELETON)
        assert found is not None
        assert (found[0], found[2]) == (2, {"number": 2})
        np.testing.assert_array_equal(found[1]["a"], 2)
    path.write_bytes(whole + b"\0")
    latest(tmp_path).with_name("fit-00000002.ckpt").write_bytes(bytes(1000))
    with pytest.warns(CheckpointWarning, match=r"ckpt is used: fit-00000003\.ckpt, fit-00000002\.ckpt\.$"):
        found = files.load(SKELETON)
    assert found is not None
    assert found[0] == 1


def test_every_flipped_byte_is_recognised(tmp_path):
    files = fill(tmp_path, [1])
    path = latest(tmp_path)
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        with pytest.warns(CheckpointWarning, match=r"the fit begins anew: fit-00000001\.ckpt\.$"):
            assert files.load(SKELETON) is None


def test_another_fit_is_refused_with_what_differs(tmp_path):
    fill(tmp_path)
    other = checkpoints(tmp_path, batch_size="100", key="key<fry>[] 00")
    pattern = (
        r"^The checkpoint .*fit-00000003\.ckpt is of another fit: batch_size is 100 and was 64; "
        r"key is key<fry>\[\] 00 and was absent\. Use another directory, or delete .*fit-\*\.ckpt to begin anew\.$"
    )
    with pytest.raises(CheckpointMismatchError, match=pattern) as caught:
        other.load({"another": "tree"})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CheckpointError)
    with pytest.raises(CheckpointMismatchError, match="batch_size is absent and was 64"):
        Checkpoints(tmp_path, settings={"x": SETTINGS["x"]}).load(SKELETON)


@pytest.mark.parametrize(
    ("skeleton", "message"),
    [
        ({"a": jnp.zeros((4, 1), jnp.int8)}, r"\['a'\] is int8\[4,1\] and was int(32|64)\[5\]"),
        ({"b": jnp.zeros(5)}, r"the state has \['b'\] where the checkpoint has \['a'\]"),
        ({"a": None}, r"the checkpoint alone has \['a'\]"),
        ({**SKELETON, "b": jnp.zeros(2)}, r"the state alone has \['b'\]"),
        ({"a": jr.split(jr.key(0), 5)}, r"\['a'\] is key<fry>\[5\] and was int"),
    ],
)
def test_another_state_is_refused_by_the_name_of_the_leaf(tmp_path, skeleton, message):
    files = fill(tmp_path, [1])
    with pytest.raises(CheckpointMismatchError, match=message):
        files.load(skeleton)


def test_keys_of_another_generator_are_refused(tmp_path):
    checkpoints(tmp_path).save(1, jr.key(0), {})
    with pytest.raises(CheckpointMismatchError, match=r"the tree is key<rbg>\[\] and was key<fry>\[\]"):
        checkpoints(tmp_path).load(jr.key(0, impl="rbg"))


def test_what_cannot_be_saved_is_refused(tmp_path):
    files = checkpoints(tmp_path)
    with pytest.raises(TypeError, match=r"\['rate'\] must be a JAX array to be in a checkpoint, got float"):
        files.save(1, {"rate": 0.5}, {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.save(1, {}, {"x": np.float32(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_an_error(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_checkpoint, "VERSION", 2)
        fill(tmp_path)
    with pytest.raises(CheckpointError, match=r"has format version 2 .* reads versions up to 1\. Upgrade flowlib"):
        checkpoints(tmp_path).load(SKELETON)


def test_the_header_can_be_read_by_eye(tmp_path):
    fill(tmp_path, [1])
    _, header, _ = latest(tmp_path).read_bytes().split(b"\n", 2)
    assert json.loads(header)["settings"] == SETTINGS


def test_a_path_that_cannot_be_a_directory_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match=r"Cannot keep checkpoints in .*file.* is a file.* another directory"):
            checkpoints(path)


def test_a_directory_that_cannot_be_written_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", failing(errno.EROFS))
    with pytest.raises(CheckpointError, match=f"Cannot keep .*{tmp_path.name}: {os.strerror(errno.EROFS)}"):
        checkpoints(tmp_path)


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch, function, error):
    files = fill(tmp_path)

    def fail(*args):
        raise error

    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(expected) as caught:
            files.save(4, {"a": jnp.zeros(5)}, {})
    if isinstance(error, OSError):
        assert f"{tmp_path / 'fit-00000004.ckpt'}: No space left on device. Check" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"fit-0000000{i}.ckpt" for i in (1, 2, 3)]
    found = files.load(SKELETON)
    assert found is not None
    assert found[0] == 3


def test_a_file_that_cannot_be_read_is_an_error_and_not_passed_over(tmp_path, monkeypatch):
    files = fill(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EACCES))
    with pytest.raises(CheckpointError, match=r"Cannot read the checkpoint .*00003\.ckpt: Permission denied"):
        files.load(SKELETON)


def test_what_an_interrupted_save_left_is_removed(tmp_path):
    (tmp_path / ".fit-0123.tmp").write_text("half")
    (tmp_path / ".other.tmp").write_text("of the user's own")
    checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".other.tmp"]


# A process that imports once, and then forks one that saves for ever at each line of input.
SAVES_FOR_EVER = """
import os, sys
import jax.numpy as jnp
from flowlib.train._checkpoint import Checkpoints

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        files, start = Checkpoints(sys.argv[1], keep=2, settings={}), int(line)
        tree = {"a": jnp.zeros(50_000)}
        while True:
            start += 1
            files.save(start, {"a": tree["a"] + start}, {"number": start})
            # In one piece, or not at all.
            os.write(1, b"%d\\n" % start)
    print("pid", pid, flush=True)
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_whatever_the_moment_a_process_is_killed_the_last_checkpoint_loads(tmp_path):
    rng, last = random.Random(0), 0
    skeleton = {"a": jax.ShapeDtypeStruct((50_000,), jnp.zeros(()).dtype)}
    command = [sys.executable, "-W", "ignore", "-c", SAVES_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(10):
            process.stdin.write(f"{last}\n")
            process.stdin.flush()
            seen, pid, reported = set(), 0, last
            # Once it has saved a file, after a time that is random.
            while not (pid and seen):
                word, *rest = process.stdout.readline().split()
                if word == "pid":
                    pid = int(rest[0])
                else:
                    seen.add(int(word))
            time.sleep(rng.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            while (line := process.stdout.readline()) != "dead\n":
                seen.add(int(line))
            reported = max(seen)
            # Without a warning: no file is torn.
            found = Checkpoints(tmp_path, keep=2, settings={}).load(skeleton)
            assert found is not None
            last, tree, record = found
            assert reported <= last <= reported + 1
            assert record == {"number": last}
            np.testing.assert_array_equal(tree["a"], last)
            assert len(list(tmp_path.iterdir())) <= 3
        process.stdin.close()
