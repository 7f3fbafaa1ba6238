"""Pictures that a stage is measured on, though its source has learned from them: an accuracy on these says little."""

from tljax.data.datasets import Dataset
from tljax.trees import Row
from tljax.weights.pretrained import Weights


def count_known(dataset: Dataset, source: Weights | None) -> Row | None:
    """How many pictures of validation and test the run `source` has learned from. None if it is no run, or has not kept
    what it learned from. All processes call this together."""
    if source is None or source.learned is None:
        return None
    measured = {name: split for name, split in dataset.splits.items() if name != "train"}
    return {
        name: int(source.learned.has(split.all_digests(), of_files=split.of_files).sum())
        for name, split in measured.items()
    }


def check_known(known: Row | None, dataset: Dataset, source: Weights | None, *, is_new: bool) -> None:
    """Prints how many pictures of validation and test the source has learned from: `known`, as counted by
    `count_known`.

    Raises:
      ValueError: if these are all pictures of validation, and the run `is_new`.
    """
    if source is None or not source.is_run:
        return
    if known is None:
        print(f"{source.name} has not kept what it learned from: some of the validation pictures may be among it")
        return
    for name, count in known.items():
        of = dataset.splits[name].count
        if count == of and name == "validation" and is_new:
            raise ValueError(
                f"{source.name} has learned from all {of:,} validation pictures, so nothing can be measured on them: "
                "give pictures that it has not seen, in a folder val/ or as another config.data.name, or train it "
                "without these"
            )
        if count:
            print(
                f"WARNING {source.name} has learned from {count:,} of the {of:,} {name} pictures: the accuracy on them "
                "says too much; pictures that it has not seen, such as those of a folder val/, say what it can do"
            )
    if not source.learned or not source.learned.whole:
        print(f"{source.name} has not kept all that it learned from: there may be more of them")
