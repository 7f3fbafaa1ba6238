"""Every setting with its default and its meaning. Each class checks its own values.

The string below a field is its help text: `main.py --config configs/X.py --help` prints it. The classes are not
frozen, so that a config file may change single attributes of a default.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

StageName = Literal["zero_shot", "feature_extraction", "fine_tune", "from_scratch"]
Monitor = Literal["val_loss", "val_accuracy"]
STAGES: tuple[StageName, ...] = ("zero_shot", "feature_extraction", "fine_tune", "from_scratch")

# The number of images that zero_shot reads where `data.max_images` is None. The other stages then read all.
ZERO_SHOT_MAX_IMAGES = 1000
# The `data.validation_split` with which all labels are learned from, and the `data.test_split` that is not evaluated.
NOT_READ = "none"
# How `data.group` names a column of a table.
COLUMN = "column:"


# The largest number of float32.
LARGEST = 3.4e38


def refuse_unless(ok: bool, setting: str, value: Any, wanted: str) -> None:
    """Raises ValueError with the `setting`, its value and what is `wanted`, unless `ok`."""
    if not ok:
        raise ValueError(f"config.{setting}={value!r}: {wanted}")


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether `value` is a number from `low` to `high`; NaN is none. A config file may hold anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_finite(value: Any) -> bool:
    # A larger number is infinite in float32, in which runs compute.
    return is_number(value, -LARGEST, LARGEST)


def _is_share(value: Any) -> bool:
    return is_number(value, 0, 1) and value < 1


def check_choices(settings: Any, prefix: str) -> None:
    """Raises ValueError for a value that is not among its setting's choices. The command line checks them, but a config
    file may hold anything."""
    for name, hint in get_type_hints(type(settings)).items():
        literal = next((part for part in (hint, *get_args(hint)) if get_origin(part) is Literal), None)
        if literal is not None and not isinstance(getattr(settings, name), dict):
            choices = (*get_args(literal), *(None for part in get_args(hint) if part is type(None)))
            value = getattr(settings, name)
            refuse_unless(value in choices, prefix + name, value, f"must be one of {', '.join(map(str, choices))}")


def check_seed(setting: str, seed: Any) -> None:
    """Raises ValueError for a seed that random numbers cannot be drawn from."""
    refuse_unless(isinstance(seed, int) and seed >= 0, setting, seed, "must be a whole number, at least 0")
    refuse_unless(seed < 2**63, setting, seed, "must be less than 2**63")


# What `data.augment` may name: the usual strength, and the largest.
AUGMENTATIONS = {
    "flip": (0.5, 1.0),
    "shift": (0.125, 0.5),
    "crop": (0.65, 0.95),
    "color": (0.4, 1.0),
    "trivial": (1.0, 1.0),
    "erase": (0.25, 1.0),
    "mixup": (0.2, 10.0),
    "cutmix": (1.0, 10.0),
}


# The value of `data.augment` for which a recipe chooses it, and `data.views`.
AUTO = "auto"


@dataclass
class Data:
    """Which images are read, and how they are split into training, validation and test."""

    name: str = "cifar10"
    """`folder:PATH` with a subfolder per class, `csv:FILE` with a column of files and one of labels, the name of a
    TensorFlow Datasets set, or `digits` (scikit-learn's)."""
    dir: str | None = None
    """TFDS's data_dir. None: the folder that TFDS has for it."""
    classes: tuple[str, ...] = ()
    """Names of the classes to use, in this order. Empty: all classes."""
    image_size: int | None = None
    """Side of the square images in pixels. None: that of the run that the source weights come from. Without such a run:
    that of the data set where all its images are small and alike; 224 for a folder and all else."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Images that cannot be read end the run, or are skipped: a first pass over all images then finds them."""
    fit: Literal["crop", "pad", "stretch"] | None = None
    """How a picture becomes square. crop: its centre. pad: with black borders. stretch: with other proportions. None:
    as in the run that the source weights come from; crop without such a run."""
    validation_split: str | None = None
    """Split that is evaluated after every epoch. None: `validation` or `val` where the data has one; else `test`, or a
    tenth of train for a folder. A slice of train such as `train[90%:]` takes those images out of training; test_split
    is then evaluated once at the end. none: no split, all of train is learned from; for a solved head (head.init=ridge)
    without epochs."""
    test_split: str | None = None
    """Split that is evaluated once at the end, where validation is taken out of train or there is none. None: `test`
    where the data has one. none: no split, which is not read either."""
    holdout: Literal["train", "test"] = "train"
    """What a folder with train and test but no val is validated on. train: a tenth of train, and test is evaluated once
    at the end. test: the pictures of test."""
    group: str | None = None
    """Pictures that belong together, as those of one patient, writer or film do: REGEX, searched in each path within
    the data, or `column:NAME` of a table. Where its first group in brackets, or else all that it matches, is equal,
    pictures stay on one side of a tenth that is held out, and a solved head is judged without all of them."""
    max_images: int | None = None
    """Most images to read from each split, drawn at random by `seed`. None: all; 1,000 for zero_shot."""
    corrections: str | None = None
    """Table of decisions about pictures, check.csv: drop, keep, or another class. Files stay as they are."""
    labels_per_class: int | None = None
    """Training images of each class, drawn at random by `seed`; a smaller number draws some of those that a larger one
    draws. Validation and test stay whole. None: all."""
    seed: int | None = None
    """Seed that draws these. None: that of the run. With one here, runs with other seeds have the same images."""
    augment: str = "none"
    """Random changes of training images: names with strengths, such as flip,shift=0.125. flip: mirrored. shift: moved
    by up to this share of the side. crop: cut out, up to this share of the area cut off. color: brightness, contrast
    and saturation. trivial: TrivialAugment. erase: a rectangle covered. mixup, cutmix: mixed with another image.
    flip_crop is flip,shift. auto: a recipe chooses them."""

    views: int | None = None
    """The frozen units run once for so many fixed variants of each training image, the first as it is and the others
    changed by `augment`; in every epoch each image shows one of them. None: new changes in every epoch, for which the
    frozen units run in every step."""

    @property
    def augmentations(self) -> tuple[tuple[str, float], ...]:
        """The names in `augment` with their strengths.

        Raises:
          ValueError: if there is no such augmentation, or its strength is out of range.
        """
        wanted = "must be text, names with commas between them"
        refuse_unless(isinstance(self.augment, str), "data.augment", self.augment, wanted)
        if self.augment in ("none", AUTO):
            return ()
        parts = [part.partition("=") for part in self.augment.replace("flip_crop", "flip,shift").split(",")]
        return tuple(
            (name.strip(), self._strength(name.strip(), text if equals else None)) for name, equals, text in parts
        )

    def _strength(self, name: str, text: str | None) -> float:
        wanted = f"{name!r} is not known; names are {', '.join(AUGMENTATIONS)}, or none for no changes"
        refuse_unless(name in AUGMENTATIONS, "data.augment", self.augment, wanted)
        usual, below = AUGMENTATIONS[name]
        try:
            strength = usual if text is None else float(text)
        except ValueError:
            strength = math.nan
        wanted = f"the strength of {name} is a number from 0 to {below:g}, such as {name}={usual:g}"
        refuse_unless(0 <= strength <= below, "data.augment", self.augment, wanted)
        return strength

    @property
    def kind(self) -> str:
        """`folder` or `csv` where `name` is a path behind that word; else empty."""
        kind, colon, _ = self.name.partition(":")
        return kind if colon and kind in ("folder", "csv") else ""

    @property
    def path(self) -> Path:
        """The path in `folder:PATH` or `csv:FILE`. To be asked for where there is a `kind`."""
        return Path(self.name.removeprefix(f"{self.kind}:")).expanduser()

    @property
    def corrections_file(self) -> Path:
        """The path in `corrections`. To be asked for where there are some."""
        return Path(self.corrections or "").expanduser()

    def check(self) -> None:
        """Raises ValueError for values with which no data can be read."""
        check_choices(self, "data.")
        file = self.corrections
        right = file is None or (isinstance(file, str) and bool(file.strip()))
        refuse_unless(right, "data.corrections", file, "must be the path of a table, such as check.csv, or None")
        size = self.image_size
        refuse_unless(size is None or (isinstance(size, int) and size >= 32), "data.image_size", size, "at least 32")
        for name in ("max_images", "labels_per_class"):
            images = getattr(self, name)
            right = images is None or (isinstance(images, int) and images >= 1)
            refuse_unless(right, f"data.{name}", images, "a whole number, at least 1")
        check_seed("data.seed", 0 if self.seed is None else self.seed)
        self._check_group()
        augmentations = self.augmentations
        names = [name for name, _ in augmentations]
        refuse_unless(len(names) == len(set(names)), "data.augment", self.augment, "each name once")
        views = self.views
        wanted = "at least 2, the first as it is; leave it out for images as they are"
        refuse_unless(views is None or (isinstance(views, int) and views >= 2), "data.views", views, wanted)
        wanted = "say in data.augment too how they differ, such as flip,shift"
        refuse_unless(views is None or bool(names), "data.views", views, wanted)
        usual = AUGMENTATIONS["flip"][0]
        wanted = "with data.views flip mirrors every second one; leave its strength out"
        right = views is None or dict(augmentations).get("flip", usual) == usual
        refuse_unless(right, "data.augment", self.augment, wanted)
        mixed = [name for name in names if name in ("mixup", "cutmix")]
        wanted = f"{' and '.join(mixed)} draws new pairs in every epoch, which cannot be computed once"
        refuse_unless(views is None or not mixed, "data.views", views, wanted)
        wanted = "flip alone has two"
        refuse_unless(views is None or views == 2 or names != ["flip"], "data.views", views, wanted)

    def _check_group(self) -> None:
        group = self.group
        if group is None:
            return
        right = isinstance(group, str) and group.removeprefix(COLUMN).strip() != ""
        refuse_unless(right, "data.group", group, f"must be a REGEX or {COLUMN}NAME, such as 'patient([0-9]+)'")
        wanted = "is for folder:PATH and csv:FILE, whose pictures have paths; leave it out"
        refuse_unless(self.kind != "", "data.group", group, wanted)
        column = group.startswith(COLUMN)
        wanted = "a folder has no columns; give a REGEX that is searched in the paths, or data.name=csv:FILE"
        refuse_unless(not column or self.kind == "csv", "data.group", group, wanted)
        try:
            re.compile("" if column else group)
        except re.error as error:
            refuse_unless(False, "data.group", group, f"is no REGEX: {error}")


@dataclass
class Cache:
    """What is computed once and kept: decoded images, and the activations of frozen units."""

    features: bool = True
    """Run the frozen units once and train on their activations, unless images change in every epoch. False: they
    run in every step."""
    memory_gib: float = 4.0
    """A split of up to this size stays in device memory; a larger one is streamed to the device. GiB; inf: every
    split stays."""
    disk_gib: float = 16.0
    """Most disk space for decoded images and activations in the user's cache folder, GiB. The least recently used are
    deleted first. 0: none are kept. inf: no limit."""

    def check(self) -> None:
        """Raises ValueError for what is no size."""
        for name in ("memory_gib", "disk_gib"):
            gib = getattr(self, name)
            refuse_unless(is_number(gib, 0), f"cache.{name}", gib, "must be at least 0; inf is no limit")

    @property
    def memory_bytes(self) -> int:
        return _to_bytes(self.memory_gib)

    @property
    def disk_bytes(self) -> int:
        return _to_bytes(self.disk_gib)


def _to_bytes(gib: float) -> int:
    """A size in bytes; more than any machine has stands for no limit."""
    return int(min(gib, 2**33) * 2**30)


@dataclass
class Compute:
    """How the devices compute."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the convolutions. Parameters, statistics, averages, head and loss are always float32. auto: bfloat16
    on TPUs and GPUs, float32 on CPUs."""
    shard_optimizer: bool = False
    """Split the optimizer's state over the devices, instead of keeping all of it on each."""


# The settings that an optimizer uses beside its learning rate.
OPTIMIZER_USES = {
    "adam": ("beta_1", "beta_2", "epsilon"),
    "adamw": ("beta_1", "beta_2", "epsilon", "weight_decay"),
    "sgd": ("momentum", "weight_decay"),
}
# The settings that every optimizer uses.
ALWAYS_USED = ("name", "learning_rate", "schedule", "warmup_epochs", "layer_decay", "clip_norm", "ema_decay")


@dataclass
class Optimizer:
    """How the trainable weights are updated. The defaults are those of Keras's Adam."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """adam: Adam by Keras's formula. adamw: with weight decay. sgd: gradient descent with Nesterov's momentum."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up. linear, cosine: down to 0 at the end of all epochs."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises from 0; 0.5 is half an epoch."""
    layer_decay: float = 1.0
    """Each unit learns at the rate of the unit after it, times this. 1: all at the same rate."""
    clip_norm: float | None = None
    """Longest gradient of all trainable weights together; a longer one is scaled down. None: any."""
    weight_decay: float = 0.0
    """adamw, sgd: kernels shrink by this, times the learning rate, in every step; biases and BatchNorms do not."""
    ema_decay: float = 0.0
    """Decay rate of a moving average of the weights, which is then what is evaluated and kept. 0: no average."""
    momentum: float = 0.9
    """sgd: decay rate of the sum of the gradients."""
    beta_1: float = 0.9
    """adam, adamw: decay rate of the first moment (mean of the gradients)."""
    beta_2: float = 0.999
    """adam, adamw: decay rate of the second moment (mean of their squares)."""
    epsilon: float = 1e-7
    """adam, adamw: added to the square root of the second moment before bias correction, as in Keras."""

    def check(self) -> None:
        """Raises ValueError for a value out of range, or for a setting that the optimizer `name` does not use."""
        check_choices(self, "optimizer.")
        used = (*ALWAYS_USED, *OPTIMIZER_USES[self.name])
        for setting in (f for f in dataclasses.fields(self) if f.name not in used):
            value = getattr(self, setting.name)
            wanted = f"{self.name} does not use it; leave it out"
            refuse_unless(value == setting.default, f"optimizer.{setting.name}", value, wanted)
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            refuse_unless(
                _is_finite(value) and value > 0, f"optimizer.{name}", value, f"must be > 0, at most {LARGEST:g}"
            )
        for name in ("beta_1", "beta_2", "momentum", "ema_decay"):
            refuse_unless(_is_share(getattr(self, name)), f"optimizer.{name}", getattr(self, name), "must be in [0, 1)")
        for name in ("warmup_epochs", "weight_decay"):
            value = getattr(self, name)
            refuse_unless(
                _is_finite(value) and value >= 0, f"optimizer.{name}", value, f"must be >= 0, at most {LARGEST:g}"
            )
        decay, clip = self.layer_decay, self.clip_norm
        refuse_unless(is_number(decay, 0, 1) and decay > 0, "optimizer.layer_decay", decay, "must be in (0, 1]")
        right = clip is None or (_is_finite(clip) and clip > 0)
        refuse_unless(right, "optimizer.clip_norm", clip, "must be > 0, or None")
        wanted = "without weight decay adamw is adam: give optimizer.weight_decay, such as 0.01"
        refuse_unless(
            self.name != "adamw" or self.weight_decay > 0, "optimizer.weight_decay", self.weight_decay, wanted
        )


# The largest hidden layer. Where memory for a larger one is missing, JAX was seen to wait forever.
WIDEST = 100_000


@dataclass
class Head:
    """The last layer, whose outputs are the logits: what it reads, and what it starts from."""

    at: str = "head"
    """The head reads the average over all positions of what this unit would read, such as conv4_block4. That unit and
    all later ones are left out. head: the whole network."""
    init: Literal["glorot", "ridge"] = "glorot"
    """feature_extraction: what a new head starts from. glorot: random weights, as in Keras. ridge: the optimum of a
    ridge regression, which may also be used as it is, with epochs=0."""
    hidden: tuple[int, ...] = ()
    """Sizes of hidden layers with ReLU in a new head, between the averages and the logits."""
    dropout: float = 0.0
    """Share of the inputs of each layer of the head that are set to 0 in a training step, at random."""


@dataclass
class Stage:
    """The settings that each stage has for itself."""

    stage: StageName = "feature_extraction"
    """Which of the four stages this is: the network as it is, a new head, fine-tuning, or training from scratch."""
    cut: str = "head"
    """The first unit that trains; all units before it are frozen. A unit's name (conv1, conv2_block1 ... conv5_block3,
    head; deeper networks have more blocks), or a layer's index in Keras's network without head: 143 freezes
    base.layers[:143], which in ResNet50 is everything before conv5_block1."""
    head: Head = field(default_factory=Head)
    epochs: int = 10
    """Most epochs that this stage trains."""
    monitor: Monitor = "val_loss"
    """What makes an epoch the best, whose weights are kept: the lowest val_loss or the highest val_accuracy."""
    patience: int | None = 5
    """Early stopping: end at the patience-th epoch in a row that is not better than the best, as in Keras. None: all
    epochs are run."""
    batch_size: int = 256
    """Images in a training step, of all devices together."""
    label_smoothing: float = 0.0
    """Share of every training target that is spread over all classes. val_loss is without."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """How much an image of each class counts in the training loss, and where a head is solved. balanced: classes with
    few images more, so that all classes count the same. Or weights by name; those left out are 1."""
    batch_norm: Literal["inference", "training"] = "inference"
    """BatchNorm in the units that train. inference: with running statistics, which stay as they are. training: with the
    statistics of the batch. Frozen units always use inference."""
    zero_init_residual: bool = False
    """from_scratch: each block starts as its shortcut, since the scale of its last BatchNorm starts at 0. With
    batch_norm=training this is usual, and large networks learn faster."""
    optimizer: Optimizer = field(default_factory=Optimizer)

    @property
    def keeps_head(self) -> bool:
        """Whether the stage uses the head that its source weights have, and not a new one."""
        return self.stage in ("zero_shot", "fine_tune")


@dataclass
class Shared:
    """The settings that the stages of a lesson share. A run of one stage has them too."""

    pretrained: str | None = None
    """Source weights: `imagenet`, a .h5 or .weights.h5 file of Keras, a .safetensors file of torchvision or timm, the
    folder of an earlier run of one stage, or a model of the Hugging Face Hub such as timm/resnet50.a1_in1k. None:
    random weights."""
    network: str | None = None
    """The network by name, such as resnet101; a wrong name is answered with all names. None: the network of the source
    weights, or resnet50 for `imagenet` and from_scratch."""
    variant: Literal["v1", "v1.5"] | None = None
    """v1: Keras's, with the strides on 1x1 convolutions. v1.5: torchvision's, with the strides on 3x3 convolutions.
    None: the variant of the source weights, or v1 for from_scratch."""
    seed: int = 0
    """Seed of initial weights, order of the images and augmentation."""
    data: Data = field(default_factory=Data)
    cache: Cache = field(default_factory=Cache)
    compute: Compute = field(default_factory=Compute)
    compile_for: str | None = None
    """A TPU slice such as v5e:4x4: compile the programs for it, print what they need, and run nothing. Needs
    `pip install '.[tpu-preflight]'`."""

    @property
    def may_start_from_run(self) -> bool:
        """Whether `pretrained` may be the folder of a run, which may have been deleted since."""
        if self.pretrained in (None, "imagenet"):
            return False
        return not Path(str(self.pretrained)).expanduser().is_file()


@dataclass
class Config(Shared, Stage):
    """A run of one stage."""

    def check(self) -> None:
        """Raises ValueError for a config that cannot run, with the setting, its value and what is wanted."""
        check_choices(self, "")
        refuse_unless(isinstance(self.cut, str), "cut", self.cut, "must be text, such as 'conv5_block1' or '143'")
        solved = self.head.init == "ridge"
        for name, lowest in (("epochs", 0 if solved else 1), ("patience", 1), ("batch_size", 1)):
            value = getattr(self, name)
            is_right = (isinstance(value, int) and value >= lowest) or (name, value) == ("patience", None)
            refuse_unless(is_right, name, value, f"must be a whole number, at least {lowest}")
        check_seed("seed", self.seed)
        for settings in (self.optimizer, self.cache, self.data):
            settings.check()
        warmup = self.optimizer.warmup_epochs
        wanted = f"must be fewer than epochs={self.epochs}"
        refuse_unless(warmup == 0 or warmup < self.epochs, "optimizer.warmup_epochs", warmup, wanted)
        wanted = "a recipe alone chooses it; give none, or names such as flip,shift"
        refuse_unless(self.data.augment != AUTO, "data.augment", AUTO, wanted)
        check_choices(self.compute, "compute.")
        self._check_loss()
        self._check_weights()
        self._check_head()

    def _check_loss(self) -> None:
        smoothing, weights = self.label_smoothing, self.class_weights
        refuse_unless(_is_share(smoothing), "label_smoothing", smoothing, "must be in [0, 1)")
        if isinstance(weights, dict):
            right = all(_is_finite(w) and w >= 0 for w in weights.values())
            refuse_unless(right, "class_weights", weights, "weights are numbers >= 0")
            named = all(isinstance(name, str) for name in weights)
            refuse_unless(named, "class_weights", weights, "names of classes are text, such as '5'")
        if self.head.init == "ridge" and self.epochs == 0:
            wanted = "is for training, and with epochs=0 the solved head is not trained; leave it out"
            refuse_unless(smoothing == 0, "label_smoothing", smoothing, wanted)

    def _check_head(self) -> None:
        check_choices(self.head, "head.")
        keeps = self.keeps_head
        wanted = f"{self.stage} uses the head that its source weights have; leave it out"
        refuse_unless(self.head.at == "head" or not keeps, "head.at", self.head.at, wanted)
        refuse_unless(not self.head.hidden or not keeps, "head.hidden", self.head.hidden, wanted)
        sizes = all(isinstance(size, int) and 1 <= size <= WIDEST for size in self.head.hidden)
        wanted = f"sizes are whole numbers from 1 to {WIDEST:,}"
        refuse_unless(sizes, "head.hidden", self.head.hidden, wanted)
        refuse_unless(_is_share(self.head.dropout), "head.dropout", self.head.dropout, "must be in [0, 1)")
        solved = self.head.init == "ridge"
        wanted = f"is for feature_extraction; {self.stage} has no new head to solve"
        refuse_unless(not solved or self.stage == "feature_extraction", "head.init", self.head.init, wanted)
        if solved:
            wanted = "head.init=ridge solves one dense layer; leave it out"
            refuse_unless(not self.head.hidden, "head.hidden", self.head.hidden, wanted)
            wanted = "head.init=ridge solves the head from what is computed once: add data.views, such as data.views=8"
            once = self.data.augment == "none" or self.data.views is not None
            refuse_unless(once, "data.augment", self.data.augment, wanted)
            wanted = "head.init=ridge reads the activations that are computed once; leave it out"
            refuse_unless(self.cache.features, "cache.features", self.cache.features, wanted)
        if self.data.validation_split == NOT_READ:
            wanted = "without it no epoch can be chosen: --config feature_extraction with head.init=ridge and epochs=0"
            refuse_unless(solved and self.epochs == 0, "data.validation_split", NOT_READ, wanted)
            wanted = "with data.validation_split=none nothing is validated on; leave it out"
            refuse_unless(self.data.holdout == "train", "data.holdout", self.data.holdout, wanted)

    def _check_weights(self) -> None:
        if self.stage == "from_scratch":
            wanted = "from_scratch starts from no weights; leave it out, or take the stage fine_tune"
            refuse_unless(self.pretrained is None, "pretrained", self.pretrained, wanted)
            return
        wanted = f"is for from_scratch; {self.stage} starts from source weights"
        refuse_unless(not self.zero_init_residual, "zero_init_residual", self.zero_init_residual, wanted)
        if self.stage == "fine_tune":
            wanted = "fine_tune goes on from a run of feature_extraction: --config.pretrained=FOLDER"
            refuse_unless(self.pretrained not in (None, "imagenet"), "pretrained", self.pretrained, wanted)
        else:
            wanted = (
                f"{self.stage} needs source weights: imagenet, a weight file, the folder of a run or a model of timm"
            )
            refuse_unless(self.pretrained is not None, "pretrained", self.pretrained, wanted)
        if self.pretrained == "imagenet":
            wanted = "the weights of imagenet are Keras's, v1; v1.5 is read from torchvision's .safetensors"
            refuse_unless(self.variant in (None, "v1"), "variant", self.variant, wanted)


# The name of the stage that trains a lesson's source weights on `source_classes`.
SOURCE = "source"


def four_stages() -> dict[str, Stage]:
    """The stages of Keras's lesson (the network as it is, a new head, fine-tuning, from scratch), and before them the
    one that trains source weights."""
    tuned = Optimizer(learning_rate=1e-4)
    return {
        SOURCE: Stage("from_scratch", cut="conv1", epochs=30),
        "zero_shot": Stage("zero_shot"),
        "feature_extraction": Stage("feature_extraction"),
        "fine_tune": Stage("fine_tune", cut="conv5_block1", epochs=40, optimizer=tuned),
        "from_scratch": Stage("from_scratch", cut="conv1", epochs=30),
    }


@dataclass
class Own:
    """What a stage of a lesson does not share with the others."""

    start: str | None = None
    """The stage that a fine_tune starts from. None: the feature_extraction or fine_tune before it."""
    seed: int | None = None
    """Its seed; images are drawn by the lesson's. None: the lesson's."""
    augment: str | None = None
    """Its `data.augment`, without views. None: the lesson's."""
    labels_per_class: int | None = None
    """Its `data.labels_per_class`. None: the lesson's."""


