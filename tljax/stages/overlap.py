"""Pictures that a stage is measured on, though it or its source has learned from them: they say little."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from tljax.data.datasets import Dataset
from tljax.runs.checkpoints import FOLDER, FROZEN
from tljax.runs.learned import Learned, learn
from tljax.training.grouped import GroupNumbers, describe_worth
from tljax.trees import Row


def is_new(workdir: Path) -> bool:
    """Whether the run in `workdir` has saved nothing yet."""
    numbers = (int(path.name) for path in (workdir / FOLDER).glob("*") if path.name.isdigit())
    return all(number == FROZEN for number in numbers)


def count_known(dataset: Dataset, learned: Learned | None, *, of_train: bool = False) -> Row | None:
    """How many pictures of validation and test weights that have `learned` from others know, and `of_train`, on which a
    solved head is judged. None if that is not known: a run has not kept it, or has kept pixels where these are files.
    All processes call this together."""
    if learned is None:
        return None
    measured = {name: split for name, split in dataset.splits.items() if of_train or name != "train"}
    if not all(learned.can_tell(of_files=split.of_files) for split in measured.values()):
        return None
    return {
        name: int(learned.has(split.all_digests(), of_files=split.of_files).sum()) for name, split in measured.items()
    }


def refuse_known(known: Row | None, dataset: Dataset, source: str) -> None:
    """Raises ValueError if the run `source` has learned from all pictures of validation; `known` is what `count_known`
    counts."""
    if known and dataset.validation is not None and known["validation"] == dataset.validation.count:
        raise ValueError(
            f"{source} has learned from all {dataset.validation.count:,} validation pictures, so nothing can be "
            "measured on them: give pictures that it has not seen, in a folder val/ or as another config.data.name, or "
            "train it without these"
        )


def warn_of_known(known: Row | None, dataset: Dataset, source: str, learned: Learned | None) -> None:
    """Prints how many pictures of validation and test the run `source` has learned from."""
    if known is None:
        print(f"{source} has not kept what it learned from: some of the validation pictures may be among it")
        return
    for name, count in known.items():
        if count:
            print(
                f"WARNING {source} has learned from {count:,} of the {dataset.splits[name].count:,} {name} pictures: "
                "the accuracy on them says too much; pictures that it has not seen, such as those of a folder val/, "
                "say what it can do"
            )
    if learned is not None and not learned.whole:
        print(f"{source} has not kept all that it learned from: there may be more of them")


def find_copies(dataset: Dataset, name: str) -> Bool[np.ndarray, " n"] | None:
    """Which pictures of the split `name` have the digest of one of train. None where that is not known: nothing was
    learned from, or digests of files stand beside those of pixels. All processes call this together."""
    train, split = dataset.train, dataset.splits[name]
    if train is None or train.of_files != split.of_files:
        return None
    learned = learn(train.all_digests(), None, of_files=train.of_files)
    return learned.has(split.all_digests(), of_files=split.of_files)


def describe_copies(
    right: Bool[np.ndarray, " n"], copies: Bool[np.ndarray, " n"] | None, groups: GroupNumbers | None
) -> Row:
    """What a summary says about pictures that are in train too, as `in_train`: their number, how many are `left`, the
    accuracy on these (None if there are none), and what their groups are worth. Empty without copies."""
    if copies is None or not copies.any():
        return {}
    left = right[~copies]
    worth = describe_worth(left, groups[~copies]) if groups is not None and len(left) else {}
    accuracy = float(left.mean()) if len(left) else None
    return {"in_train": {"pictures": int(copies.sum()), "left": len(left), "accuracy": accuracy, **worth}}
