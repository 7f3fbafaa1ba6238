"""A time limit is a sum that a reader can add up; what is suggested fits when it is typed; what a run does is timed."""

import re
import time
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_config import flags
from tiny_runs import DIGITS, TINY, make_source

from tljax.config import Cache, Lesson, Recipe
from tljax.data.batches import draw_order
from tljax.data.datasets import Extent
from tljax.networks.architectures import NETWORKS, RESNET50
from tljax.runs import journal
from tljax.stages import recipe as recipes
from tljax.stages import time_limit, timing
from tljax.stages.rules import choose_augmentation, choose_stages
from tljax.stages.time_limit import KEPT_BACK, add_up, share_of_saving, suggest, take_images
from tljax.stages.timing import Rates, list_configs
from tljax.weights.pretrained import load_weights

SPENT = {"until the timing": 2.5, "timing and its compiling": 20.0}


def choose(extent: Extent, network=RESNET50, **settings) -> Lesson:
    stages = choose_stages(extent, network, 1).stages
    changes = choose_augmentation(stages, extent.images).settings
    return Recipe(pretrained=network and "runs/a", **settings).lesson(stages, **changes)


def rates_of(lesson: Lesson, extent: Extent, fixed: float = 0.2, pixel: float = 1e-7) -> Rates:
    """The rates of a machine on which a step takes `fixed` seconds and so many more for each pixel of its images."""
    config, pixels = list_configs(lesson)[-1], extent.side**2
    step = fixed + pixel * pixels * config.batch_size
    return Rates(
        reading=0.002,
        frozen=pixel / 3 * pixels,
        rest=pixel / 9 * pixels,
        training=step,
        evaluation=step / 3,
        placing=0.5,
        compiling=20.0,
        multiplying=0.02,
        features=2048,
        weights=9e7,
        state=2.5e8,
        activations=16.0 * pixels,
    )


@pytest.mark.parametrize("network", [RESNET50, None])
def test_a_reader_can_add_the_parts_up(network):
    extent = Extent(20_000, 1_000, 10, 32)
    lesson = choose(extent, network)
    found = add_up(rates_of(lesson, extent), extent, lesson, 300.0, SPENT)
    limit, *parts, left, epoch = (
        float(number)
        for number in re.findall(r"([\d.]+) s\b| takes ([\d.]+)", str(found))
        for number in number
        if number
    )
    assert (limit, parts[:2], parts[-1]) == (300.0, [3.0, 20.0], KEPT_BACK * limit)
    assert limit - sum(parts) == left == found.left and epoch == found.epoch
    assert found.epochs == left // epoch >= 1
    assert ("frozen units" in str(found)) == ("solved head" in str(found)) == (network is not None)


def test_the_sum_grows_with_the_data():
    extent, more = Extent(2_000, 100, 5, 32), Extent(2_000, 100, 5, 32, test=500)
    lesson = choose(extent)
    rates = rates_of(lesson, extent)._replace(frozen=0.1, reading=0.1, evaluation=10.0)
    less, found = (add_up(rates, each, lesson, 900.0, SPENT) for each in (extent, more))
    assert less.parts["frozen units"] == pytest.approx(0.1 * (2 * 2_000 + 100), abs=1), "both views of each picture"
    assert found.parts["frozen units"] - less.parts["frozen units"] == 50
    assert found.parts["reading pictures"] - less.parts["reading pictures"] == 50
    assert found.parts["evaluation and figures at the end"] - less.parts["evaluation and figures at the end"] == 80
    assert found.epoch == less.epoch and found.left < less.left
    # Activations for which the disk has no room are computed in both stages.
    twice = add_up(rates, extent, replace(lesson, cache=Cache(disk_gib=0)), 900.0, SPENT)
    assert twice.parts["frozen units"] == pytest.approx(2 * less.parts["frozen units"], abs=1)
    assert add_up(rates._replace(placing=100.0), extent, lesson, 900.0, SPENT).left < less.left - 90


