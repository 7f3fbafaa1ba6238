"""Every setting, its default and what it means; what a run may not be is refused by `validate`.

The string below a field is its help text: `main.py --config configs/X.py --help` prints it. The classes are not
frozen, so that a config file may change single attributes of a default.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

StageName = Literal["zero_shot", "feature_extraction", "fine_tune", "from_scratch"]
STAGES: tuple[StageName, ...] = ("zero_shot", "feature_extraction", "fine_tune", "from_scratch")

# What `max_images=None` means for zero_shot; the training stages then read everything.
ZERO_SHOT_MAX_IMAGES = 1000


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
    """Every device keeps a part of Adam's means, not all of them."""


@dataclass
class Adam:
    """Adam in Keras's formula; the defaults are Keras's."""

    learning_rate: float = 1e-3
    """Step size, constant."""
    beta_1: float = 0.9
    """Decay of the mean of the gradients."""
    beta_2: float = 0.999
    """Decay of the mean of their squares."""
    epsilon: float = 1e-7
    """Added to the root of the uncorrected second moment, as Keras does."""


@dataclass
class Stage:
    """What one stage sets for itself."""

    cut: str = "head"
    """First unit that trains; everything before it is frozen. A unit's name (conv1, conv2_block1 ... conv5_block3,
    head) or the index of a Keras layer of ResNet50(include_top=False), as in base.layers[:143] (conv5_block1)."""
    epochs: int = 10
    """Most epochs of this stage."""
    patience: int = 5
    """Stop at the patience-th epoch in a row without a lower val_loss, as Keras counts."""
    batch_size: int = 256
    """Images a step."""
    batch_norm: Literal["inference", "training"] = "inference"
    """BatchNorm of the units that train: running statistics, or the batch's. Frozen units always use inference."""
    optimizer: Adam = field(default_factory=Adam)


@dataclass
class Config(Stage):
    """A run of one stage."""

    stage: StageName = "feature_extraction"
    """Which of the four stages this is."""
    pretrained: str | None = None
    """Source weights: `imagenet`, a Keras .h5 or .weights.h5, a torchvision or timm .safetensors, the folder of an
    earlier run of one stage, or None."""
    seed: int = 0
    """Initial weights, order of the data and augmentation follow from it."""
    data: Data = field(default_factory=Data)
    cache: Cache = field(default_factory=Cache)
    compute: Compute = field(default_factory=Compute)
    compile_for: str | None = None
    """A TPU slice such as v5e:4x4: compile for it, say what that takes, and run nothing. Needs `.[tpu-preflight]`."""


@dataclass
class Stages:
    """The stages of one lesson, in the order in which they run."""

    source: Stage = field(default_factory=lambda: Stage(cut="conv1", epochs=30))
    zero_shot: Stage = field(default_factory=Stage)
    feature_extraction: Stage = field(default_factory=Stage)
    fine_tune: Stage = field(
        default_factory=lambda: Stage(cut="conv5_block1", epochs=40, optimizer=Adam(learning_rate=1e-4))
    )
    from_scratch: Stage = field(default_factory=lambda: Stage(cut="conv1", epochs=30))


@dataclass
class FourStages:
    """All four stages in one workdir, on the same data."""

    pretrained: str | None = "imagenet"
    """Source weights, as for one stage; None when `source_classes` makes them."""
    source_classes: tuple[str, ...] = ()
    """Train the source weights first, from scratch, on these classes of the same data (stages.source)."""
    seed: int = 0
    """Initial weights, order of the data and augmentation follow from it."""
    data: Data = field(default_factory=Data)
    cache: Cache = field(default_factory=Cache)
    compute: Compute = field(default_factory=Compute)
    compile_for: str | None = None
    """A TPU slice such as v5e:4x4: compile for it, say what that takes, and run nothing. Needs `.[tpu-preflight]`."""
    stages: Stages = field(default_factory=Stages)


