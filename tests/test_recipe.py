"""Recipes: the rules are pure, the choice is made once, and what was chosen runs."""

import json
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest
from tiny_runs import DIGITS, TINY, read_rows, read_summary, save_digits, save_source, small

from tljax.config import Cache, Data, Head, Recipe
from tljax.data import datasets
from tljax.data.datasets import Extent, size_up
from tljax.networks.architectures import NETWORKS, RESNET50
from tljax.networks.cut import find_cut
from tljax.networks.resnet import ResNet
from tljax.runs.workdir import begin_run, clear
from tljax.stages import from_config
from tljax.stages import recipe as recipes
from tljax.stages.from_config import run
from tljax.stages.rules import (
    Limit,
    choose_augmentation,
    choose_batch,
    choose_place,
    choose_stages,
    why_not_asked,
)
from tljax.training.places import LossDifference

EXTENTS = [
    Extent(images, images // 10, classes, 32)
    for images, classes in (
        (2, 2),
        (25, 5),
        (100, 5),
        (900, 3),
        (19_999, 10),
        (20_000, 10),
        (47_500, 10),
        (1_281_167, 1000),
    )
]


@pytest.mark.parametrize("devices", [1, 3, 256])
@pytest.mark.parametrize("pretrained", ["imagenet", None])
@pytest.mark.parametrize("extent", EXTENTS, ids=str)
def test_every_choice_is_a_config_that_can_run(extent, pretrained, devices):
    for limit in (None, Limit(1, "a minute"), Limit(3, "a minute")):
        limited = choose_stages(extent, pretrained and RESNET50, devices, limit)
        changes = choose_augmentation(limited.stages, extent.images).settings
        lesson = Recipe(pretrained=pretrained).lesson(limited.stages, **changes)
        for name, stage in limited.stages.items():
            assert stage.batch_size % devices == 0
            lesson.config(name, pretrained if stage.stage != "fine_tune" else "RUN").check()


def test_from_scratch_sees_a_number_of_pictures():
    def epochs(images: int) -> int:
        return choose_stages(Extent(images, 0, 10, 32), None, 1).stages["from_scratch"].epochs

    assert [epochs(images) for images in (100, 10_000, 47_500, 1_000_000)] == [300, 150, 31, 30]


def test_pictures_are_changed_in_long_runs_from_scratch_and_in_views_for_transfer():
    def augment(pretrained: bool, limit: Limit | None = None, images: int = 47_500) -> dict:
        extent = Extent(images, 2_500, 10, 32)
        stages = choose_stages(extent, RESNET50 if pretrained else None, 1, limit).stages
        return choose_augmentation(stages, images).settings

    assert augment(False) == augment(False, images=10_000) == {"augment": "flip,shift,trivial=0.5", "views": None}
    assert augment(False, Limit(5, "a minute")) == {"augment": "none", "views": None}
    assert augment(True) == augment(True, Limit(5, "a minute")) == {"augment": "flip", "views": 2}
    assert augment(True, images=1_000) == {"augment": "flip,shift", "views": 8}


@pytest.mark.parametrize(
    ("network", "cut"),
    [
        (RESNET50, "conv5_block1"),
        (NETWORKS["resnet152"].architecture, "conv5_block1"),
        (RESNET50.end_before("conv4_block4"), "conv4_block1"),
        (RESNET50.end_before("conv3_block2"), "conv2_block2"),
        (RESNET50.end_before("conv2_block2"), "conv2_block1"),
        (RESNET50.end_before("conv2_block1"), "conv1"),
    ],
)
def test_fine_tuning_starts_three_blocks_before_the_head(network, cut):
    choice = choose_stages(Extent(1000, 100, 5, 32), network, 1)
    assert choice.stages["fine_tune"].cut == cut == find_cut(cut, network).start
    assert any(f"fine-tuning from {cut}, " in reason for reason in choice.reasons)


def test_the_head_reads_where_it_was_asked_and_fine_tuning_starts_three_blocks_before():
    near = {
        "conv3_block1": LossDifference(0.0, 0.0),
        "conv4_block4": LossDifference(0.01, 0.02),
        "head": LossDifference(0.2, 0.1),
    }
    place = choose_place(near)
    assert place.unit == "conv4_block4" and "0.010 ± 0.020 above the least, at conv3_block1" in place.why
    found = choose_stages(Extent(1000, 100, 10, 32), RESNET50, 1, place=place)
    assert found.stages["feature_extraction"].head == Head("conv4_block4", "ridge")
    assert found.stages["fine_tune"].cut == "conv4_block1" and place.why in found.reasons
    assert "there it is the least" in choose_place({"head": LossDifference(0.0, 0.0)}).why
    # Groups of pictures of which each class has one.
    assert choose_place({}).unit == "head"


def test_with_fewer_than_five_pictures_a_class_nothing_is_asked():
    assert why_not_asked(Extent(20, 0, 4, 32)) is None
    assert "a quarter of the classes have at most 4.75" in why_not_asked(Extent(19, 0, 4, 32))


def test_few_labels_are_for_a_solved_head_alone():
    def stages(images: int) -> list[str]:
        return list(choose_stages(Extent(images, 10, 5, 32), RESNET50, 1).stages)

    assert stages(99) == ["feature_extraction"]
    assert stages(100) == ["feature_extraction", "fine_tune"]


def test_a_quarter_of_the_classes_decides_about_fine_tuning():
    def stages(*by_class: int) -> list[str]:
        return list(choose_stages(Extent(sum(by_class), 10, len(by_class), 32, by_class), RESNET50, 1).stages)

    assert stages(500, 500, 500, 3) == stages(20, 20, 20, 20) == ["feature_extraction", "fine_tune"]
    assert stages(500, 500, 19, 19) == stages(19, 20, 20, 20) == ["feature_extraction"]
    reasons = choose_stages(Extent(1038, 10, 4, 32, (500, 500, 19, 19)), RESNET50, 1).reasons
    few = "a quarter of the classes have at most 19"
    assert reasons[-1] == f"no fine-tuning: whether it helps shows from 20 pictures a class on, and {few}"


def test_where_no_epoch_fits_a_head_is_solved_alone_and_from_scratch_one_is_run():
    extent = Extent(10_000, 1_000, 10, 32, (1_000,) * 10)
    solved = choose_stages(extent, RESNET50, 1, Limit(0, "a minute"))
    assert list(solved.stages) == ["feature_extraction"]
    assert solved.reasons[-1] == "no fine-tuning: not one epoch fits into a minute"
    assert choose_stages(extent, None, 1, Limit(0, "a minute")).stages["from_scratch"].epochs == 1


def test_a_head_is_weighted_where_classes_are_uneven():
    def solve(*by_class: int) -> tuple[str, str]:
        choice = choose_stages(Extent(sum(by_class), 10, len(by_class), 32, by_class), RESNET50, 1)
        assert all(stage.class_weights == "none" for name, stage in choice.stages.items() if name == "fine_tune")
        return choice.stages["feature_extraction"].class_weights, "; ".join(choice.reasons)

    assert solve(50, 100, 70)[0] == "none" and "balanced" not in solve(50, 100, 70)[1]
    weights, reasons = solve(50, 101, 70)
    assert weights == "balanced" and "class_weights=balanced), since they have 50 to 101 pictures" in reasons
    assert solve(5, 0, 6)[0] == "balanced"


def test_a_batch_leaves_sixteen_steps():
    assert [choose_batch(images, 1) for images in (10, 256, 511, 512, 2048, 10**6)] == [8, 16, 16, 32, 128, 128]
    assert [choose_batch(256, devices) for devices in (4, 6, 32)] == [16, 18, 32]


def test_a_limit_shortens_the_stage_that_trains_and_its_warm_up():
    extent = Extent(100, 10, 5, 32)
    free, wide, tight = (
        choose_stages(extent, RESNET50, 1, limit) for limit in (None, Limit(10**6, "a day"), Limit(10, "a minute"))
    )
    assert wide.stages == free.stages and "20 epochs" in wide.reasons[1] and "which fit into a day" in wide.reasons[1]
    assert "10 instead of 20, since more do not fit into a minute" in tight.reasons[1]
    tuned = tight.stages["fine_tune"]
    assert (tuned.epochs, tuned.optimizer.warmup_epochs) == (10, 0.5)
    assert tight.stages["feature_extraction"] == free.stages["feature_extraction"]


def test_without_validation_the_solved_head_alone_is_left():
    choice = choose_stages(Extent(1000, 0, 5, 32), RESNET50, 1)
    assert list(choice.stages) == ["feature_extraction"] and "validate" in choice.reasons[1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"classes": ("3", "7")},
        {"classes": ("3", "7"), "labels_per_class": 6},
        {"labels_per_class": 6, "max_images": 50},
        {"validation_split": "train[80%:]"},
        {"image_size": 40},
    ],
    ids=str,
)
def test_the_extent_is_that_of_what_is_read(settings):
    data = Data(name="digits", **settings)
    read = datasets.load_dataset(data, seed=3)
    extent = Extent(read.train.count, read.validation.count, len(read.class_names), read.image_size)
    extent = extent._replace(test=read.test.count if read.test else 0)
    assert size_up(data, 3, counting=False) == extent
    assert size_up(data, 3, counting=True) == extent._replace(by_class=tuple(read.train_counts.values()))