@dataclass
class Lesson(Shared):
    """Several stages in one workdir and on the same data, run in their order.

    A fine_tune starts from the feature_extraction or fine_tune before it, unless its `own` says from which, a
    from_scratch from no weights. All other stages, and a fine_tune with none before it, start from `pretrained`, or
    from the stage `source`, which runs only if `source_classes` are given.
    """

    source_classes: tuple[str, ...] = ()
    """Classes of the same data on which source weights are first trained from scratch (stages.source). `pretrained` is
    then None."""
    stages: dict[str, Stage] = field(default_factory=four_stages)
    own: dict[str, Own] = field(default_factory=dict)
    """What stages do not share with the others, by their names."""

    @property
    def active(self) -> dict[str, Stage]:
        """The stages that run."""
        return {name: stage for name, stage in self.stages.items() if name != SOURCE or self.source_classes}

    def origins(self) -> dict[str, str | None]:
        """The stage from which each stage that runs takes its weights. None: from `pretrained`, or none."""
        source = SOURCE if self.source_classes else None
        tuned: str | None = source
        found: dict[str, str | None] = {}
        for name, stage in self.active.items():
            starts: dict[StageName, str | None] = {"from_scratch": None, "fine_tune": self._own(name).start or tuned}
            found[name] = starts.get(stage.stage, source)
            if stage.stage in ("feature_extraction", "fine_tune"):
                tuned = name
        return found

    def config(self, name: str, pretrained: str | None) -> Config:
        """The `Config` of one stage, with `pretrained` as its weights."""
        data, seed = dataclasses.replace(self.data), self.seed
        if name == SOURCE:
            # Few labels are what the stages transfer to.
            data.classes, data.labels_per_class = self.source_classes, None
        own = self._own(name)
        if own.seed is not None:
            data.seed, seed = self.seed if data.seed is None else data.seed, own.seed
        if own.augment is not None:
            data.augment, data.views = own.augment, None
        if own.labels_per_class is not None:
            data.labels_per_class = own.labels_per_class
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Shared)} | {"compile_for": None}
        return Config(**vars(self.stages[name]) | shared | {"pretrained": pretrained, "data": data, "seed": seed})

    def _own(self, name: str) -> Own:
        return self.own.get(name, Own())