def stage_config(four: FourStages, name: StageName | Literal["source"], pretrained: str | None) -> Config:
    """The `Config` of one stage of `four`, with `pretrained` as its weights; a `source` is a `from_scratch` run on
    `four.source_classes`."""
    is_source = name == "source"
    data = Data(**(asdict(four.data) | ({"classes": four.source_classes} if is_source else {})))
    stage: StageName = "from_scratch" if name == "source" else name
    settings = vars(getattr(four.stages, name))
    return Config(
        **settings,
        stage=stage,
        pretrained=pretrained,
        seed=four.seed,
        data=data,
        cache=four.cache,
        compute=four.compute,
    )


# Of a run that exists: what does not change its results, and what may be more. Later ones of four stages go on from the
# others.
NO_CHANGE = ("cache.memory_gib", "cache.disk_gib", "data.dir")
MAY_GROW = ("epochs", "stages.fine_tune.epochs", "stages.from_scratch.epochs")


def find_changes(before: Any, now: Any, path: str = "") -> list[str]:
    """In which settings two configs differ, both as JSON, a few words each; more epochs, and another way to the
    same place, are no difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = before.keys() | now.keys()
        return [
            change
            for name in sorted(names)
            for change in find_changes(before.get(name), now.get(name), f"{path}.{name}" if path else name)
        ]
    same = before == now or path in NO_CHANGE
    if path == "pretrained" and isinstance(before, str) and isinstance(now, str):
        same = Path(before).resolve() == Path(now).resolve()
    more = path in MAY_GROW and isinstance(before, int) and isinstance(now, int) and before < now
    return [] if same or more else [f"{path}: {before!r} before, {now!r} now"]


def validate(config: Config) -> None:
    """Refuses a config that cannot run.

    Raises:
      ValueError: naming the setting, its value and what would be right.
    """

    def refuse_unless(ok: bool, name: str, value: Any, wanted: str) -> None:
        if not ok:
            raise ValueError(f"config.{name}={value!r}: {wanted}")

    # The command line checks choices and types; a config file may hold anything.
    for settings, prefix in ((config, ""), (config.data, "data."), (config.compute, "compute.")):
        for name, hint in get_type_hints(type(settings)).items():
            if get_origin(hint) is Literal:
                value, choices = getattr(settings, name), get_args(hint)
                refuse_unless(value in choices, prefix + name, value, f"must be one of {', '.join(choices)}")
    for name, lowest in (("epochs", 1), ("patience", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(config, name)
        is_right = isinstance(value, int) and value >= lowest
        refuse_unless(is_right, name, value, f"must be a whole number, at least {lowest}")
    adam = config.optimizer
    refuse_unless(0 < adam.learning_rate < float("inf"), "optimizer.learning_rate", adam.learning_rate, "must be > 0")
    refuse_unless(0 <= adam.beta_1 < 1, "optimizer.beta_1", adam.beta_1, "must be in [0, 1)")
    refuse_unless(0 <= adam.beta_2 < 1, "optimizer.beta_2", adam.beta_2, "must be in [0, 1)")
    refuse_unless(0 < adam.epsilon < float("inf"), "optimizer.epsilon", adam.epsilon, "must be > 0")
    for name, gib in vars(config.cache).items():
        refuse_unless(gib >= 0, f"cache.{name}", gib, "must be at least 0")
    data = config.data
    refuse_unless(data.image_size is None or data.image_size >= 32, "data.image_size", data.image_size, "at least 32")
    refuse_unless(data.max_images is None or data.max_images >= 1, "data.max_images", data.max_images, "at least 1")
    if config.stage == "from_scratch":
        wanted = "from_scratch starts from no weights; leave it out, or take the stage fine_tune"
        refuse_unless(config.pretrained is None, "pretrained", config.pretrained, wanted)
    elif config.stage == "fine_tune":
        wanted = "fine_tune goes on from a run: --config.pretrained=RUN/feature_extraction"
        refuse_unless(config.pretrained not in (None, "imagenet"), "pretrained", config.pretrained, wanted)
    else:
        wanted = f"{config.stage} needs source weights: imagenet, a weight file or the folder of a run"
        refuse_unless(config.pretrained is not None, "pretrained", config.pretrained, wanted)
