"""The command that a study gives trains what it says: it is parsed as on the command line."""

import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tljax import cli
from tljax.config import AUTO, Data, Lesson
from tljax.data.datasets import Extent
from tljax.networks.architectures import RESNET50
from tljax.stages.candidates import list_candidates
from tljax.stages.retrain import BASES, rebuild, spell


@pytest.mark.parametrize("name", BASES)
def test_what_is_begun_with_is_what_is_shipped(name):
    shipped = cli.load_defaults(name, debug=True)
    assert replace(shipped, pretrained=None) == BASES[name]


@pytest.mark.parametrize("by_class", [(40,) * 5, (90, 30, 30, 30, 20)])
def test_each_candidate_is_trained_by_its_command(by_class):
    found = list_candidates(Extent(200, 20, 5, 32, by_class), RESNET50, "conv4_block4", 1, AUTO)
    data = Data(name="digits", labels_per_class=40, augment="flip,shift", views=8, image_size=40, test_split="none")
    about = {"network": "resnet50", "variant": "v1.5", "seed": 3, "pretrained": "runs/my source"}
    lesson = Lesson(**about, data=data, stages=found.stages, own=found.own)
    for name in found.names:
        flags: SimpleNamespace = cli.parse_flags(shlex.split(spell(lesson, name)))
        wanted = rebuild(lesson, name)[1]
        assert flags.config == wanted, name
        assert wanted.data.image_size == 40 and wanted.data.labels_per_class is None and wanted.seed == 3
    assert rebuild(lesson, "solved_head")[1].head.at == "conv4_block4"
    tuned = rebuild(lesson, "fine_tune_all")[1]
    assert tuned.stages["fine_tune"].cut == "conv1" and tuned.stages["feature_extraction"].head.at == "head"
    assert rebuild(lesson, "from_scratch")[1].data.augment == "flip,shift,trivial=0.5"
