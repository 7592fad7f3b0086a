"""What the tests of meshes run in processes of their own: `python mesh_children.py (eight | pair RANK PORT) FOLDER`.

Writes what it finds as JSON; the tests judge it.
"""

import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

PAIR = sys.argv[1] == "pair"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={2 if PAIR else 8}"
warnings.simplefilter("error")

from jaxtyping import install_import_hook

install_import_hook("flowlib", "typechecker.check")

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import AxisType, Mesh

from flowlib.distributions import StandardNormal
from flowlib.errors import NonFiniteWarning
from flowlib.flows import coupling_flow
from flowlib.train import fit_to_data
from train_tools import gaussian, mean_loss

# 188 rows: 19 for validation, 169 for training in batches of 32, the last one of 9.
ROWS, BATCH = 188, 32
X = np.random.default_rng(0).normal(size=(ROWS, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]]) + 1
VAL = [(X[:24],), (X[24:32],)]
FIT = {"show_progress": False, "batch_size": BATCH, "learning_rate": 0.05, "max_epochs": 3}


def batches(rank=0, processes=1):
    """Batches of 32, 32, 32, 32, 32 and 28 rows, or the part of each that one of two processes has."""
    parts = [np.array_split(X[start : start + BATCH], processes)[rank] for start in range(0, ROWS, BATCH)]
    return [(part,) for part in parts]


def file_of_rows(folder):
    """The rows as a memory-mapped file, and weights of them."""
    path = folder / "rows.npy"
    if not path.exists():
        # Whole when it gets its name: another process may look.
        own = folder / f"rows-{os.getpid()}.npy"
        np.save(own, X)
        own.replace(path)
    return np.load(path, mmap_mode="r"), np.linspace(0, 2, ROWS)


def wide_flow():
    """A flow whose conditioner has a weight matrix of 256 by 256 numbers."""
    return coupling_flow(jr.key(1), base_dist=StandardNormal((2,)), flow_layers=1, nn_width=256, nn_depth=2)


def numbers(fit):
    """The losses and the parameters of a fit."""
    fitted, losses = fit
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(eqx.filter(fitted, eqx.is_inexact_array))]
    return {"losses": losses["train"] + losses["val"], "parameters": np.concatenate(leaves).tolist()}


def on_one_device(folder):
    """The fits that those on a mesh are compared with."""
    file, weights = file_of_rows(folder)
    fit = partial(fit_to_data, jr.key(0), **FIT)
    return {
        "rows": numbers(fit(gaussian(), X)),
        "plain loss": numbers(fit(gaussian(), X, loss_fn=mean_loss)),
        "stream": numbers(fit(gaussian(), batches(), val_data=VAL)),
        "file": numbers(fit(gaussian(), file, weights=weights)),
        "wide": numbers(fit(wide_flow(), X)),
    }


