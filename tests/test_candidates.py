"""The candidates of a study, as functions of the data and the network."""

import pytest
from tiny_runs import TINY

from tljax.config import AUTO, Lesson, Own
from tljax.data.datasets import Extent
from tljax.networks.architectures import NETWORKS, RESNET50
from tljax.stages import rules
from tljax.stages.candidates import (
    Candidates,
    find_finalists,
    find_most_accurate,
    has_fewer,
    list_candidates,
    list_cuts,
    list_fewer,
    list_repeats,
    list_seeds,
)
from tljax.stages.lessons import find_shared_cuts

TUNED = ["fine_tune_conv5_block1", "fine_tune_conv4_block1", "fine_tune_all"]


def candidates(place: str = "conv4_block4", **settings) -> Candidates:
    about = {"extent": Extent(200, 20, 5, 32), "source": RESNET50, "devices": 1, "augment": AUTO}
    return list_candidates(place=place, **(about | settings))


def test_candidates_are_few_and_each_can_run():
    found = candidates()
    assert found.names == ["solved_head", *TUNED, "from_scratch"] and list(found.stages)[1] == "start"
    assert [found.stages[name].cut for name in TUNED] == ["conv5_block1", "conv4_block1", "conv1"]
    assert found.stages["solved_head"].head.at == "conv4_block4" and found.stages["start"].head.at == "head"
    lesson = Lesson(pretrained="imagenet", stages=found.stages, own=found.own)
    assert lesson.origins() == {
        "solved_head": None,
        "start": None,
        **dict.fromkeys(TUNED, "start"),
        "from_scratch": None,
    }
    for name in found.stages:
        lesson.config(name, None if name == "from_scratch" else "RUN").check()
    assert lesson.config("from_scratch", None).data.augment == "flip,shift,trivial=0.5"
    given = candidates(augment="none")
    assert "from_scratch" not in given.own and not any("mirror" in reason for reason in given.reasons)


def test_a_head_at_the_end_is_what_fine_tunings_start_from():
    found = candidates("head")
    assert "start" not in found.stages and {found.own[name].start for name in TUNED} == {"solved_head"}
    assert list(found.without(["from_scratch", *TUNED]).stages) == ["solved_head"]
    assert list(candidates().without([*TUNED, "from_scratch"]).stages) == ["solved_head"]
    assert list(candidates().without(["from_scratch", *TUNED[1:]]).stages) == ["solved_head", "start", TUNED[0]]


@pytest.mark.parametrize(
    ("network", "cuts"),
    [
        (RESNET50.end_before("conv5_block1"), ["conv4_block1", "conv3_block1", "conv1"]),
        (RESNET50.end_before("conv2_block2"), ["conv2_block1", "conv1"]),
        (TINY, ["conv5_block1", "conv4_block1", "conv1"]),
    ],
)
def test_cuts_are_those_of_the_last_stages(network, cuts):
    assert list(list_cuts(network).values()) == cuts


def test_a_network_without_a_name_is_not_made_anew():
    found = candidates(source=RESNET50._replace(width=24))
    assert "from_scratch" not in found.stages and any("no name" in reason for reason in found.reasons)


def test_finalists_are_run_with_other_seeds_on_the_same_pictures():
    assert find_finalists({"a": 0.5, "b": 0.7, "c": 0.7, "d": 0.6}) == ["b", "c"]
    found = candidates()
    more = list_repeats([TUNED[1], "from_scratch"], found.stages, found.own, 7)
    assert list(more.stages) == [f"{name}_seed{n}" for n in (1, 2) for name in (TUNED[1], "from_scratch")]
    assert more.own[f"{TUNED[1]}_seed2"] == Own(start="start", seed=9)
    lesson = Lesson(pretrained="imagenet", seed=7, stages=found.stages | more.stages, own=found.own | more.own)
    config = lesson.config("from_scratch_seed1", None)
    assert (config.seed, config.data.seed, config.data.augment) == (8, 7, "flip,shift,trivial=0.5")
    assert lesson.config(TUNED[0], "RUN").data.seed is None
    assert list_seeds(found.names, lesson.stages)[TUNED[1]] == [TUNED[1], *(f"{TUNED[1]}_seed{n}" for n in (1, 2))]


