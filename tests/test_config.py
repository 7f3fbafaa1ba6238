"""What a run may not be is refused with the setting's name and value; the command line overrides a config file."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest

from tljax import config as settings
from tljax.cli import COMMANDS, main, parse_flags
from tljax.config import STAGES, Cache, Config, Data, Head, Lesson, Optimizer, Recipe, Stage
from tljax.data.datasets import Extent
from tljax.networks.architectures import RESNET50
from tljax.networks.cut import find_cut
from tljax.runs.saved_configs import explain_changes, growing
from tljax.stages.rules import choose_augmentation, choose_stages

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
GOOD = Config(pretrained="imagenet")
RIDGE = Head(init="ridge")


def flags(config: str, *arguments: str):
    return parse_flags(["--config", str(ROOT / "configs" / f"{config}.py"), "--workdir", "runs/x", *arguments])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("none", ()),
        ("flip_crop", (("flip", 0.5), ("shift", 0.125))),
        ("shift", (("shift", 0.125),)),
        ("crop=0.5, flip,mixup=1", (("crop", 0.5), ("flip", 0.5), ("mixup", 1.0))),
    ],
)
def test_augmentations_are_a_list_with_strengths(text, named):
    assert Data(augment=text).augmentations == named
    assert flags("feature_extraction", f"--config.data.augment={text}").config.data.augmentations == named


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cut": 143}, "config.cut=143: must be text, such as 'conv5_block1' or '143'"),
        ({"epochs": 0}, "config.epochs=0: must be a whole number, at least 1"),
        ({"epochs": 2.5}, "config.epochs=2.5"),
        ({"batch_norm": "train"}, "config.batch_norm='train': must be one of inference, training"),
        ({"data": Data(augment="flop")}, "config.data.augment='flop'"),
        (
            {"data": Data(augment="flip,flop")},
            "config.data.augment='flip,flop': 'flop' is not known; names are flip, shift, crop",
        ),
        ({"data": Data(augment="flip,,crop")}, "config.data.augment='flip,,crop': '' is not known"),
        (
            {"data": Data(augment="erase=2")},
            "config.data.augment='erase=2': the strength of erase is a number from 0 to 1",
        ),
        ({"data": Data(augment="crop=x")}, "config.data.augment='crop=x': the strength of crop"),
        ({"data": Data(augment="flip,flip=1")}, "config.data.augment='flip,flip=1': each name once"),
        ({"data": Data(views=4)}, "config.data.views=4: say in data.augment too how they differ"),
        (
            {"data": Data(views=4, augment="flip=0,shift")},
            "config.data.augment='flip=0,shift': with data.views flip mirrors",
        ),
        ({"data": Data(views=2.5, augment="flip")}, "config.data.views=2.5: at least 2"),
        ({"data": Data(augment=("flip", "shift"))}, "config.data.augment=.'flip', 'shift'.: must be text"),
        ({"data": Data(max_images="60")}, "config.data.max_images='60': a whole number"),
        ({"data": Data(augment="flip=")}, "config.data.augment='flip=': the strength of flip is a number"),
        ({"data": Data(views=1, augment="flip")}, "config.data.views=1: at least 2"),
        ({"data": Data(views=4, augment="flip")}, "config.data.views=4: flip alone has two"),
        ({"data": Data(views=4, augment="flip,mixup,cutmix")}, "config.data.views=4: mixup and cutmix draws new pairs"),
        ({"patience": 0}, "config.patience=0: must be a whole number, at least 1"),
        ({"batch_size": -8}, "config.batch_size=-8: must be a whole number, at least 1"),
        ({"seed": -1}, "config.seed=-1: must be a whole number, at least 0"),
        ({"optimizer": Optimizer(learning_rate=0.0)}, "config.optimizer.learning_rate=0.0: must be > 0"),
        ({"optimizer": Optimizer(learning_rate=-1e-3)}, "config.optimizer.learning_rate=-0.001: must be > 0"),
        ({"optimizer": Optimizer(learning_rate=float("inf"))}, "config.optimizer.learning_rate=inf: must be > 0"),
        ({"optimizer": Optimizer(learning_rate=float("nan"))}, "config.optimizer.learning_rate=nan: must be > 0"),
        ({"optimizer": Optimizer(beta_1=1.0)}, r"config.optimizer.beta_1=1.0: must be in \[0, 1\)"),
        ({"optimizer": Optimizer(beta_2=-0.1)}, r"config.optimizer.beta_2=-0.1: must be in \[0, 1\)"),
        ({"optimizer": Optimizer(epsilon=0.0)}, "config.optimizer.epsilon=0.0: must be > 0"),
        ({"data": Data(image_size=31)}, "config.data.image_size=31: at least 32"),
        ({"data": Data(max_images=0)}, "config.data.max_images=0: a whole number, at least 1"),
        ({"data": Data(labels_per_class=0)}, "config.data.labels_per_class=0: a whole number, at least 1"),
        ({"data": Data(seed=-1)}, "config.data.seed=-1: must be a whole number, at least 0"),
        ({"head": Head(init="solved")}, "config.head.init='solved': must be one of glorot, ridge"),
        ({"head": RIDGE, "stage": "from_scratch", "pretrained": None}, "config.head.init='ridge': is for"),
        ({"head": RIDGE, "data": Data(augment="flip")}, "config.data.augment='flip': head.init=ridge"),
        ({"head": RIDGE, "cache": Cache(features=False)}, "config.cache.features=False: head.init=ridge"),
        ({"head": RIDGE, "epochs": -1}, "config.epochs=-1: must be a whole number, at least 0"),
        ({"head": RIDGE, "data": Data(validation_split="none")}, "config.data.validation_split='none': without"),
        ({"epochs": 0, "data": Data(validation_split="none")}, "config.epochs=0: must be a whole number, at least 1"),
        ({"head": Head(at="conv4_block1"), "stage": "zero_shot"}, "config.head.at='conv4_block1': zero_shot uses"),
        ({"stage": "from_scratch"}, "config.pretrained='imagenet': from_scratch starts from no weights"),
        (
            {"zero_init_residual": True},
            "config.zero_init_residual=True: is for from_scratch; feature_extraction starts",
        ),
        ({"stage": "fine_tune"}, "config.pretrained='imagenet': fine_tune goes on from a run"),
        ({"stage": "fine_tune", "pretrained": None}, "config.pretrained=None: fine_tune goes on from a run"),
        ({"stage": "zero_shot", "pretrained": None}, "config.pretrained=None: zero_shot needs source weights"),
        ({"pretrained": None}, "config.pretrained=None: feature_extraction needs source weights"),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(GOOD, **wrong).check()


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"epochs": 1, "patience": 1, "batch_size": 1, "seed": 0},
        {"optimizer": Optimizer(beta_1=0.0, beta_2=0.0, epsilon=1e-12)},
        {"data": Data(image_size=32, max_images=1, labels_per_class=1)},
        {"head": RIDGE, "epochs": 0},
        {"head": RIDGE, "epochs": 0, "data": Data(validation_split="none")},
        {"head": Head(at="conv4_block1"), "stage": "from_scratch", "pretrained": None},
        {"stage": "zero_shot"},
        {"stage": "fine_tune", "pretrained": "runs/feature_extraction"},
        {"stage": "from_scratch", "pretrained": None},
    ],
)
def test_a_right_value_is_let_through(right):
    replace(GOOD, **right).check()


def test_a_setting_that_the_optimizer_does_not_use_is_refused_when_it_is_set(monkeypatch):
    monkeypatch.setitem(settings.OPTIMIZER_USES, "adam", ("beta_1", "beta_2"))
    replace(GOOD, optimizer=Optimizer(beta_1=0.5)).check()
    with pytest.raises(ValueError, match=r"^config.optimizer.epsilon=0.1: adam does not use it; leave it out"):
        replace(GOOD, optimizer=Optimizer(epsilon=0.1)).check()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_its_own_settings_and_the_shared_data_and_seed(name):
    lesson = Lesson(seed=7, data=Data(name="digits", classes=("5", "6")), source_classes=("0", "1"))
    lesson.stages[name] = Stage(name, cut="conv4_block1", epochs=3, optimizer=Optimizer(learning_rate=0.5))
    own = {"cut": "conv4_block1", "epochs": 3, "optimizer": Optimizer(learning_rate=0.5)}
    assert lesson.config(name, "runs/x") == Config(stage=name, pretrained="runs/x", seed=7, data=lesson.data, **own)


def test_the_source_is_from_scratch_on_classes_of_its_own():
    data = Data(name="digits", classes=("5", "6"), max_images=9, labels_per_class=2)
    lesson = Lesson(data=data, source_classes=("0", "1"))
    lesson.stages["source"] = Stage("from_scratch", cut="conv1", epochs=3)
    assert lesson.config("source", None) == Config(
        stage="from_scratch", cut="conv1", epochs=3, data=Data(name="digits", classes=("0", "1"), max_images=9)
    )
    assert lesson.data.classes == ("5", "6")


def test_each_stage_of_the_lesson_starts_from_the_one_before_it():
    assert Lesson().origins() == dict.fromkeys(STAGES) | {"fine_tune": "feature_extraction"}
    source = {"source": None, "zero_shot": "source", "feature_extraction": "source"}
    assert Lesson(source_classes=("0",)).origins() == source | {"fine_tune": "feature_extraction", "from_scratch": None}


def test_two_fine_tunes_in_a_row_start_from_each_other():
    stages = {
        "head": Stage("feature_extraction"),
        "block": Stage("fine_tune", cut="conv5_block1"),
        "more": Stage("fine_tune", cut="conv4_block1"),
        "other": Stage("feature_extraction"),
    }
    lesson = Lesson(pretrained="imagenet", stages=stages)
    assert lesson.origins() == {"head": None, "block": "head", "more": "block", "other": None}
    assert growing(lesson) == ("stages.more.epochs", "stages.other.epochs")
    lesson.stages["more"].optimizer.schedule = "cosine"
    assert growing(lesson) == ("stages.other.epochs",)
    assert growing(Config()) == ("epochs",)
    falling = Config(optimizer=Optimizer(schedule="linear"))
    assert growing(falling) == ()
    assert explain_changes(["epochs: 1 before, 2 now"], falling).endswith("so their number stays")
    assert explain_changes(["stages.more.epochs: 1 before, 2 now"], lesson).endswith("so their number stays")
    assert explain_changes(["seed: 1 before, 2 now"], falling) == "seed: 1 before, 2 now"


@pytest.mark.parametrize("gib", [math.inf, 1e300, 10**400, 2.0**40])
def test_a_size_that_no_machine_has_is_no_limit(gib):
    cache = Cache(memory_gib=gib, disk_gib=gib)
    cache.check()
    assert cache.memory_bytes == cache.disk_bytes >= 2**63
    assert Cache(memory_gib=0.5).memory_bytes == 2**29 and Cache(disk_gib=0).disk_bytes == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": Optimizer("adamw")}, "config.optimizer.weight_decay=0.0: without weight decay adamw is adam"),
        ({"optimizer": Optimizer(weight_decay=0.1)}, "config.optimizer.weight_decay=0.1: adam does not use it"),
        ({"optimizer": Optimizer("sgd", beta_1=0.8)}, "config.optimizer.beta_1=0.8: sgd does not use it"),
        ({"optimizer": Optimizer(warmup_epochs=10)}, "config.optimizer.warmup_epochs=10: must be fewer than epochs=10"),
        ({"optimizer": Optimizer(layer_decay=0)}, "config.optimizer.layer_decay=0: must be in"),
        ({"optimizer": Optimizer(clip_norm=0)}, "config.optimizer.clip_norm=0: must be > 0, or None"),
        ({"optimizer": Optimizer(ema_decay=1)}, "config.optimizer.ema_decay=1: must be in"),
        ({"optimizer": Optimizer(learning_rate=1e39)}, "config.optimizer.learning_rate=1e+39: must be > 0, at most"),
        ({"optimizer": Optimizer(learning_rate="0.1")}, "config.optimizer.learning_rate='0.1': must be > 0"),
        ({"optimizer": Optimizer(warmup_epochs=math.nan)}, "config.optimizer.warmup_epochs=nan: must be >= 0"),
        ({"optimizer": Optimizer(layer_decay=math.nan)}, "config.optimizer.layer_decay=nan: must be in"),
        ({"optimizer": Optimizer(clip_norm=math.inf)}, "config.optimizer.clip_norm=inf: must be > 0, or None"),
        ({"optimizer": Optimizer(ema_decay=None)}, "config.optimizer.ema_decay=None: must be in"),
        ({"label_smoothing": math.nan}, "config.label_smoothing=nan: must be in"),
        ({"head": Head(dropout="0.5")}, "config.head.dropout='0.5': must be in"),
        ({"class_weights": {"cat": math.inf}}, "config.class_weights={'cat': inf}: weights are numbers >= 0"),
        ({"cache": Cache(memory_gib=math.nan)}, "config.cache.memory_gib=nan: must be at least 0; inf is no limit"),
        ({"cache": Cache(disk_gib=-1)}, "config.cache.disk_gib=-1: must be at least 0"),
        ({"cache": Cache(disk_gib="16")}, "config.cache.disk_gib='16': must be at least 0"),
        ({"optimizer": Optimizer(schedule="cos")}, "config.optimizer.schedule='cos': must be one of constant, linear"),
        ({"monitor": "accuracy"}, "config.monitor='accuracy': must be one of val_loss, val_accuracy"),
        ({"label_smoothing": 1}, "config.label_smoothing=1: must be in"),
        ({"seed": 2**63}, "config.seed=9223372036854775808: must be less than 2**63"),
        ({"class_weights": {"5": "2"}}, "config.class_weights={'5': '2'}: weights are numbers >= 0"),
        ({"class_weights": {5: 2.0}}, "config.class_weights={5: 2.0}: names of classes are text"),
        ({"head": Head(init="ridge"), "epochs": 0, "label_smoothing": 0.1}, "config.label_smoothing=0.1: is for"),
        ({"head": Head(hidden=(10**8,))}, "config.head.hidden=(100000000,): sizes are whole numbers from 1 to"),
        ({"class_weights": {"cat": -1.0}}, "config.class_weights={'cat': -1.0}: weights are numbers >= 0"),
        ({"class_weights": "ballanced"}, "config.class_weights='ballanced': must be one of none, balanced"),
        (
            {
                "data": Data(validation_split="none", holdout="test"),
                "head": Head(init="ridge"),
                "epochs": 0,
            },
            "config.data.holdout='test': with data.validation_split=none nothing is validated on",
        ),
        ({"head": Head(dropout=1)}, "config.head.dropout=1: must be in"),
        ({"head": Head(hidden=(0,))}, "config.head.hidden=(0,): sizes are whole numbers"),
        ({"head": Head(hidden=(8,), init="ridge")}, "config.head.hidden=(8,): head.init=ridge solves one dense layer"),
        (
            {"stage": "fine_tune", "pretrained": "runs/a", "head": Head(hidden=(8,))},
            "config.head.hidden=(8,): fine_tune uses",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Config(**{"pretrained": "imagenet"} | settings).check()


def test_stages_share_no_mutable_default():
    assert Lesson().stages["fine_tune"].optimizer is not Lesson().stages["fine_tune"].optimizer
    assert Stage().optimizer is not Stage().optimizer
    assert Lesson().data is not Lesson().data


@pytest.mark.parametrize("config", CONFIGS)
def test_a_shipped_config_runs_as_it_is_or_with_the_weights_that_it_asks_for(config):
    shipped = flags(config).config
    if isinstance(shipped, Recipe):
        stages = choose_stages(Extent(1000, 100, 10, 224), RESNET50, 1).stages
        shipped = shipped.lesson(stages, **choose_augmentation(stages, 1000).settings)
    if isinstance(shipped, Lesson):
        none = ("source", "from_scratch")
        stages = [shipped.config(name, None if name in none else "runs/x") for name in shipped.stages]
        assert (shipped.pretrained is None) == bool(shipped.source_classes)
    else:
        assert shipped.stage == config
        stages = [replace(shipped, pretrained="runs/feature_extraction") if config == "fine_tune" else shipped]
    for stage in stages:
        stage.check()
        find_cut(stage.cut, RESNET50)


def test_every_stage_has_a_shipped_config():
    assert {*STAGES, "four_stages", "demo", "few_labels", "gradual", "how_deep", "recipe"} == set(CONFIGS)


def test_a_setting_is_overridden_and_the_others_stay():
    given = flags("fine_tune", "--config.optimizer.learning_rate=3e-4", "--config.data.classes", "cat", "dog")
    assert given.config == Config(
        stage="fine_tune",
        cut="conv5_block1",
        epochs=40,
        optimizer=Optimizer(learning_rate=3e-4),
        data=Data(classes=("cat", "dog")),
    )
    assert (given.workdir, given.overwrite, given.debug) == (Path("runs/x"), False, False)


def test_a_setting_of_one_of_four_stages_is_overridden():
    shipped, given = flags("demo").config, flags("demo", "--config.stages.fine_tune.epochs=2", "--overwrite")
    assert (shipped.stages["fine_tune"].epochs, given.config.stages["fine_tune"].epochs) == (10, 2)
    assert given.config.stages["feature_extraction"] == shipped.stages["feature_extraction"]
    assert given.overwrite


def test_none_and_a_number_are_both_read_for_an_optional_number():
    assert flags("zero_shot", "--config.data.max_images=64").config.data.max_images == 64
    assert flags("zero_shot", "--config.data.max_images=None").config.data.max_images is None


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.zero_init_residual=maybe", ["--config.zero_init_residual", "'maybe' is neither True nor False"]),
        ("--config.epochs=two", ["--config.epochs", "'two'", "INT"]),
        ("--config.epochs=2.5", ["--config.epochs", "'2.5'"]),
        ("--config.optimizer.learning_rate=fast", ["--config.optimizer.learning_rate", "'fast'", "FLOAT"]),
        ("--config.batch_norm=train", ["--config.batch_norm", "'train'", "training"]),
    ],
)
def test_an_argument_that_cannot_be_read_is_refused_by_name(argument, parts, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as exit_:
        flags("fine_tune", argument)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("config", "typed", "said"),
    [
        ("fine_tune", "--config.epoch=3", "the nearest is --config.epochs=3"),
        ("fine_tune", "--epochs=3", "the nearest is --config.epochs=3"),
        ("fine_tune", "config.epochs=3", "the nearest is --config.epochs=3"),
        ("fine_tune", "--config.batchsize 8", "the nearest is --config.batch_size 8"),
        ("fine_tune", "--config.optimizer.learning_rat=1", "the nearest is --config.optimizer.learning_rate=1"),
        ("fine_tune", "--config.optimizer.learning-rat=1", "the nearest is --config.optimizer.learning_rate=1"),
        ("fine_tune", "--config.lr=1", "the nearest is --config.optimizer.learning_rate=1"),
        ("fine_tune", "--config.image_size=64", "the nearest is --config.data.image_size=64"),
        ("fine_tune", "--config.stages.fine_tune.epochs=3", "the nearest is --config.epochs=3"),
        ("fine_tune", "--config.workdr=x", "the nearest is --workdir=x"),
        ("fine_tune", "--config.foo=3", "settings are --config.NAME=VALUE, and main.py --config fine_tune --help"),
        (
            "few_labels",
            "--config.epochs=3",
            "type --config.stages.STAGE.epochs=3, with one of feature_extraction, fine",
        ),
        ("few_labels", "--config.lr=3", "type --config.stages.STAGE.optimizer.learning_rate=3, with one of"),
        ("few_labels", "--config.stages.finetune.epochs=3", "the nearest is --config.stages.fine_tune.epochs=3"),
        ("few_labels", "--config.stages.fine_tune.epoch=3", "the nearest is --config.stages.fine_tune.epochs=3"),
        ("few_labels", "--config.dta.name=digits", "the nearest is --config.data.name=digits"),
        ("gradual", "--config.head.at=conv1", "type --config.stages.STAGE.head.at=conv1, with one of head, from_conv5"),
        ("recipe", "--config.epochs=3", "a recipe chooses it itself"),
    ],
)
def test_a_setting_that_there_is_not_is_answered_with_the_nearest(config, typed, said):
    with pytest.raises(SystemExit) as exit_:
        parse_flags(["--config", config, "--workdir", "x", *typed.split()])
    message = str(exit_.value.code)
    assert message.startswith(f"main.py: {typed}: there is no such setting") and said in message, message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fewlabels", "the nearest is --config few_labels, and main.py --help lists the shipped configs"),
        ("few-labels", "the nearest is --config few_labels,"),
        ("few_labels.py", "the nearest is --config few_labels,"),
        ("Few_Labels", "the nearest is --config few_labels,"),
        ("nowhere/few_labels.py", "the nearest is --config few_labels,"),
        ("/nowhere/fewlabels.py", "the nearest is --config few_labels,"),
        ("own/few_labels", "the nearest is --config own/few_labels.py,"),
        ("own/mein.py", "the nearest is --config own/mine.py,"),
        ("own", ", and no shipped config but demo, feature"),
    ],
)
def test_a_config_that_there_is_not_is_answered_with_the_nearest(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    for stem in ("few_labels", "mine"):
        Path(f"own/{stem}.py").touch()
    with pytest.raises(SystemExit) as exit_:
        parse_flags(["--config", name, "--workdir", "x"])
    assert said in str(exit_.value.code) and "\n" not in str(exit_.value.code)


@pytest.mark.parametrize(
    ("typed", "on"),
    [("X=True", True), ("X True", True), ("X", True), ("X=false", False), ("X False", False), ("no_X", False)],
)
def test_a_setting_is_turned_on_and_off(typed, on):
    for place, name in (("", "zero_init_residual"), ("cache.", "features"), ("compute.", "shard_optimizer")):
        given = flags("from_scratch", *f"--config.{place}{typed.replace('X', name)}".split()).config
        assert attrgetter(place + name)(given) is on
    given = flags("demo", *f"--config.stages.from_scratch.{typed.replace('X', 'zero_init_residual')}".split()).config
    assert given.stages["from_scratch"].zero_init_residual is on
    assert flags("demo", *f"--{typed.replace('X', 'overwrite')}".split()).overwrite is on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir", "x"], "main.py: --config FILE is needed"),
        (["--config", "configs/nothing.py", "--workdir", "x"], "main.py: --config configs/nothing.py: there is no"),
        (["--config", "nothing", "--workdir", "x"], "main.py: --config nothing: there is no such file, and no shipped"),
    ],
)
def test_without_a_config_file_there_is_a_line_and_no_traceback(arguments, message):
    with pytest.raises(SystemExit) as exit_:
        parse_flags(arguments)
    assert str(exit_.value.code).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "it has no function get_config()"),
        ("def get_config():\n    return Config()\n", "line 2: NameError: name 'Config' is not defined"),
        ("def get_config(:\n", "SyntaxError: "),
        ("def get_config():\n    raise ValueError('two\\nlines')\n", "line 2: ValueError: two lines"),
        ("def get_config(): pass\n", "get_config() returned None, which is no Config, no Lesson and no Recipe"),
        ("import sys\nsys.exit(0)\n", "it ends the program"),
        ("import lies_beside\n", "line 1: ModuleNotFoundError: No module named 'lies_beside'"),
    ],
)
def test_a_config_file_that_fails_is_a_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(SystemExit) as exit_:
        parse_flags(["--config", str(tmp_path / "mine.py"), "--workdir", "x"])
    assert str(exit_.value.code).startswith(f"main.py: --config {tmp_path / 'mine.py'}: {message}")


def test_a_config_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", sys.path.copy())
    (tmp_path / "beside.py").write_text("from tljax.config import Config\n")
    (tmp_path / "mine.py").write_text("import beside\n\ndef get_config():\n    return beside.Config(epochs=3)\n")
    assert parse_flags(["--config", str(tmp_path / "mine.py"), "--workdir", "x"]).config.epochs == 3


def test_a_shipped_config_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    by_path = flags("demo").config
    monkeypatch.chdir(tmp_path)
    assert parse_flags(["--config", "demo", "--workdir", "x"]).config == by_path


def test_the_workdir_is_required(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_flags(["--config", str(ROOT / "configs" / "demo.py")])
    assert exit_.value.code == 2
    assert "--workdir" in capsys.readouterr().err


def test_help_lists_settings_with_what_they_mean_and_their_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as exit_:
        flags("fine_tune", "--help")
    assert exit_.value.code == 0
    lines = [line.strip(" │") for line in capsys.readouterr().out.splitlines()]
    for setting, text in [
        ("--config.optimizer.learning_rate FLOAT", "Highest learning rate. (default: 0.0001)"),
        ("--config.epochs INT", "Most epochs that this stage trains. (default: 40)"),
        ("--overwrite [{True,False}]", "Delete the run that is in the workdir first. (default: False)"),
        ("--workdir PATH", "Folder that the run is written to. (required)"),
    ]:
        assert lines[lines.index(setting) + 1] == text


@pytest.mark.parametrize("config", CONFIGS)
def test_help_gives_each_default_once(config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        flags(config, "--help")
    found = re.split(r"\n\W*--(?=\w)", capsys.readouterr().out)[2:]
    given = [re.findall(r"\bdefault\b(?!: \))", text) for text in found]
    assert len(found) > 20 and [text for text, each in zip(found, given, strict=True) if len(each) != 1] == []


def test_version_and_help_say_what_there_is(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("tljax 0.")
    main(["--help"])
    text = capsys.readouterr().out
    assert "--config FILE --workdir DIR" in text and all(f"  {name} " in text for name in COMMANDS)
    about = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  "))
    assert about["from_scratch"] == "The whole network from random weights, CIFAR-10."
    assert all(name in about and about[name].endswith(".") for name in CONFIGS)


def test_help_of_a_command_imports_nothing_large():
    code = """import sys
from tljax.cli import COMMANDS, run_command
for name in COMMANDS:
    try:
        run_command(name, "--help")
    except SystemExit:
        pass
large = {"jax", "flax", "optax", "orbax", "PIL", "numpy", "h5py", "scipy", "tqdm", "tensorflow_datasets", "matplotlib"}
print(sorted(large & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--explain DIR" in done.stdout and ".weights.h5" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_that_does_not_exist_is_a_line():
    with pytest.raises(SystemExit) as exit_:
        main(["predikt", "runs/x"])
    assert str(exit_.value.code).startswith("main.py: 'predikt' is no command; take one of show")