def test_a_folder_is_sized_up_without_decoding(tmp_path):
    folder = save_digits(tmp_path / "digits")
    next(folder.glob("5/*.png")).write_bytes(b"no picture")
    count = len(list(folder.rglob("*.png")))
    extent = size_up(Data(name=f"folder:{folder}"), 0, counting=True)
    assert (extent.images + extent.validation, extent.classes) == (count, 3) and sum(extent.by_class) == extent.images


@pytest.fixture
def quick(monkeypatch):
    """Recipes choose two epochs."""
    choose = recipes.choose_stages
    monkeypatch.setattr(recipes, "choose_stages", lambda *about: choose(*about[:3], Limit(2, "a test"), *about[4:]))


def make_recipe(**settings) -> Recipe:
    return Recipe(**({"data": replace(DIGITS, augment="auto"), "network": "tiny"} | settings))


@pytest.mark.usefixtures("quick")
def test_a_recipe_chooses_once_and_is_read_afterwards(tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    first = run(make_recipe(), workdir)
    said = capsys.readouterr().out
    assert "a recipe for 60 pictures in 3 classes at 32 pixels" in said and "epochs: 2 instead of 300" in said
    known = json.loads((workdir / "recipe.json").read_text())
    assert known["asked"]["data"]["augment"] == "auto" and known["data"] == {"augment": "none", "views": None}
    assert known["asked"]["time_limit"] is None and all(f"- {reason}\n" in said for reason in known["reasons"])
    assert known["stages"] == json.loads((workdir / "config.json").read_text())["stages"]
    assert known["variant"] == json.loads((workdir / "config.json").read_text())["variant"] == "v1.5"
    stage = known["stages"]["from_scratch"]
    assert {name: stage[name] for name in ("epochs", "batch_norm", "patience")} == {
        "epochs": 2,
        "batch_norm": "training",
        "patience": None,
    }
    report = (workdir / "report.md").read_text()
    assert "## Why these stages" in report and all(f"- {reason}\n" in report for reason in known["reasons"])
    rates = [row["learning_rate"] for row in read_rows(workdir / "from_scratch")]
    assert rates[0] > rates[1] and read_summary(workdir / "from_scratch")["epochs"] == 2

    def never(*about):
        raise AssertionError("the choice stands")

    monkeypatch.setattr(recipes, "choose_stages", never)
    monkeypatch.setattr(recipes, "size_up", never)
    assert run(make_recipe(), workdir)["from_scratch"]["loss"] == first["from_scratch"]["loss"]
    assert "as it was chosen when this run began" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"another recipe \(seed: 0 before, 1 now\)"):
        run(make_recipe(seed=1), workdir)
    with pytest.raises(ValueError, match=r"another recipe \(time_limit: None before, 3\.0 now\)"):
        run(make_recipe(time_limit=3.0), workdir)
    # As those of before a recipe chose the variant.
    (workdir / "recipe.json").write_text(json.dumps({name: known[name] for name in known if name != "variant"}))
    assert recipes.resolve(make_recipe(), workdir, False, 0.0, recipes.choose_recipe)[0].variant is None
    for damage in (
        known | {"stages": {"from_scratch": 3}},
        known | {"reasons": None},
        known | {"data": {"flips": 2}},
        known | {"data": None},
        known | {"asked": None},
        known | {"stages": {}},
        known | {"stages": {"from_scratch": stage | {"optimizer": stage["optimizer"] | {"learning_rate": "fast"}}}},
        {"asked": known["asked"]},
        [],
        {},
    ):
        (workdir / "recipe.json").write_text(json.dumps(damage))
        with pytest.raises(ValueError, match=r"recipe\.json is damaged"):
            run(make_recipe(), workdir)