def test_a_fine_tuning_has_fewer_labels_of_the_median_class():
    accuracies = {"solved_head": 0.9, TUNED[0]: 0.5, TUNED[1]: 0.6, TUNED[2]: 0.6, "from_scratch": 0.8}
    assert find_most_accurate(accuracies) == TUNED[1] and find_most_accurate({"solved_head": 0.9}) is None
    # The class of 8 keeps its labels, and that of none is not asked.
    few = list_fewer(TUNED[0], "conv5_block1", [8, 0, 200, 400, 10_000], 1)
    assert list(few.stages) == ["start_half", f"{TUNED[0]}_half", "start_quarter", f"{TUNED[0]}_quarter"]
    assert [own.labels_per_class for own in few.own.values()] == [150, 150, 75, 75]
    assert [few.own[name].start for name in few.stages] == [None, "start_half", None, "start_quarter"]
    # The heads weigh their classes as that of a recipe does, and batches and epochs are for 458 and 233 pictures.
    assert [(stage.class_weights, stage.head.at) for stage in few.stages.values()][::2] == [("balanced", "head")] * 2
    assert [stage.batch_size for stage in few.stages.values()] == [16, 16, 8, 8]
    assert few.stages[f"{TUNED[0]}_half"] == rules.tune_stage("conv5_block1", 20, 16)
    assert "fewer labels, too: with at most 150 (20 epochs in batches of 16) and 75 (20 epochs" in few.reasons[0]


@pytest.mark.parametrize(("labels", "quarter"), [(18, 4), (19, 5)])
def test_a_quarter_of_the_labels_are_five_at_least(labels, quarter):
    few = list_fewer(TUNED[0], "conv5_block1", [labels] * 3, 1)
    assert len(few.stages) == (4 if quarter == 5 else 0)
    assert quarter == 5 or "is not trained with fewer labels: a quarter are 4 a class, and 5 it takes" in few.reasons[0]


def test_stages_with_fewer_labels_read_some_of_the_same_pictures():
    found = candidates("head", source=TINY)
    few = list_fewer(TUNED[0], found.stages[TUNED[0]].cut, [40] * 5, 1)
    lesson = Lesson(pretrained="imagenet", seed=7, stages=found.stages | few.stages, own=found.own | few.own)
    assert lesson.origins()[f"{TUNED[0]}_half"] == "start_half" and lesson.origins()["start_half"] is None
    config = lesson.config(f"{TUNED[0]}_quarter", "RUN")
    config.check()
    assert (config.data.labels_per_class, config.data.seed, config.seed) == (10, None, 7)
    assert lesson.config(TUNED[0], "RUN").data.labels_per_class is None
    assert [name for name in lesson.stages if has_fewer(name, lesson.own)] == list(few.stages)
    assert not any("_half" in name for names in list_seeds(found.names, lesson.stages).values() for name in names)


def test_one_pass_computes_what_all_fine_tunings_read(monkeypatch):
    found = candidates("head", source=TINY)
    monkeypatch.setitem(NETWORKS, "resnet50", NETWORKS["tiny"])
    lesson = Lesson(
        source_classes=("a",), stages={"source": found.stages["from_scratch"]} | found.stages, own=found.own
    )
    shared = {name: [cut.position for cut in cuts] for name, cuts in find_shared_cuts(lesson).items()}
    assert shared["solved_head"] == ["conv4_block1", "conv5_block1"] and shared[TUNED[0]] == ["conv4_block1"]
    assert not shared[TUNED[1]] and not shared[TUNED[2]]
