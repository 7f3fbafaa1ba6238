"""Every setting, its default and what it means; each class refuses what it may not hold.

The string below a field is its help text: `main.py --config configs/X.py --help` prints it. The classes are not
frozen, so that a config file may change single attributes of a default.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

StageName = Literal["zero_shot", "feature_extraction", "fine_tune", "from_scratch"]
STAGES: tuple[StageName, ...] = ("zero_shot", "feature_extraction", "fine_tune", "from_scratch")

# What `max_images=None` means for zero_shot; the training stages then read everything.
ZERO_SHOT_MAX_IMAGES = 1000


def refuse_unless(ok: bool, setting: str, value: Any, wanted: str) -> None:
    """Raises ValueError with the `setting`, its value and what is wanted, unless it is `ok`."""
    if not ok:
        raise ValueError(f"config.{setting}={value!r}: {wanted}")


def check_choices(settings: Any, prefix: str) -> None:
    """Refuses a value that is none of its setting's choices: the command line checks them, a config file may hold
    anything."""
    for name, hint in get_type_hints(type(settings)).items():
        literal = next((part for part in (hint, *get_args(hint)) if get_origin(part) is Literal), None)
        if literal is not None:
            choices = (*get_args(literal), *(None for part in get_args(hint) if part is type(None)))
            value = getattr(settings, name)
            refuse_unless(value in choices, prefix + name, value, f"must be one of {', '.join(map(str, choices))}")


@dataclass
class Data:
    """Where the images come from and how they are cut into splits."""

    name: str = "cifar10"
    """A TensorFlow Datasets name, `folder:PATH` with a subfolder per class, or `digits` (scikit-learn's)."""
    dir: str | None = None
    """TFDS's data_dir. None: TFDS's own default."""
    classes: tuple[str, ...] = ()
    """Names of the classes to use, in this order; empty: all."""
    image_size: int | None = None
    """Side of the square images in pixels. None: the data's own where it is small and fixed, else 224."""
    validation_split: str | None = None
    """Split evaluated after every epoch. None: `validation` or `val` where the data has one, else `test`. A slice of
    train such as `train[90%:]` takes those rows out of training, and test_split is evaluated once at the end."""
    test_split: str | None = None
    """Split evaluated once at the end when validation_split slices train. None: `test` where the data has it."""
    max_images: int | None = None
    """Read at most this many images of each split, a seeded sample. None: all, and 1,000 for zero_shot."""
    augment: Literal["none", "flip", "flip_crop"] = "none"
    """Training images: mirrored at random, or mirrored and shifted by up to an eighth of their side."""

    def check(self) -> None:
        """Raises ValueError for what no run can read."""
        check_choices(self, "data.")
        size, images = self.image_size, self.max_images
        refuse_unless(size is None or size >= 32, "data.image_size", size, "at least 32")
        refuse_unless(images is None or images >= 1, "data.max_images", images, "at least 1")


@dataclass
class Cache:
    """What is computed once and found again: decoded images, and the activations of frozen units."""

    features: bool = True
    """Run the frozen units once and train on their activations; off by itself where images are augmented."""
    memory_gib: float = 4.0
    """A split up to this size lives on the device; a larger one is streamed to it."""
    disk_gib: float = 16.0
    """Most that decoded images and activations take in the user's cache folder, what was unused longest goes first; 0
    keeps none."""

    def check(self) -> None:
        """Raises ValueError for a negative size."""
        for name in ("memory_gib", "disk_gib"):
            gib = getattr(self, name)
            refuse_unless(gib >= 0, f"cache.{name}", gib, "must be at least 0")

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * 2**30)

    @property
    def disk_bytes(self) -> int:
        return int(self.disk_gib * 2**30)


@dataclass
class Compute:
    """How the devices compute."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the blocks; parameters, statistics, averages, head and loss are float32 throughout. auto: bfloat16 on TPUs
    and GPUs, float32 on CPUs."""
    shard_optimizer: bool = False
    """Every device keeps a part of the optimizer's state, not all of it."""


# The settings that an optimizer uses beside its learning rate.
OPTIMIZER_USES = {"adam": ("beta_1", "beta_2", "epsilon")}


@dataclass
class Optimizer:
    """How the weights that train are moved; the defaults are Keras's."""

    name: Literal["adam"] = "adam"
    """adam: Adam in Keras's formula."""
    learning_rate: float = 1e-3
    """Step size, constant."""
    beta_1: float = 0.9
    """Decay of the mean of the gradients."""
    beta_2: float = 0.999
    """Decay of the mean of their squares."""
    epsilon: float = 1e-7
    """Added to the root of the uncorrected second moment, as Keras does."""

    def check(self) -> None:
        """Raises ValueError for what the optimizer cannot be, or for a setting that `name` does not use."""
        check_choices(self, "optimizer.")
        used = ("name", "learning_rate", *OPTIMIZER_USES[self.name])
        for setting in (f for f in dataclasses.fields(self) if f.name not in used):
            value = getattr(self, setting.name)
            wanted = f"{self.name} does not use it; leave it out"
            refuse_unless(value == setting.default, f"optimizer.{setting.name}", value, wanted)
        for name in ("learning_rate", "epsilon"):
            refuse_unless(0 < getattr(self, name) < math.inf, f"optimizer.{name}", getattr(self, name), "must be > 0")
        for name in ("beta_1", "beta_2"):
            refuse_unless(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "must be in [0, 1)")