@pytest.mark.usefixtures("quick")
def test_a_recipe_transfers_from_weights(tmp_path, capsys, monkeypatch):
    # The head of this source reads earlier than that of the whole network.
    model = ResNet(3, architecture=TINY.end_before("conv5_block1"))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    source = save_source(tmp_path / "source", model, variables)
    data = Data(name="digits", classes=("1", "2", "3"), labels_per_class=20, augment="auto")
    found = run(make_recipe(pretrained=str(source), network=None, data=data), tmp_path / "run")
    assert list(found) == ["feature_extraction", "fine_tune"]
    assert json.loads((tmp_path / "run" / "fine_tune" / "config.json").read_text())["cut"] == "conv2_block1"
    for stage in found:
        chosen = json.loads((tmp_path / "run" / stage / "config.json").read_text())["data"]
        assert (chosen["augment"], chosen["views"]) == ("flip,shift", 8)
    assert (found["feature_extraction"]["epochs"], found["fine_tune"]["epochs"]) == (0, 2)
    assert all(row["frozen_leaves_unchanged"] for row in found.values())
    known = json.loads((tmp_path / "run" / "recipe.json").read_text())
    at = known["stages"]["feature_extraction"]["head"]["at"]
    said = capsys.readouterr().out
    assert f"its head reads at {at}: the last of conv3_block1, conv4_block1, head" in known["reasons"][1]
    # What the probe has computed the stage finds.
    assert "activations at head of 60 images, view 7: found in the cache" in said
    monkeypatch.setattr(recipes, "probe", None)
    run(make_recipe(pretrained=str(source), network=None, data=data), tmp_path / "run")
    few = replace(data, labels_per_class=4)
    run(make_recipe(pretrained=str(source), network=None, data=few), tmp_path / "few")
    assert (
        "its head reads at the end of the network: pictures that are left out can tell from 5 a class on"
        in capsys.readouterr().out
    )


