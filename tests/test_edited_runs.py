"""A run's folder that somebody has edited, with the digests to match: one line says what is wrong, or it is made
again."""

import json
import math
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import jax
import optax
import pytest
from tiny_runs import TINY, make_source, read_rows, small

from tljax.cli import main
from tljax.commands.show import show
from tljax.config import Cache, Data, Recipe
from tljax.data.preprocessing import CAFFE
from tljax.mirror_gain import read_settings
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, abstract_variables, describe_network
from tljax.runs import checkpoints, files, saved_values, workdir
from tljax.runs.integrity import CHECKSUMS, Damaged, check_files, list_files
from tljax.runs.journal import Journal
from tljax.runs.learned import NOTHING
from tljax.runs.saved_values import check_summary
from tljax.stages.from_config import run
from tljax.training.state import create_state
from tljax.trees import digest_json
from tljax.weights.pretrained import load_weights

GONE = object()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "run")


@pytest.fixture
def copy(source, tmp_path) -> Path:
    return shutil.copytree(source, tmp_path / "run")


def change(values: dict, key: str, value) -> None:
    """Changes the value at a key with dots, or removes it."""
    *outer, last = key.split(".")
    for name in outer:
        values = values[name]
    if value is GONE:
        del values[last]
    else:
        values[last] = value


def edit(folder: Path, key: str, value) -> None:
    """Edits the meta of the checkpoint, as somebody would who knows how it is kept."""
    newest = max(
        (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
    )
    path = newest / "meta" / "metadata"
    content = json.loads(path.read_text())["content"]
    change(content, key, value)
    path.write_text(json.dumps({"content": content, "sha256": digest_json(content)}))
    (newest / CHECKSUMS).unlink()
    list_files(newest)


@contextmanager
def in_time(seconds: float = 300):
    """A block that fails instead of waiting forever."""

    def fail(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


NEEDED = [key for key in (*saved_values.READ_KEYS, *saved_values.WEIGHTS_KEYS) if key != "fit"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, GONE) for key in NEEDED),
        *((key, value) for key in ("network", "preprocessing") for value in ([], 5, None)),
        *(("preprocessing.std", std) for std in ([1, 0, 1], [-1, 1, 1], [math.nan] * 3, [math.inf] * 3, [1, 1], "abc")),
        ("preprocessing.mean", [1e300, 0, 0]),
        ("preprocessing.scale", 0),
        ("preprocessing.scale", "1"),
        ("preprocessing.channels", "xyz"),
        ("preprocessing.channels", []),
        ("fit", "other"),
        ("fit", []),
        ("network.variant", "v9"),
        ("network.variant", {}),
        *(("network.stage_sizes", sizes) for sizes in ([10**6], [1] * 1000, [1, 1, 1], [1, 1, 1, 2], [0], ["1"], 4)),
        *(("network.width", width) for width in (10**9, 16, 0, 8.0, True)),
        *(("network.num_classes", classes) for classes in (10**9, 4, 0)),
        *(("network.hidden", sizes) for sizes in ([8], [10**12], 5)),
        *(("cut", cut) for cut in ("head", "conv9_block9", 5, None)),
        *(("image_size", size) for size in (10**6, 0, "32")),
        *(("class_names", names) for names in ("abc", [1, 2, 3], ["a"])),
        *(("best", best) for best in (999, -1, "1", None, 1.0)),
        *(("digest", digest) for digest in ([], {"params": "x"}, {"params/a/b": "x"})),
        *(("history", history) for history in (5, [5], [{}], [{"epoch": 1}])),
        ("stopper", {}),
        ("begun", {"steps": 5, "sums": [[], [], []], "seconds": 0.0}),
        *(
            ("judged", judged)
            for judged in (5, [5], [{}], [{"losses": "", "right": ""}], [{"losses": "AA", "right": ""}])
        ),
    ],
)
def test_an_edited_meta_is_one_line_with_the_folder_and_the_key(copy, key, value):
    edit(copy, key, value)
    with pytest.raises(ValueError) as error:
        load_weights(str(copy))
    said = str(error.value)
    assert str(copy) in said and "\n" not in said and len(said) < 600
    # A cut is compared with the arrays that lie there, and a best checkpoint with those that are there.
    assert key.split(".")[-1] in said or (key, value) in [("cut", "head"), ("best", 999)]