def test_images_that_are_kept_nowhere_are_read_in_every_epoch():
    extent = Extent(2_000, 100, 5, 224)
    lesson = choose(extent, None, cache=Cache(memory_gib=0.1, disk_gib=0.1))
    rates = rates_of(lesson, extent)._replace(activations=None)
    kept = add_up(rates, extent, replace(lesson, cache=Cache()), 900.0, SPENT)
    assert add_up(rates, extent, lesson, 900.0, SPENT).epoch == pytest.approx(kept.epoch + 2_100 * 0.002, abs=3)
    assert add_up(rates, extent, lesson, 900.0, SPENT).epoch > kept.epoch + 2


def test_checkpoints_are_at_most_two_in_fifteen_seconds(monkeypatch):
    monkeypatch.setattr(journal, "SAVE_SECONDS", 15.0)
    assert share_of_saving(60.0, 3.0) == 3.0
    assert share_of_saving(1.5, 3.0) == pytest.approx(0.6)


def test_more_time_is_more_epochs_and_a_huge_number_is_one():
    extent = Extent(2_000, 100, 5, 32)
    lesson = choose(extent)
    rates = rates_of(lesson, extent)
    epochs = [add_up(rates, extent, lesson, 60 * minutes, SPENT).epochs for minutes in (2, 3, 10, 30)]
    assert epochs == sorted(set(epochs)) and epochs[-1] > 20
    assert add_up(rates, extent, lesson, 1e300, SPENT).epochs == time_limit.MOST_EPOCHS


def suggest_for(extent: Extent, network, speed: float, limit: float) -> tuple[Lesson, list[str]]:
    """The lesson, and what is suggested if no epoch fits."""
    lesson = choose(extent, network)
    rates = rates_of(lesson, extent, pixel=speed)
    found = add_up(rates, extent, lesson, limit, SPENT)
    lines = suggest(rates, extent, lesson, found, lambda few: choose(few, network)) if found.epochs < 1 else ()
    return lesson, list(lines)


def test_what_is_suggested_fits_when_it_is_typed():
    """On machines of many speeds, whose steps have a part that does not shrink with their images."""
    kinds = []
    for minutes, speed, network, side in product((3, 10, 30), (1e-7, 1e-6, 1e-5), (RESNET50, None), (64, 224)):
        extent = Extent(20_000, 5_000, 10, side, by_class=(2_000,) * 10 if network else (), test=1_000)
        lesson, lines = suggest_for(extent, network, speed, 60.0 * minutes)
        for kind, value in re.findall(r"^--config\.(\S+)=(\d+) ", "\n".join(lines), re.MULTILINE):
            kinds.append(kind)
            limit, spent, typed = 60.0 * minutes, SPENT, extent
            if kind == "time_limit":
                more = 60.0 * int(value) - limit
                # Steps are timed for a tenth of the longer limit.
                limit, spent = limit + more, SPENT | {"timing and its compiling": 20.0 + 0.1 * more}
            elif kind == "data.max_images":
                typed = take_images(extent, int(value))
            else:
                typed = extent._replace(side=int(value))
            chosen = choose(typed, network)
            assert list(chosen.stages) == list(lesson.stages)
            assert add_up(rates_of(chosen, typed, pixel=speed), typed, chosen, limit, spent).epochs >= 1, lines
    assert min(map(kinds.count, ("time_limit", "data.max_images", "data.image_size"))) >= 5


def test_a_solved_head_alone_is_suggested_with_flags_that_there_are():
    extent = Extent(20_000, 1_000, 10, 224)
    lesson = choose(extent)
    rates = rates_of(lesson, extent, pixel=4e-7)._replace(training=30.0)
    found = add_up(rates, extent, lesson, 600.0, SPENT)
    assert found.epochs < 1
    (line,) = (line for line in suggest(rates, extent, lesson, found, choose) if "solved head alone" in line)
    typed = re.findall(r"--config\.\S+", line)
    config = flags("feature_extraction", *typed).config
    config.check()
    assert (config.head.init, config.epochs, config.pretrained) == ("ridge", 0, "runs/a")
    # Each picture goes through the network once, as it is.
    seconds = float(re.search(r"about (\d+) s", line)[1])
    assert 21_000 * (rates.reading + rates.frozen + rates.rest) < seconds <= 540
    assert not [line for line in suggest(rates._replace(frozen=0.1), extent, lesson, found, choose) if "alone" in line]