def test_the_folder_is_whole_whenever_it_is_left(tmp_path, monkeypatch):
    """A run begins with recipe.json. What is killed after it goes on; nothing is left by a mistake
    that shows at once."""
    workdir = tmp_path / "run"

    def begin(lesson, folder, overwrite, recipe):
        begin_run(folder, lesson, overwrite=overwrite, recipe=recipe)
        return lesson

    monkeypatch.setattr(from_config, "run_lesson", begin)
    for settings, message in (
        ({"data": Data(name="none such")}, "none such"),
        ({"time_limit": 0}, "minutes, more than"),
        ({"time_limit": "5"}, "minutes, more than"),
        ({"seed": -1}, "config.seed=-1: must be a whole number"),
        ({"data": replace(DIGITS, validation_split="none")}, "no epoch can be chosen"),
        ({"data": replace(DIGITS, augment="flip"), "pretrained": "imagenet"}, "add data.views"),
        ({"data": replace(DIGITS, classes=("5",))}, "nothing to tell apart"),
        ({"network": "none such"}, "none such"),
        ({"cache": Cache(disk_gib=-1)}, "at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            run(make_recipe(**settings), workdir)
    _, known = recipes.resolve(make_recipe(), workdir, False, 0.0, recipes.choose_recipe)
    assert not workdir.exists()
    workdir.mkdir()
    (workdir / "recipe.json").write_text(json.dumps(known))
    with monkeypatch.context() as patched:
        patched.setattr(recipes, "choose_stages", None)
        stages = run(make_recipe(), workdir).stages
    assert stages == choose_stages(Extent(60, 54, 3, 32), None, 1).stages
    assert {path.name for path in workdir.iterdir()} == {"recipe.json", "config.json"}
    clear(workdir)
    assert not list(workdir.iterdir())
    begin_run(workdir, small("from_scratch"), overwrite=False)
    with pytest.raises(ValueError, match="holds a run of no recipe"):
        run(make_recipe(), workdir)


def test_a_recipe_s_settings_are_those_of_all_stages():
    recipe = make_recipe(seed=7)
    lesson = recipe.lesson({})
    assert {k: v for k, v in asdict(recipe).items() if k != "time_limit"} == {
        k: v for k, v in asdict(lesson).items() if k in asdict(recipe)
    }
