"""Pictures that a stage is measured on, though its source has learned from them: an accuracy on these says little."""

from pathlib import Path

from tljax.data.datasets import Dataset
from tljax.runs.checkpoints import FOLDER, FROZEN
from tljax.runs.learned import Learned
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
