"""Checkpoints that no fit wrote, with a checksum that is right."""

import json

import numpy as np
import pytest

from flowlib.errors import CheckpointError
from flowlib.train import fit_to_data
from flowlib.train._checkpoint import _seal
from train_tools import gaussian

ROWS = np.random.default_rng(0).normal(size=(20, 2))


def fit(key, path):
    return fit_to_data(key, gaussian(), ROWS, checkpoint=path, max_epochs=2, show_progress=False)


def changed(header, *path_and_value):
    *path, last, value = path_and_value
    part = header
    for name in path:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return header


CHANGES = [
    *((name, value) for name in ("version", "settings", "leaves", "record") for value in (..., None, 3, "x", [], {})),
    *(("leaves", 0, name, value) for name in ("path", "dtype", "shape") for value in (..., None, 3, [{}])),
    ("settings", "key", [1]),
    ("settings", "key", {"a": 1}),
    ("record", "train", ["a", "b"]),
    ("record", "train", [None, 1.0]),
    ("record", "train", [1.0]),
    ("record", "train", ...),
]


def test_a_header_that_no_fit_wrote_is_a_checkpoint_error(key, tmp_path):
    fit(key, tmp_path)
    (path,) = tmp_path.glob("*.ckpt")
    _, header, payload = path.read_bytes().split(b"\n", 2)
    bodies = [json.dumps(changed(json.loads(header), *change)).encode() + b"\n" + payload for change in CHANGES]
    bodies += [b"[" * 100_000 + b"\n", b"", b"no JSON\n", b"\xff\xfe\n", b"[]\n", b"3", header + b"\n", header]
    bodies.append(json.dumps(changed(json.loads(header), "leaves", [{}] * 3)).encode() + b"\n" + payload)
    for body in bodies:
        path.write_bytes(_seal([body]) + body)
        with pytest.raises(CheckpointError):
            fit(key, tmp_path)