@dataclass
class Recipe(Shared):
    """A lesson whose stages are chosen when the data is known, by how much there is of it: transfer from `pretrained`
    or, without source weights, training from scratch."""

    data: Data = field(default_factory=lambda: Data(augment=AUTO))
    time_limit: float | None = None
    """Minutes that the run may take. Steps are timed before it begins, and it gets as many epochs as fit. If not one
    fits, a head is solved alone; from scratch there is one all the same. None: as many epochs as the rules say."""

    def check(self) -> None:
        """Raises ValueError for a setting with which no stages can be chosen. The stages check all others."""
        limit = self.time_limit
        right = limit is None or (is_number(limit) and 0 < limit < math.inf)
        refuse_unless(right, "time_limit", limit, "minutes, more than 0")
        # The seed draws the images whose number is what the stages are chosen by.
        check_seed("seed", self.seed)
        self.data.check()
        split, augment = self.data.validation_split, self.data.augment
        wanted = "from scratch no epoch can be chosen without it; leave it out, or give source weights"
        refuse_unless(self.pretrained is not None or split != NOT_READ, "data.validation_split", split, wanted)
        wanted = (
            "with source weights a recipe computes changed pictures once: add data.views, such as data.views=8; "
            "mixup and cutmix are for training from scratch"
        )
        once = self.pretrained is None or augment in ("none", AUTO) or self.data.views is not None
        refuse_unless(once, "data.augment", augment, wanted)

    def lesson(self, stages: dict[str, Stage], **data: Any) -> Lesson:
        """The lesson of these `stages`, with the settings `data` of its data."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Shared)}
        return Lesson(**shared | {"data": dataclasses.replace(self.data, **data)}, stages=stages)


@dataclass
class HowDeep(Recipe):
    """A study: which units to train, measured on the data. It becomes a lesson whose stages are candidates, each on the
    whole schedule that a recipe would choose, and says which of them to take."""

    time_limit: float | None = None
    """Minutes that the study may take. The candidates are timed before it begins, and those that do not fit are left
    out, the slowest first. None: all are run."""

    def check(self) -> None:
        """Raises ValueError for a setting with which there is nothing to compare. The stages check all others."""
        super().check()
        wanted = "must be source weights: what to train of them is the question"
        refuse_unless(self.pretrained is not None, "pretrained", self.pretrained, wanted)
        wanted = "the validation pictures choose; leave it out"
        refuse_unless(self.data.validation_split != NOT_READ, "data.validation_split", NOT_READ, wanted)
        wanted = "one pass gives what a head at each unit reads; leave it out"
        refuse_unless(self.cache.features, "cache.features", self.cache.features, wanted)


AnyConfig = Config | Lesson


def data_flags(settings: Mapping[str, Any]) -> str:
    """What to type for these settings of the data."""
    return " ".join(f"--config.data.{name}={value}" for name, value in settings.items())


def as_json(config: Any) -> Any:
    """A config as `config.json` holds it."""
    return json.loads(json.dumps(jsonable(asdict(config))))


def jsonable(value: Any) -> Any:
    """`value` with tuples as lists, and None for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
