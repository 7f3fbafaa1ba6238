"""The cut: everything before it is frozen, everything from it on trains. Nothing else decides what trains."""

import difflib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.networks.architectures import NETWORKS, Architecture
from tljax.trees import Tree, digest_leaves, find_differences


class ParameterCounts(NamedTuple):
    """Numbers of parameters as Keras counts them: all running statistics are non-trainable parameters."""

    total: int
    trainable: int
    non_trainable: int


@dataclass(frozen=True)
class Cut:
    """A position in a network: the units before `start` are frozen, `start` and all units after it train.

    `units` are the names of all units of the network, input to output. If `start` is None, nothing trains. The methods
    take `variables` as `{"params": ..., "batch_stats": ...}`. The top-level keys of both are names of units; some units
    may be missing.
    """

    units: tuple[str, ...]
    start: str | None

    def freezes(self, unit: str) -> bool:
        """Whether `unit` lies before the cut.

        Raises:
          ValueError: if the network has no unit of this name.
        """
        place = self.units.index(unit)
        return self.start is None or place < self.units.index(self.start)

    @property
    def position(self) -> str:
        """Name of the first unit that trains. The frozen units run up to its input.

        Raises:
          ValueError: if nothing trains.
        """
        if self.start is None:
            raise ValueError("nothing trains in this network: there is no cut")
        return self.start

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the units that train, input to output."""
        return tuple(unit for unit in self.units if not self.freezes(unit))

    def split(self, variables: Tree) -> tuple[Tree, Tree]:
        """Returns the variables of the frozen units and the variables of the units that train; `merge` joins them."""

        def select(frozen: bool) -> Tree:
            return {
                kind: {unit: leaves for unit, leaves in tree.items() if self.freezes(unit) == frozen}
                for kind, tree in variables.items()
            }

        return select(True), select(False)

    def labels(self, params: Tree) -> Tree:
        """`params` with `"freeze"` or `"train"` in place of each leaf, for `optax.partition`."""
        names = {unit: "freeze" if self.freezes(unit) else "train" for unit in params}
        return {unit: jax.tree.map(lambda _, name=names[unit]: name, leaves) for unit, leaves in params.items()}

    def count(self, variables: Tree) -> ParameterCounts:
        """Numbers of parameters in `variables`. Only the shapes of the leaves are read."""

        def size(tree: Any) -> int:
            return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))

        total, trainable = size(variables), size(self.split(variables)[1]["params"])
        return ParameterCounts(total, trainable, total - trainable)

    def digest(self, variables: Tree) -> dict[str, str]:
        """SHA-256 digest of every frozen leaf by path, such as `params/conv1/conv/kernel`.

        A digest covers the bytes, dtype and shape of a leaf, so equal digests prove that two leaves are bitwise equal.
        """
        return digest_leaves(self.split(variables)[0])

    def holds(self, path: str) -> bool:
        """Whether the leaf at `path` is a frozen variable; False for any path outside `params` and `batch_stats`."""
        kind, *rest = path.split("/")
        return kind in ("params", "batch_stats") and self.freezes(rest[0])

    def select(self, digests: dict[str, str]) -> dict[str, str]:
        """The entries of `digests` (by path) that belong to frozen leaves."""
        return {path: value for path, value in digests.items() if self.holds(path)}


def merge(frozen: Tree, trained: Tree) -> Tree:
    """Joins the two halves that `Cut.split` returns."""
    return {kind: {**frozen[kind], **trained[kind]} for kind in frozen}


def find_cut(cut: str, architecture: Architecture) -> Cut:
    """Returns the cut for a user's `config.cut`: a unit's name, or the index of the Keras layer where a unit starts.

    Raises:
      ValueError: if no unit has this name (the message gives the nearest name), or no unit starts at this layer (the
        message gives the nearest starts), or the network has fewer layers.
    """
    units, starts = architecture.units, architecture.keras_layer_starts
    if cut in units:
        return Cut(units, cut)
    if any(cut in network.architecture.units for network in NETWORKS.values()):
        raise ValueError(f"config.cut={cut!r} is no unit of this network, which has {', '.join(units)}")
    if not cut.isdecimal():
        near = difflib.get_close_matches(cut, units, n=1, cutoff=0.0)[0]
        raise ValueError(f"config.cut={cut!r} is no unit; the nearest is {near!r} (units: {', '.join(units)})")
    index, layers = int(cut), max(starts)
    if index > layers:
        raise ValueError(f"config.cut={cut}: the headless model has {layers} layers, 0 to {layers - 1}")
    if index not in starts:
        start = max(s for s in starts if s < index)
        raise ValueError(
            f"config.cut={cut} lies inside the unit {starts[start]}, which starts at layer {start}; "
            f"cut there or at {min(s for s in starts if s > index)}, the next unit"
        )
    return Cut(units, starts[index])


def find_head(at: str, architecture: Architecture) -> Architecture:
    """The network of a user's `config.head.at`: its head reads the average of what the unit `at` would read.

    Raises:
      ValueError: if no unit has this name, or there is none before it.
    """
    units = architecture.units
    if at not in units[1:]:
        raise ValueError(f"config.head.at={at!r}: the head reads what one of these would read: {', '.join(units[1:])}")
    return architecture.end_before(at)


def verify_frozen(before: dict[str, str], after: dict[str, str]) -> int:
    """Verifies by digests that all frozen leaves are bitwise unchanged, and returns their number.

    Raises:
      RuntimeError: if a leaf has changed; the message gives the number of changed leaves and the first path.
    """
    moved = find_differences(before, after)
    if moved:
        raise RuntimeError(f"{len(moved)} frozen leaves moved, first {moved[0]}: this is a bug, do not use this run")
    return len(before)
