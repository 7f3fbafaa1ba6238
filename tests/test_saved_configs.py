"""A config that an older version saved gets values that behave as that version did, before it is compared."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny_runs import DIGITS, make_source, rewrite_meta, small

from tljax.config import Config, Data, Lesson, Optimizer, Recipe, as_json
from tljax.data.preprocessing import CAFFE
from tljax.networks.architectures import RESNET50
from tljax.runs.files import read_json
from tljax.runs.saved_configs import fill_in, find_changes, go_on_as_begun
from tljax.stages.from_config import run
from tljax.stages.stage import settle_images
from tljax.weights.pretrained import Weights

# The optimizer as version 0.1.0 saved it: an optimizer had no `name` then, and a stage no `stage`.
ADAM = {"learning_rate": 0.5, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}


def test_a_saved_config_that_lacks_a_setting_has_the_one_that_behaves_as_then():
    config = Config(optimizer=Optimizer(learning_rate=0.5), pretrained="imagenet")
    saved = as_json(config) | {"optimizer": ADAM}
    del saved["compute"], saved["batch_norm"]
    assert find_changes(fill_in(saved, Config), as_json(config)) == []
    other = as_json(replace(config, batch_norm="training"))
    assert find_changes(fill_in(saved, Config), other) == ["batch_norm: 'inference' before, 'training' now"]


def test_saved_stages_of_a_lesson_are_what_their_names_say():
    lesson = Lesson(source_classes=("0", "1"))
    saved = as_json(lesson)
    for stage in saved["stages"].values():
        del stage["stage"], stage["optimizer"]["name"]
    assert find_changes(fill_in(saved, Lesson), as_json(lesson)) == []
    lesson.stages["fine_tune"].optimizer.epsilon = 1e-3
    changes = find_changes(fill_in(saved, Lesson), as_json(lesson))
    assert changes == ["stages.fine_tune.optimizer.epsilon: 1e-07 before, 0.001 now"]


def test_the_same_pictures_and_weights_by_another_path_are_no_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "moved", "run"):
        (tmp_path / name).mkdir()
    before = as_json(Config(pretrained="run", data=Data(name=f"folder:{tmp_path}/pictures")))
    same = ["folder:pictures", "folder:pictures/", f"folder:{tmp_path}/run/../pictures"]
    for name in same:
        assert not find_changes(before, as_json(Config(pretrained=f"{tmp_path}/run/", data=Data(name=name))))
    other = as_json(Config(pretrained="run", data=Data(name="folder:moved")))
    assert len(find_changes(before, other)) == 1
    (tmp_path / "pictures").rmdir()
    # Moved, perhaps: the run compares the pictures themselves.
    assert not find_changes(before, other)
    assert len(find_changes(before, as_json(Config(pretrained="run", data=Data(name="digits"))))) == 1


def test_runs_of_an_older_version_keep_the_splits_that_they_began_with():
    config = Config(data=Data(name="folder:x"))
    old = as_json(config)
    del old["data"]["holdout"]
    assert go_on_as_begun(config, old).data.holdout == "test" and config.data.holdout == "train"
    assert go_on_as_begun(config, as_json(config)).data == replace(config.data, fit="crop")
    assert find_changes(fill_in(old, Config), as_json(config)) == ["data.holdout: 'test' before, 'train' now"]
    assert find_changes(as_json(Lesson()), as_json(config)) == ["a lesson before, one stage now"]


def test_pictures_are_those_of_the_source_run_unless_told_otherwise(capsys):
    source = Weights("runs/a", {}, "v1", CAFFE, 64, (), RESNET50, is_run=True, fit="pad")
    assert settle_images(Data(), source) == Data(image_size=64, fit="pad")
    assert "--config.data.image_size=64 --config.data.fit=pad, as runs/a had them" in capsys.readouterr().out
    assert settle_images(Data(fit="crop"), source) == Data(image_size=64, fit="crop")
    assert "--config.data.image_size=64, as runs/a had" in capsys.readouterr().out
    given = Data(image_size=32, fit="stretch")
    assert settle_images(given, source) == given
    assert settle_images(Data(), None) == settle_images(Data(), source._replace(is_run=False)) == Data(fit="crop")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("kind", [Config, Lesson, Recipe])
def test_a_run_that_began_keeps_its_pictures(kind, capsys):
    config = kind(pretrained="runs/a", data=Data())
    saved = as_json(replace(config, data=Data(image_size=48, fit="pad")))
    assert go_on_as_begun(config, saved).data == Data(image_size=48, fit="pad")
    assert "as when this run began: --config.data.image_size=48 --config.data.fit=pad" in capsys.readouterr().out
    other = replace(config, data=Data(image_size=64))
    assert go_on_as_begun(other, saved).data == Data(image_size=64, fit="pad")
    # As versions before saved them: the side was not taken from the source then.
    assert go_on_as_begun(config, as_json(replace(config, data=Data(fit="crop")))).data == Data(fit="crop")
    from_none = replace(config, pretrained=None)
    assert go_on_as_begun(from_none, saved).data == Data(fit="crop"), "it differs, and is refused"
    with pytest.raises(ValueError, match=r"config\.data\.image_size='wide': at least 32"):
        go_on_as_begun(config, {"data": {"image_size": "wide"}})


def test_who_names_what_was_taken_goes_on_with_the_same_run(tmp_path, capsys):
    source, workdir = make_source(tmp_path / "source"), tmp_path / "run"
    rewrite_meta(source, lambda meta: meta.update(image_size=40, fit="pad"))
    config = small("fine_tune", pretrained=str(source))
    run(config, workdir)
    assert "WARNING" not in capsys.readouterr().out
    saved = read_json(workdir / "config.json")
    assert (saved["data"]["image_size"], saved["data"]["fit"]) == (40, "pad")
    shutil.rmtree(source)
    for data in (DIGITS, replace(DIGITS, image_size=40), replace(DIGITS, image_size=40, fit="pad")):
        run(replace(config, data=data), workdir)
        assert "finished before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="image_size: 40 before, 32 now"):
        run(replace(config, data=replace(DIGITS, image_size=32)), workdir)


def test_a_run_of_an_older_version_goes_on_with_the_side_that_it_had(tmp_path, capsys):
    source, workdir = make_source(tmp_path / "source"), tmp_path / "run"
    config = small("fine_tune", pretrained=str(source))
    run(config, workdir)
    # That version took the side of the data set, 32, and saved None.
    (workdir / "config.json").write_text(json.dumps(as_json(replace(config, data=replace(DIGITS, fit="crop")))))
    rewrite_meta(source, lambda meta: meta.update(image_size=40, fit="pad"))
    run(replace(config, epochs=2), workdir)
    said = capsys.readouterr().out
    assert "goes on after epoch 1" in said and "learned from pictures with image_size=40 and fit=pad" in said


def test_a_setting_of_a_newer_version_is_a_difference():
    saved = as_json(Config()) | {"of_tomorrow": 0.2}
    assert find_changes(fill_in(saved, Config), as_json(Config())) == ["of_tomorrow: 0.2 before, None now"]