def test_a_time_limit_becomes_a_number_of_epochs(tmp_path, monkeypatch, capsys):
    recipe = Recipe(data=replace(DIGITS, augment="auto"), network="tiny")
    extent = Extent(60, 54, 3, 32)
    rates = rates_of(choose(extent, None), extent)._replace(
        compiling=20.0, training=1.0, evaluation=1.0, placing=0.0, weights=0.0, state=0.0, multiplying=0.0, reading=0.0
    )
    measured = []

    def measure(lesson, source, extent, seconds):
        measured.append((list(lesson.stages), lesson.network, extent.classes, extent.side, seconds))
        return rates

    monkeypatch.setattr(time_limit, "measure_rates", measure)
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(perf_counter=lambda: 4.0))

    def epochs(minutes: float) -> int:
        limited = replace(recipe, time_limit=minutes)
        lesson, _ = recipes.resolve(limited, tmp_path / "run", False, 0.0, recipes.choose_recipe)
        return lesson.stages["from_scratch"].epochs

    # 60 - 4 - 20 - 11 - 1 - 6 = 18: eight steps and seven evaluations make an epoch.
    assert epochs(1.0) == 1
    said = capsys.readouterr().out
    assert "WARNING" not in said and "epochs: 1 instead of 300" in said and "epoch takes 15.3 s" in said
    assert epochs(0.1) == 1
    said = capsys.readouterr().out
    assert (
        "WARNING config.time_limit=0.1 minutes is too short for one epoch" in said
        and "--config.time_limit=2 (minutes) for one epoch" in said
    )
    assert epochs(1e300) == epochs(10_000) == 300
    assert "WARNING" not in capsys.readouterr().out
    assert measured[0] == (["from_scratch"], "tiny", 3, 32, 6.0)


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_steps_of_the_run_are_measured(tmp_path, pretrained):
    path = str(make_source(tmp_path / "source")) if pretrained else None
    extent = Extent(1000, 100, 3, 32)
    stages = choose_stages(extent, TINY if pretrained else None, 1).stages
    changes = choose_augmentation(stages, extent.images).settings
    data = replace(DIGITS, augment="auto")
    lesson = Recipe(data=data, network="tiny", pretrained=path).lesson(stages, **changes)
    source = load_weights(path, None, None) if path else None
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    rates = timing.measure_rates(lesson, source, extent, 0.5)
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == before
    assert all(value > 0 for value in rates._replace(frozen=1.0, rest=1.0, activations=1.0))
    assert (rates.frozen > 0) == (rates.rest > 0) == (rates.activations is not None) == pretrained
    if pretrained:
        assert rates.activations == 4 * 4 * 32 * 4
        # What is kept of 1,100 images does not fit, that of the few that are timed would.
        lesson = replace(lesson, cache=Cache(memory_gib=1e-4, disk_gib=0))
        assert timing.measure_rates(lesson, source, extent, 0.1).activations is None


def test_the_median_of_the_steps_counts(monkeypatch):
    def passes(seconds: float, *waits: float) -> tuple[float, int]:
        """The median, and the number of calls, of steps that wait so long in turn."""
        clock, calls = [0.0], []

        def step(carry, chunk, start, stop):
            for _ in range(start, stop):
                clock[0] += waits[len(calls) % len(waits)]
                calls.append(1)
            return carry

        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
        examples = SimpleNamespace(chunks=lambda order: [(SimpleNamespace(steps=np.int32(5)), 0)])
        return timing.time_passes(step, None, examples, lambda number: None, seconds)[0], len(calls)

    assert passes(65.0, 3.0, 3.0, 60.0) == (3.0, 3)
    assert passes(0.0, 3.0, 500.0)[1] == timing.LEAST_CALLS
    # Steps that are faster than a dispatch are dispatched together.
    median, steps = passes(1e9, 0.1)
    assert median == pytest.approx(0.1) and steps > timing.MOST_CALLS
    assert draw_order(10, 5, seed=0, epoch=1).shape == (2, 5) and "tiny" in NETWORKS
