"""Fits on a mesh: on eight devices of one process and on two processes, they are fits on one device to rounding."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from flowlib.train import fit_to_data
from train_tools import gaussian

# One worker runs them all, and starts the processes once.
pytestmark = pytest.mark.xdist_group("mesh")

X64 = bool(jax.config.read("jax_enable_x64"))
RTOL = 1e-9 if X64 else 1e-4
KINDS = ["rows", "plain loss", "stream", "file", "wide"]
CHILD = Path(__file__).parent / "mesh_children.py"


def found_by(folder, *commands):
    """What child processes with such arguments find, all at the same time."""
    environment = os.environ | {"JAX_ENABLE_X64": str(int(X64))}
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(CHILD), *command, str(folder)],
                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )
            )
            for command in commands
        ]  # fmt: skip
        for child in children:
            stack.callback(child.kill)
        outputs = [child.communicate(timeout=600)[0] for child in children]
    assert all(child.returncode == 0 for child in children), "\n\n".join(outputs)
    names = ["eight" if len(command) == 1 else command[1] for command in commands]
    return [json.loads((folder / f"found-{name}.json").read_text()) for name in names]


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    (found,) = found_by(tmp_path_factory.mktemp("eight"), ["eight"])
    return found


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(pair_folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    return found_by(pair_folder, ["pair", "0", port], ["pair", "1", port])


def assert_equal_to_rounding(a, b):
    np.testing.assert_allclose(a["losses"], b["losses"], rtol=RTOL)
    np.testing.assert_allclose(a["parameters"], b["parameters"], rtol=0, atol=10 * RTOL)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_devices_give_what_one_gives(eight, kind):
    assert_equal_to_rounding(eight["mesh"][kind], eight["one"][kind])


def test_explicit_axes_and_a_mesh_that_is_set_change_nothing(eight):
    assert_equal_to_rounding(eight["explicit"], eight["mesh"]["rows"])
    assert_equal_to_rounding(eight["set"], eight["mesh"]["rows"])


def test_a_batch_is_divided_among_the_devices(eight):
    # (rows of the batch, rows on one device); the last batch, of a plain loss, cannot be divided.
    assert eight["shards of rows"] == [[28, 28], [32, 4]]
    assert eight["shards of stream"] == [[28, 28], [32, 4]]


def test_wide_parameters_are_divided_and_stay_so(eight):
    # Of the parameters, the best ones and both moments of Adam; a layer more on the first axis.
    assert eight["shards of parameters"] == [[[1, 256, 256], [1, 128, 256]]]
    assert eight["shards returned"] == [[1, 128, 256]]
    assert eight["log_prob of what is returned"] == eight["of a snapshot"] == [1]


def test_what_is_returned_is_on_one_device_where_it_is_not_divided(eight):
    assert eight["devices"] == [1]


def test_an_equal_mesh_built_anew_compiles_nothing(eight):
    assert eight["compiled"] == 0


def test_a_fit_goes_on_from_its_checkpoint_also_on_other_devices(eight):
    whole = eight["mesh"]["rows"]["losses"]
    assert eight["resumed"]["losses"] == whole[:2] + whole[3:5]
    assert_equal_to_rounding(eight["resumed elsewhere"], eight["mesh"]["rows"])


def test_a_fit_that_fails_warns_and_returns(eight):
    assert eight["failure"] == ["NonFiniteWarning"]


def test_batches_that_cannot_be_divided_are_named(eight):
    assert "batch_size=100 cannot be divided among the 8 parts" in eight["indivisible"]
    assert "such as 104" in eight["indivisible"]
    assert "Batches of 30 rows cannot be divided among the 8 parts" in eight["indivisible stream"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_agree_and_give_what_one_gives(eight, pair, kind):
    assert pair[0][kind] == pair[1][kind]
    assert_equal_to_rounding(pair[0][kind], eight["one"][kind])


def test_each_process_has_all_of_a_divided_parameter(pair):
    assert pair[0]["log_prob of what is returned"] == pair[1]["log_prob of what is returned"] == [1]


def test_a_process_can_fit_on_its_own_devices(eight, pair):
    for found in pair:
        assert_equal_to_rounding(found["own"], eight["one"]["rows"])


def test_processes_share_checkpoints(eight, pair, pair_folder):
    assert pair[0]["resumed"] == pair[1]["resumed"]
    np.testing.assert_allclose(pair[0]["resumed"]["losses"], eight["one"]["stream"]["losses"][:3], rtol=RTOL)
    assert len(list((pair_folder / "checkpoints").iterdir())) == 3
    for found in pair:
        assert found["no checkpoint"].startswith("CheckpointError")


def test_a_wish_of_one_process_to_stop_stops_all(pair):
    assert [found["stopped"] for found in pair] == ["callback", "callback"]


def test_what_differs_between_processes_ends_all_of_them(pair):
    for found in pair:
        assert "as many batches of as many rows in every process, got (3, 32) and (4, 32)" in found["uneven"]
        assert found["keys"] == "ValueError: Every process must be given the same key."
        assert "the other axes may not cross processes" in found["crossing"]
    assert "failed in process 1" in pair[0]["failure"]
    assert pair[1]["failure"] == "OSError: a disk"


@pytest.mark.parametrize(
    ("mesh", "error", "match"),
    [
        (jax.devices(), TypeError, "mesh must be a jax.sharding.Mesh of devices, got list"),
        (Mesh(np.array(jax.devices()[:1]), ("model",)), ValueError, "an axis for the rows of a batch"),
    ],
)
def test_what_is_no_mesh_for_a_fit_is_refused(key, unchecked_annotations, mesh, error, match):
    with pytest.raises(error, match=match):
        fit_to_data(key, gaussian(), np.zeros((10, 2)), mesh=mesh)