@pytest.mark.parametrize("key", ["network.stage_sizes", "network.hidden"])
def test_a_huge_network_is_not_built(copy, monkeypatch, key):
    monkeypatch.setattr(checkpoints, "build_network", lambda _: pytest.fail("it was built"))
    edit(copy, key, [10**6])
    with pytest.raises(Damaged, match=f"its meta was edited: {key}="):
        load_weights(str(copy))


def test_what_a_run_may_have_saved_is_read(copy):
    edit(copy, "preprocessing.author", "somebody")
    edit(copy, "fit", "pad")
    edit(copy, "history", [{"stage": "fine_tune", "epoch": 1, "loss": 1.0, "accuracy": 0.5,
                            "val_loss": math.nan, "val_accuracy": None}])  # fmt: skip
    weights = load_weights(str(copy))
    assert (weights.preprocessing, weights.fit, len(weights.history)) == (CAFFE, "pad", 1)


@pytest.mark.parametrize("arguments", [("predict", "photo.png"), ("export", "model.onnx")])
def test_every_command_says_it_in_one_line(copy, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    edit(copy, "preprocessing.std", [0, 1, 1])
    command, argument = arguments
    with pytest.raises(SystemExit):
        main([command, str(copy), argument])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "preprocessing.std=[0, 1, 1] must be" in last and last.startswith("main.py: checkpoint ")


def test_a_run_does_not_start_from_it(copy, tmp_path):
    edit(copy, "preprocessing.std", [0, 1, 1])
    with pytest.raises(ValueError, match=r"preprocessing\.std=\[0, 1, 1\] must be"):
        run(small("feature_extraction", pretrained=str(copy)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def go_on(folder: Path):
    """The progress with which the run in `folder`, which `make_source` made, goes on."""
    model = ResNet(3, architecture=TINY)
    cut = Cut(model.units, "conv1")
    shapes = jax.eval_shape(lambda tree: create_state(tree, optax.identity(), cut), abstract_variables(model))
    about = {"cut": "conv1", "network": describe_network(model), "preprocessing": CAFFE._asdict()}
    with checkpoints.open_checkpoints(folder, own=True) as kept:
        return Journal(folder, kept, cut, {}, about, (), 1, NOTHING).read(shapes)


@pytest.mark.parametrize("key", ["preprocessing", "network.variant", "history", "stopper", "begun", "digest", "best"])
def test_a_checkpoint_whose_meta_was_edited_is_put_aside(copy, capsys, key):
    assert go_on(copy)[0] is not None
    edit(copy, key, "x")
    assert go_on(copy)[0] is None
    said = capsys.readouterr().err
    assert f"is damaged: its meta was edited: {key}='x' must be" in said and "it starts over" in said


@pytest.mark.parametrize("key", ["preprocessing", "history", "stopper", "begun"])
def test_what_a_run_goes_on_from_is_missed_by_name(copy, capsys, key):
    edit(copy, key, GONE)
    if key == "preprocessing":
        assert go_on(copy)[0] is None and "it has no 'preprocessing'" in capsys.readouterr().err
        return
    with pytest.raises(ValueError, match=f"run: the meta of its checkpoint was edited: it has no '{key}'"):
        go_on(copy)


SUMMARY = {
    "stage": "from_scratch", "loss": 1.0, "accuracy": 0.5, "seconds": 1.5, "best_epoch": 1, "epochs": 1,
    "params": {"trainable": 9}, "test": {"loss": None, "accuracy": 0.5}, "labels": {"train": 60},
    "data": {"splits": {"validation": {"images": 60}}},
}  # fmt: skip
CALIBRATION = {
    "temperature": 1.0, "fitted_on": {"split": "validation", "images": 60}, "measured_on": {"split": "test"},
}  # fmt: skip
BINS = {"with_temperature": [[3, 0.5, 1.0]], "without_temperature": []}
SUMMARIES = [
    ("loss", "low"), ("accuracy", 7), ("accuracy", GONE), ("seconds", None), ("stage", 5), ("epochs", GONE),
    ("test", 5), ("params", GONE), ("params.trainable", "x"), ("labels", []), ("data.splits", 5),
    ("data.splits.validation.images", 0), ("data.splits", {"validation": {"classes": {"cat": "x"}}}),
    ("data.splits", {"train": {"images": None}}),
    ("balanced_accuracy", "x"), ("test", {"loss": 1.0, "accuracy": 1.0, "balanced_accuracy": "x"}),
    ("solved", {"held_out": {"loss": 1.0, "accuracy": 0.5, "pictures": 5, "worst_class": 5}}),
    ("class_names", [5]), ("class_accuracy", {"cat": 2}), ("calibration", {}), ("calibration", {
        "temperature": 1.0, "fitted_on": {"split": "validation", "images": "x"}, "measured_on": {"split": "test"}}),
    ("solved", {"copies": "x"}), ("unmapped_classes", [5]), ("unmapped_mass", "x"), ("solved", {"held_out": 5}),
    ("calibration", CALIBRATION | {"bins": 5}), ("calibration", CALIBRATION | {"bins": {"with_temperature": []}}),
    ("calibration", CALIBRATION | {"bins": BINS | {"without_temperature": [[0, 0.5, 0.5]]}}),
    ("calibration", CALIBRATION | {"bins": BINS | {"without_temperature": [[1, 0.5, 2]]}}),
    ("calibration", CALIBRATION | {"coverage": {"0.9": {"covered": 1.0, "labels": 1.5, "sizes": [1, "x"]}}}),
    ("calibration", CALIBRATION | {"coverage": {"0.9": {"covered": 2, "labels": 1.5}}}),
    ("calibration", CALIBRATION | {"coverage": {"x": {"covered": 0.9, "labels": 1.5}}}),
    ("calibration", CALIBRATION | {"measured_on": {"split": "test", "images": None}}),
    ("solved", {"groups": "x"}), ("worth", 5), ("worth", {"groups": 2, "pictures": 0}),
    ("solved", {"held_out": {"loss": 1.0, "accuracy": 0.5, "pictures": 5, "groups": "x"}}),
    ("unchosen", {}), ("unchosen", {"accuracy": 0.5, "low": 0.4, "high": 2}),
    ("seconds", 2**64), ("epochs", 2**63), ("frozen_leaves_unchanged", "x"),
    ("params", {"trainable": 9, "non_trainable": "x"}), ("data.splits", {"train": {"of": None}}),
    *((f"data.{name}", 0.5) for name in ("name", "image_size", "left_out", "notes", "warnings")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), SUMMARIES)
def test_an_edited_summary_is_one_line(tmp_path, key, value):
    summary = json.loads(json.dumps(SUMMARY))
    (tmp_path / "stage").mkdir()
    files.write_json(tmp_path / "stage" / "summary.json", summary)
    show(tmp_path)
    change(summary, key, value)
    files.write_json(tmp_path / "stage" / "summary.json", summary)
    with pytest.raises(ValueError, match=rf"stage/summary\.json is no summary of a run, or damaged .*{key}") as error:
        show(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "calibration",
    [CALIBRATION, CALIBRATION | {"coverage": {"0.9": {"covered": 0.9, "labels": 1.5}}},
     CALIBRATION | {"bins": BINS, "coverage": {"0.9": {"covered": 0.9, "labels": 1.5, "sizes": [3, 0, 1]}}}],
    ids=["without others", "before bins", "now"],
)  # fmt: skip
def test_calibrations_of_all_versions_are_read(calibration):
    check_summary(SUMMARY | {"calibration": calibration}, in_lesson=True)


def put_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_damaged_results_are_written_again(source, tmp_path, capsys):
    """The rows of a finished run lack what they need, or are a pipe, which nobody waits for."""
    folder, config = tmp_path / "run", small("feature_extraction", pretrained=str(source))
    run(config, folder)
    rows, shown = read_rows(folder), show(folder)
    files.write_rows(folder / "metrics.jsonl", [{"stage": "feature_extraction"}])
    put_pipe(folder / "environment.jsonl")
    with in_time(100):
        run(config, folder)
    assert "goes on after epoch 1" in capsys.readouterr().out
    assert read_rows(folder) == rows and show(folder).split(", ")[:2] == shown.split(", ")[:2]
    assert len(files.read_rows(folder / "environment.jsonl")) == 1


@pytest.fixture
def finished(tmp_path) -> Path:
    """The files of a finished run but for its checkpoints."""
    (tmp_path / "run").mkdir()
    workdir.begin_run(tmp_path / "run", small("from_scratch"), overwrite=False)
    files.write_json(tmp_path / "run" / "summary.json", SUMMARY)
    files.write_rows(tmp_path / "run" / "metrics.jsonl", [])
    assert workdir.find_run(tmp_path / "run", small("from_scratch")) == "finished"
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", ["pipe", "nested", "other"])
def test_a_run_without_its_results_is_not_finished(finished, name, damage):
    if damage == "pipe":
        put_pipe(finished / name)
    else:
        (finished / name).write_text({"nested": "[" * 10**5, "other": '{"stage": "from_scratch"}'}[damage])
    with in_time():
        assert workdir.find_run(finished, small("from_scratch")) == "begun"


@pytest.mark.parametrize("data", [5, None, [], "x"])
def test_an_edited_config_is_another_config(finished, data):
    files.write_json(finished / "config.json", files.read_json(finished / "config.json") | {"data": data})
    with pytest.raises(ValueError, match=r"holds a run of another config \(data") as error:
        run(small("from_scratch"), finished)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("config.json", "is no regular file"), (".lock", "cannot be written to")])
def test_a_pipe_in_place_of_what_a_run_needs_is_one_line(finished, name, said):
    put_pipe(finished / name)
    with in_time(), pytest.raises(OSError, match=rf"run.* {said}"):
        run(small("from_scratch"), finished)


def test_a_pipe_in_place_of_an_unfinished_file_is_one_line(finished):
    put_pipe(finished / "config.json.tmp")
    with in_time(), pytest.raises(OSError, match=r"config\.json cannot be written"):
        files.write_json(finished / "config.json", {})


def test_a_pipe_in_place_of_a_file_that_is_read_is_one_line(copy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("weights.h5", "weights.safetensors", "config.py", "run/reference.npz", "run/recipe.json"):
        put_pipe(Path(name))
    (tmp_path / "lesson" / "stage").mkdir(parents=True)
    put_pipe(tmp_path / "lesson" / "stage" / "summary.json")
    said = {
        ("predict", "run", "photo.png"): "reference.npz is no regular file",
        ("predict", "weights.h5", "photo.png"): "is neither a file, nor a folder",
        ("predict", "weights.safetensors", "photo.png"): "is neither a file, nor a folder",
        ("show", "lesson"): "summary.json is no regular file",
        ("--config", "config.py", "--workdir", "new"): "there is no such file",
    }
    for arguments, line in said.items():
        with in_time(60), pytest.raises(SystemExit) as ended:
            main(list(arguments))
        last = (capsys.readouterr().err.strip().splitlines() or [str(ended.value)])[-1]
        assert line in last, arguments
    with in_time(), pytest.raises(OSError, match=r"recipe\.json is no regular file"):
        run(Recipe(data=Data(name="digits")), tmp_path / "run")


@pytest.mark.parametrize("name", [CHECKSUMS, "meta/metadata", "variables/_METADATA", "variables/manifest.ocdbt", "new"])
def test_a_pipe_in_a_checkpoint_is_damage(copy, name):
    put_pipe(copy / "checkpoints" / "1" / name)
    with in_time(), pytest.raises(ValueError, match=rf"checkpoints/1 is damaged: {name} is no regular file"):
        load_weights(str(copy))


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\nb", "a\\b", os.fsdecode(b"caf\xe9")])
def test_a_file_with_an_odd_name_is_no_damage(copy, capsys, name):
    folder = copy / "checkpoints" / "1"
    (folder / name).write_text("x")
    check_files(folder)
    assert " is not in SHA256SUMS" in capsys.readouterr().out
    (folder / CHECKSUMS).unlink()
    list_files(folder)
    check_files(folder)
    assert not capsys.readouterr().out
    (folder / name).write_text("y")
    with pytest.raises(Damaged, match="SHA256SUMS is not the file that was saved"):
        check_files(folder)


def test_sizes_without_limits_are_read_again(tmp_path):
    """JSON has no infinity."""
    cache = Cache(memory_gib=math.inf, disk_gib=math.inf)
    workdir.begin_run(tmp_path, small("from_scratch", cache=cache), overwrite=False)
    assert "Infinity" not in (tmp_path / "config.json").read_text()
    assert read_settings(tmp_path)[1] == cache
    assert workdir.find_run(tmp_path, small("from_scratch", cache=cache)) == "begun"
