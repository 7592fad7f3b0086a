"""Fits on many devices: what of a fit lies where on a mesh. XLA then divides the work and exchanges the gradients."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from flowlib.train._processes import ALONE, Processes, on_host
from flowlib.train._state import TrainState

# Numbers in an array that is worth dividing among devices.
_WIDE = 2**16


@dataclass(frozen=True)
class Layout:
    """What lies where; a value, that compiled code can be told apart by.

    Attributes:
        mesh: with axes that XLA takes care of, whatever the user's are.
        rows: the axis along which the rows of a batch are divided.
        columns: the axis along which wide parameters are divided, or None. All else is on every device.
    """

    mesh: Mesh
    rows: Any
    columns: Any

    @property
    def parts(self) -> int:
        """How many parts a batch has."""
        return self.mesh.shape[self.rows]

    @cached_property
    def processes(self) -> Processes:
        """The processes that have the devices."""
        owners = {device.process_index for device in self.mesh.devices.flat}
        return ALONE if len(owners) == 1 else Processes(len(owners), jax.process_index())

    @cached_property
    def own_parts(self) -> int:
        """How many parts of a batch this process gives.

        Raises:
            ValueError: if a part is divided among processes, or they have different numbers of them.
        """
        if self.processes.count == 1:
            return self.parts
        devices = np.moveaxis(self.mesh.devices, self.mesh.axis_names.index(self.rows), 0)
        owners = [{device.process_index for device in part.flat} for part in devices.reshape(self.parts, -1)]
        numbers = [sum(index in part for part in owners) for index in range(self.processes.count)]
        if any(len(part) > 1 for part in owners) or len(set(numbers)) > 1:
            raise ValueError(
                f"mesh expected, for a stream, whole parts of its axis {self.rows!r} in each process and as many in "
                f"each: the other axes may not cross processes."
            )
        return numbers[self.processes.index]

    def check_stream(self, rows: int) -> None:
        """Raise a ValueError unless batches of which this process gives so many rows can be divided evenly."""
        if rows % self.own_parts:
            raise ValueError(
                f"Batches of {rows} rows cannot be divided among the {self.own_parts} parts of the mesh's axis "
                f"{self.rows!r} {'that this process has' if self.processes.count > 1 else 'that there are'}."
            )

    def rows_of(self, most: int, rows: int, fills_up: bool) -> int:
        """The rows that a batch is to have in each process, where one has `most` and this one has `rows`.

        Raises:
            ValueError: if the batch cannot be divided.
        """
        parts = self.own_parts
        if fills_up:
            return -(-most // parts) * parts
        if self.processes.count > 1 and (rows % parts or rows < most):
            raise ValueError(
                f"A batch with {rows} rows cannot be divided among the {parts} parts of the mesh's axis {self.rows!r} "
                f"that this process has: only a loss by row, an AbstractRowLoss, lets it be filled up."
            )
        return most

    # Within a compiled function.

    def split(self, batch: Array) -> Array:
        """A batch with its rows divided, where they can be."""
        return (
            jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, P(self.rows)))
            if len(batch) % self.parts == 0
            else batch
        )

    def settled(self, tree: Any) -> Any:
        """The same values, wide arrays divided and all others on every device."""
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, self._of(leaf)) if eqx.is_array(leaf) else leaf, tree
        )

    # Outside of one.

    def placed(self, tree: Any) -> Any:
        """As `settled`, for arrays that are elsewhere."""
        return jax.tree.map(lambda leaf: put(leaf, self._of(leaf)) if eqx.is_array(leaf) else leaf, tree)

    def replicated(self, tree: Any) -> Any:
        """All arrays, JAX's and NumPy's, on every device."""
        everywhere = NamedSharding(self.mesh, P())
        return jax.tree.map(
            lambda leaf: put(leaf, everywhere) if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree
        )

    def batches(self, array: np.ndarray) -> Array:
        """Batches, on the first axis, with their rows divided where they can be; the processes give a part of each."""
        room, size, *rest = array.shape
        sharding = NamedSharding(self.mesh, P(None, self.rows) if size % self.own_parts == 0 else P())
        shape = (room, size * self.processes.count, *rest)
        return jax.make_array_from_process_local_data(sharding, array, shape)

    def own(self, state: TrainState) -> TrainState:
        """The state with parameters that belong to this process alone.

        Those that are divided stay so, among its devices. The others are on its default device.
        """

        def own(leaf):
            sharding = self._of(leaf)
            if sharding.is_fully_replicated:
                return jnp.asarray(np.asarray(leaf))
            if sharding.is_fully_addressable:
                return leaf
            return jax.device_put(on_host(leaf), NamedSharding(self.mesh.local_mesh, sharding.spec))

        trees = state.params, state.best_params, state.averaged
        params, best, averaged = jax.tree.map(own, trees)
        return replace(state, params=params, best_params=best, averaged=averaged)

    def _of(self, leaf: Any) -> NamedSharding:
        return NamedSharding(self.mesh, self._spec(leaf.shape))

    def _spec(self, shape):
        """Of a wide array, the longest axis that can be divided evenly is."""
        if self.columns is None or len(shape) < 2 or math.prod(shape) < _WIDE:
            return P()
        size = self.mesh.shape[self.columns]
        able = [axis for axis, length in enumerate(shape) if length % size == 0]
        if not able or size == 1:
            return P()
        axis = max(able, key=shape.__getitem__)
        return P(*[None] * axis, self.columns)


def as_layout(mesh: Any) -> Layout | None:
    """The layout of a mesh, after checking it; None stays None.

    Raises:
        TypeError: if it is no `jax.sharding.Mesh`.
        ValueError: if it has no axis for rows, or devices of some of several processes.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh of devices, got {type(mesh).__name__}.")
    names = mesh.axis_names
    others = [name for name in names if name != "model"]
    if not others:
        raise ValueError(f'mesh expected an axis for the rows of a batch, such as "data", got axes {names}.')
    owners = {device.process_index for device in mesh.devices.flat}
    if owners != {jax.process_index()} and owners != set(range(jax.process_count())):
        raise ValueError(
            f"mesh expected devices of every process or of this one (number {jax.process_index()}) alone, "
            f"got those of {sorted(owners)}."
        )
    return Layout(
        Mesh(mesh.devices, names, axis_types=(AxisType.Auto,) * len(names)),
        "data" if "data" in names else others[0],
        "model" if "model" in names else None,
    )


def check_divides(layout: Layout | None, batch_size: int) -> None:
    """Raise a ValueError unless batches of so many rows can be divided evenly."""
    if layout is not None and batch_size % layout.parts:
        least = -(-batch_size // layout.parts) * layout.parts
        raise ValueError(
            f"batch_size={batch_size} cannot be divided among the {layout.parts} parts of the mesh's axis "
            f"{layout.rows!r}: choose a multiple, such as {least}."
        )


def put(leaf: Any, sharding: Any) -> Array:
    """An array that every process has, where the sharding says."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jr.wrap_key_data(put(jr.key_data(leaf), sharding), impl=jr.key_impl(leaf))
    # `device_put` would compare the values of all processes.
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