def message_of(action):
    """The class and message of an exception."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


class Shards:
    """A loss that notes how many rows of a batch a device has."""

    def __init__(self):
        self.rows = set()

    def __call__(self, params, static, x, key):
        jax.debug.inspect_array_sharding(x, callback=lambda s: self.rows.add((len(x), s.shard_shape(x.shape)[0])))
        return mean_loss(params, static, x, key=key)


def shards_of(fit, **kwargs):
    loss = Shards()
    # A program from the cache is not looked at again.
    jax.config.update("jax_enable_compilation_cache", False)
    fit(loss_fn=loss, **kwargs)
    jax.config.update("jax_enable_compilation_cache", True)
    return sorted(loss.rows)


def eight(folder):
    """Eight devices of one process."""
    devices = np.array(jax.devices())
    fit = partial(fit_to_data, jr.key(0), **FIT)
    automatic = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    explicit = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    square = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    file, weights = file_of_rows(folder)
    found: dict[str, Any] = {"one": on_one_device(folder), "mesh": {}}
    rows = fit(gaussian(), X, mesh=automatic)
    found["mesh"]["rows"] = numbers(rows)
    found["mesh"]["plain loss"] = numbers(fit(gaussian(), X, mesh=automatic, loss_fn=mean_loss))
    found["mesh"]["stream"] = numbers(fit(gaussian(), batches(), val_data=VAL, mesh=explicit))
    found["mesh"]["file"] = numbers(fit(gaussian(), file, weights=weights, mesh=automatic))
    found["explicit"] = numbers(fit(gaussian(), X, mesh=explicit))
    with jax.set_mesh(explicit):
        found["set"] = numbers(fit(gaussian(), X, mesh=explicit))
    found["devices"] = sorted({len(leaf.devices()) for leaf in jax.tree.leaves(eqx.filter(rows[0], eqx.is_array))})

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "compile/backend" in event else None
    )
    fit(gaussian(), X, mesh=Mesh(devices, ("data",)))
    found["compiled"] = len(compiled)

    found["shards of rows"] = shards_of(partial(fit, gaussian(), X, mesh=automatic, val_prop=0))
    found["shards of stream"] = shards_of(partial(fit, gaussian(), batches(), mesh=automatic))

    def note(snapshot):
        leaves = jax.tree.leaves((snapshot.state.params, snapshot.state.opt_state, snapshot.state.best_params))
        found["shards of parameters"] = sorted(
            {(leaf.shape, leaf.addressable_shards[0].data.shape) for leaf in leaves if leaf.size == 2**16}
        )
        found["of a snapshot"] = snapshot.current().log_prob(jnp.asarray(X[:1], float)).shape

    wide = fit(wide_flow(), X, mesh=square, callbacks=note)
    found["mesh"]["wide"] = numbers(wide)
    shards = [leaf for leaf in jax.tree.leaves(wide[0]) if eqx.is_array(leaf) and leaf.size == 2**16]
    found["shards returned"] = [leaf.addressable_shards[0].data.shape for leaf in shards]
    found["log_prob of what is returned"] = wide[0].log_prob(jnp.asarray(X[:1], float)).shape
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NonFiniteWarning)
        fit(wide_flow(), X, mesh=square, learning_rate=float(jnp.finfo(jnp.zeros(()).dtype).max) / 10)
    found["failure"] = [type(warning.message).__name__ for warning in caught]

    save = partial(fit, gaussian(), X, checkpoint=folder / "checkpoints", checkpoint_every=1)
    save(mesh=automatic, max_epochs=1)
    found["resumed"] = numbers(save(mesh=automatic, max_epochs=2))
    # The third epoch on one device.
    found["resumed elsewhere"] = numbers(save())
    found["indivisible"] = message_of(lambda: fit(gaussian(), X, mesh=automatic, batch_size=100))
    found["indivisible stream"] = message_of(lambda: fit(gaussian(), [(X[:30],)], mesh=automatic))
    return found


def pair(folder, rank, port):
    """One of two processes with two devices each."""
    jax.distributed.initialize(f"localhost:{port}", 2, rank)
    devices = np.array(jax.devices())
    mesh = Mesh(devices, ("data",))
    fit = partial(fit_to_data, jr.key(0), **FIT)
    file, weights = file_of_rows(folder)
    found: dict[str, Any] = {"rows": numbers(fit(gaussian(), X, mesh=mesh))}
    found["plain loss"] = numbers(fit(gaussian(), X, mesh=mesh, loss_fn=mean_loss))
    found["file"] = numbers(fit(gaussian(), file, weights=weights, mesh=mesh))
    own_val = [(part[0][rank::2],) for part in VAL]
    found["stream"] = numbers(fit(gaussian(), batches(rank, 2), val_data=own_val, mesh=mesh))
    # The parts of a parameter are in different processes.
    crossing = Mesh(devices.reshape(2, 2).T, ("data", "model"))
    wide = fit(wide_flow(), X, mesh=crossing)
    found["wide"] = numbers(wide)
    found["log_prob of what is returned"] = wide[0].log_prob(jnp.asarray(X[:1], float)).shape
    found["own"] = numbers(fit(gaussian(), X, mesh=Mesh(np.array(jax.local_devices()), ("data",))))

    save = partial(fit, gaussian(), batches(rank, 2), mesh=mesh, checkpoint=folder / "checkpoints", checkpoint_every=1)
    save(max_epochs=1)
    found["resumed"] = numbers(save(val_data=None))
    found["no checkpoint"] = message_of(lambda: save(checkpoint=folder / f"of process {rank}", max_epochs=4))
    stopped = fit(gaussian(), X, mesh=mesh, max_epochs=1000, callbacks=lambda _: rank == 1)
    found["stopped"] = stopped[1].report.stopped

    epochs = iter([3, 3 + rank])
    found["uneven"] = message_of(lambda: fit(gaussian(), lambda: batches(rank, 2)[: next(epochs)], mesh=mesh))

    def fails():
        yield from batches(rank, 2)[:2]
        if rank == 1:
            raise OSError("a disk")

    found["failure"] = message_of(lambda: fit(gaussian(), fails, mesh=mesh))
    found["keys"] = message_of(lambda: fit_to_data(jr.key(rank), gaussian(), X, mesh=mesh, **FIT))
    found["crossing"] = message_of(lambda: fit(gaussian(), batches(rank, 2), mesh=crossing))
    return found


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    to = Path(sys.argv[-1])
    result = pair(to, int(sys.argv[2]), sys.argv[3]) if PAIR else eight(to)
    (to / f"found-{sys.argv[2] if PAIR else 'eight'}.json").write_text(json.dumps(result))
