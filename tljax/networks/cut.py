"""The cut: everything before it is frozen, everything from it on trains. Nothing else decides what trains."""

import difflib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.networks.resnet import Architecture
from tljax.trees import Tree, digest_leaves, find_differences


class Counts(NamedTuple):
    """Numbers of parameters as Keras counts them: running statistics are non-trainable parameters."""

    total: int
    trainable: int
    non_trainable: int


@dataclass(frozen=True)
class Cut:
    """A position in a network: the units before `start` are frozen, `start` and all units after it train.

    `units` are the network's, input to output; without a `start` nothing trains. `variables` are
    `{"params": ..., "batch_stats": ...}` everywhere, each with units as its top-level keys, all of them or some.
    """

    units: tuple[str, ...]
    start: str | None

    def freezes(self, unit: str) -> bool:
        """Whether `unit` stands before the cut.

        Raises:
          ValueError: if it is no unit of the network.
        """
        place = self.units.index(unit)
        return self.start is None or place < self.units.index(self.start)

    @property
    def position(self) -> str:
        """The first unit that trains; frozen units run up to there.

        Raises:
          ValueError: if nothing trains.
        """
        if self.start is None:
            raise ValueError("nothing trains in this network: there is no cut")
        return self.start

    @property
    def trained(self) -> tuple[str, ...]:
        """The units that train, input to output."""
        return tuple(unit for unit in self.units if not self.freezes(unit))

    def split(self, variables: Tree) -> tuple[Tree, Tree]:
        """The variables of the frozen units, and of those that train; `merge` puts them together again."""

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

    def count(self, variables: Tree) -> Counts:
        """Numbers of parameters. Leaves need a shape only."""

        def size(tree: Any) -> int:
            return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))

        total, trainable = size(variables), size(self.split(variables)[1]["params"])
        return Counts(total, trainable, total - trainable)

    def digest(self, variables: Tree) -> dict[str, str]:
        """SHA-256 of every frozen leaf by path, such as `params/conv1/conv/kernel`: its bytes, type and shape. Two
        equal digests prove the leaves equal to the bit."""
        return digest_leaves(self.split(variables)[0])

    def holds(self, path: str) -> bool:
        """Whether the leaf at `path` belongs to the frozen variables."""
        kind, *rest = path.split("/")
        return kind in ("params", "batch_stats") and self.freezes(rest[0])

    def select(self, digests: dict[str, str]) -> dict[str, str]:
        """The digests of the frozen leaves, out of those of more leaves."""
        return {path: value for path, value in digests.items() if self.holds(path)}


def merge(frozen: Tree, trained: Tree) -> Tree:
    """Undoes `Cut.split`."""
    return {kind: {**frozen[kind], **trained[kind]} for kind in frozen}


def find_cut(cut: str, architecture: Architecture) -> Cut:
    """The cut that a user's `config.cut` means: a unit's name, or the index of a Keras layer where a unit starts.

    Raises:
      ValueError: naming the nearest unit, or where the unit around the layer starts.
    """
    units, starts = architecture.units, architecture.keras_layer_starts
    if cut in units:
        return Cut(units, cut)
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


def verify_frozen(before: dict[str, str], after: dict[str, str]) -> int:
    """The number of frozen leaves, all proved equal to the bit by their digests.

    Raises:
      RuntimeError: naming the leaves that moved.
    """
    moved = find_differences(before, after)
    if moved:
        raise RuntimeError(f"{len(moved)} frozen leaves moved, first {moved[0]}: this is a bug, do not use this run")
    return len(before)
