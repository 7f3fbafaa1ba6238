"""A config that an older version saved gets values that behave as that version did, before it is compared."""

from dataclasses import replace

from tljax.config import Config, Data, Lesson, Optimizer, as_json
from tljax.runs.saved_configs import fill_in, find_changes, go_on_as_begun

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
    assert go_on_as_begun(config, as_json(config)) == config
    assert find_changes(fill_in(old, Config), as_json(config)) == ["data.holdout: 'test' before, 'train' now"]
    assert find_changes(as_json(Lesson()), as_json(config)) == ["a lesson before, one stage now"]


def test_a_setting_of_a_newer_version_is_a_difference():
    saved = as_json(Config()) | {"of_tomorrow": 0.2}
    assert find_changes(fill_in(saved, Config), as_json(Config())) == ["of_tomorrow: 0.2 before, None now"]