@dataclass
class Stage:
    """What one stage sets for itself."""

    stage: StageName = "feature_extraction"
    """Which of the four stages this is."""
    cut: str = "head"
    """First unit that trains; everything before it is frozen. A unit's name (conv1, conv2_block1 ... conv5_block3,
    head; other depths have more blocks) or the index of a layer of Keras's network without its head, as in
    base.layers[:143], which for ResNet50 is conv5_block1."""
    epochs: int = 10
    """Most epochs of this stage."""
    patience: int = 5
    """Stop at the patience-th epoch in a row without a lower val_loss, as Keras counts."""
    batch_size: int = 256
    """Images a step."""
    batch_norm: Literal["inference", "training"] = "inference"
    """BatchNorm of the units that train: running statistics, or the batch's. Frozen units always use inference."""
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass
class Shared:
    """What the stages of a lesson have in common, and a run of one stage has too."""

    pretrained: str | None = None
    """Source weights: `imagenet`, a Keras .h5 or .weights.h5, a torchvision or timm .safetensors, the folder of an
    earlier run of one stage, or None."""
    network: str | None = None
    """A ResNet by name, such as resnet101; a wrong name is answered with all of them. None: that of the source weights;
    for `imagenet` and from_scratch resnet50."""
    variant: Literal["v1", "v1.5"] | None = None
    """v1: Keras's, whose stages halve on their first 1x1 convolution; v1.5: torchvision's, on the 3x3. None: that of
    the source weights; for from_scratch v1."""
    seed: int = 0
    """Initial weights, order of the data and augmentation follow from it."""
    data: Data = field(default_factory=Data)
    cache: Cache = field(default_factory=Cache)
    compute: Compute = field(default_factory=Compute)
    compile_for: str | None = None
    """A TPU slice such as v5e:4x4: compile for it, say what that takes, and run nothing. Needs `.[tpu-preflight]`."""


@dataclass
class Config(Shared, Stage):
    """A run of one stage."""

    def check(self) -> None:
        """Refuses a config that cannot run.

        Raises:
          ValueError: naming the setting, its value and what would be right.
        """
        check_choices(self, "")
        for name, lowest in (("epochs", 1), ("patience", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            is_right = isinstance(value, int) and value >= lowest
            refuse_unless(is_right, name, value, f"must be a whole number, at least {lowest}")
        for settings in (self.optimizer, self.cache, self.data):
            settings.check()
        check_choices(self.compute, "compute.")
        self._check_weights()

    def _check_weights(self) -> None:
        if self.stage == "from_scratch":
            wanted = "from_scratch starts from no weights; leave it out, or take the stage fine_tune"
            refuse_unless(self.pretrained is None, "pretrained", self.pretrained, wanted)
        elif self.stage == "fine_tune":
            wanted = "fine_tune goes on from a run: --config.pretrained=RUN/feature_extraction"
            refuse_unless(self.pretrained not in (None, "imagenet"), "pretrained", self.pretrained, wanted)
        else:
            wanted = f"{self.stage} needs source weights: imagenet, a weight file or the folder of a run"
            refuse_unless(self.pretrained is not None, "pretrained", self.pretrained, wanted)
        if self.pretrained == "imagenet":
            wanted = "the weights of imagenet are Keras's, v1; v1.5 is read from torchvision's .safetensors"
            refuse_unless(self.variant in (None, "v1"), "variant", self.variant, wanted)


# The stage of a lesson that makes its source weights, where `source_classes` ask for them.
SOURCE = "source"


def four_stages() -> dict[str, Stage]:
    """The lesson: a network as it is, a new head, its last stage of blocks, everything; and the source weights."""
    tuned = Optimizer(learning_rate=1e-4)
    return {
        SOURCE: Stage("from_scratch", cut="conv1", epochs=30),
        "zero_shot": Stage("zero_shot"),
        "feature_extraction": Stage("feature_extraction"),
        "fine_tune": Stage("fine_tune", cut="conv5_block1", epochs=40, optimizer=tuned),
        "from_scratch": Stage("from_scratch", cut="conv1", epochs=30),
    }


@dataclass
class Lesson(Shared):
    """Several stages in one workdir, on the same data, in the order in which they stand.

    A fine_tune goes on from the feature_extraction or fine_tune before it. The others start from `pretrained`, or from
    the stage `source`, which runs only where there are `source_classes`.
    """

    source_classes: tuple[str, ...] = ()
    """Train the source weights first, from scratch, on these classes of the same data (stages.source); `pretrained` is
    then None."""
    stages: dict[str, Stage] = field(default_factory=four_stages)

    @property
    def active(self) -> dict[str, Stage]:
        """The stages that run."""
        return {name: stage for name, stage in self.stages.items() if name != SOURCE or self.source_classes}

    def origins(self) -> dict[str, str | None]:
        """For each stage that runs, the stage whose weights it starts from; None: `pretrained`, or none at all."""
        source = SOURCE if self.source_classes else None
        tuned: str | None = source
        found: dict[str, str | None] = {}
        for name, stage in self.active.items():
            starts: dict[StageName, str | None] = {"from_scratch": None, "fine_tune": tuned}
            found[name] = starts.get(stage.stage, source)
            if stage.stage in ("feature_extraction", "fine_tune"):
                tuned = name
        return found

    def config(self, name: str, pretrained: str | None) -> Config:
        """The `Config` of one stage, with `pretrained` as its weights."""
        classes = self.source_classes if name == SOURCE else self.data.classes
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Shared)} | {"compile_for": None}
        return Config(
            **vars(self.stages[name])
            | shared
            | {"pretrained": pretrained, "data": dataclasses.replace(self.data, classes=classes)}
        )


AnyConfig = Config | Lesson


def as_json(config: Any) -> Any:
    """What `config.json` holds."""
    return json.loads(json.dumps(jsonable(asdict(config))))


def jsonable(value: Any) -> Any:
    """`value` with tuples as lists and numbers that are not finite, which JSON does not have, as None."""
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
