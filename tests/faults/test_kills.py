"""A run that is killed again and again comes to the same results as an undisturbed one.

The long form kills a hundred times: `pytest tests/faults/test_kills.py -m long -s`
"""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import head
import pytest
from harness import Run as Process
from harness import command, environment, kill_at_random, kill_until_done, newest, outcome
from tiny_runs import make_source

from tljax.runs.files import read_json, write_json
from tljax.runs.readers import read_run
from tljax.stages import from_config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """For each config: the outcome of a run, its seconds when all programs are in the cache, and its environment."""
    found = {}

    def run(config: str):
        if config not in found:
            folder = tmp_path_factory.mktemp("whole")
            env = environment(folder / "cache")
            for name in ("first", "second"):
                started = time.monotonic()
                process = Process(command(config, folder / name), env)
                assert process.wait() == 0, process.lines
                seconds = time.monotonic() - started
            assert outcome(folder / "first") == outcome(folder / "second")
            found[config] = outcome(folder / "second"), seconds, env
        return found[config]

    return run


def kill_runs(tmp_path: Path, undisturbed, configs: list[str], kills: int, seed: int) -> dict:
    rng, total, runs, different = random.Random(seed), {"kills": 0, "in_saves": 0, "unreadable": []}, 0, 0
    while total["kills"] < kills:
        config = configs[runs % len(configs)]
        expected, seconds, env = undisturbed(config)
        # In every second run not every epoch has a checkpoint.
        env = env | ({"SAVE_SECONDS": "0.5"} if runs % 2 else {})
        folder = tmp_path / str(runs)
        # Every second kill is to come in a save; every one, if fewer than half have so far.
        late = iter(range(10**6))
        now = total.copy()
        found = kill_until_done(
            config, folder, env, seconds, rng, kills - total["kills"],
            lambda now=now, late=late: (next(late) + now["kills"]) % 2 == 0 or now["in_saves"] < now["kills"] / 2,
        )  # fmt: skip
        total = {key: total[key] + found[key] for key in total}
        different += outcome(folder) != expected
        runs += 1
    return total | {"runs": runs, "different": different}


@pytest.mark.parametrize(("epochs", "seed"), [(4, 0), pytest.param(0, 3, marks=pytest.mark.long)])
def test_a_killed_run_comes_to_the_same(tmp_path, epochs, seed):
    """The kill comes in the middle of a save; without epochs, in that of the solved head."""
    source = str(make_source(tmp_path / "source"))
    arguments = f"--config.pretrained={source}", f"--config.epochs={epochs}"
    env = environment(tmp_path / "cache")
    from_config.run(replace(head.get_config(), pretrained=source, epochs=epochs), tmp_path / "whole")
    run = Process(command("head.py", tmp_path / "run", *arguments), env)
    assert kill_at_random(run, tmp_path / "run", 60, random.Random(seed), in_save=True) is not None
    assert newest(tmp_path / "run") <= 1 or epochs
    again = Process(command("head.py", tmp_path / "run", *arguments), env)
    assert again.wait() == 0, again.lines
    assert any(line.startswith("goes on after epoch") for line in again.lines) or not epochs
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    # What the solved head and each epoch made of each validation picture is a part of that.
    kept = read_run(tmp_path / "run")[1]
    assert len(kept["judged"]) == len(kept["history"]) > epochs // 2


@pytest.mark.long
def test_a_run_that_is_killed_in_each_file_of_its_end_comes_to_the_same(tmp_path, undisturbed):
    """The state of the folder is that between two files, with a part of the next. In test_disk.py the disk is full."""
    expected, _, env = undisturbed("augmented.py")
    for name in ("reference.npz", "predictions.jsonl", "evidence.npz", "summary.json"):
        run = Process(command("augmented.py", tmp_path / "run"), env | {"KILLED_AT": name})
        assert run.wait() == -signal.SIGKILL, run.lines
        assert (tmp_path / "run" / f"{name}.tmp").exists() and not (tmp_path / "run" / name).exists()
    again = Process(command("augmented.py", tmp_path / "run"), env)
    assert again.wait() == 0, again.lines
    assert outcome(tmp_path / "run") == expected and not list((tmp_path / "run").glob("*.tmp"))


@pytest.mark.long
@pytest.mark.parametrize("kills", [0, 12])
def test_a_study_that_is_killed_comes_to_the_same(tmp_path, kills):
    """In each of its files, or anywhere: no stage is another, and one alone has seen the test split. Which one depends
    on seconds, too."""
    source, env = str(make_source(tmp_path / "source")), environment(tmp_path / "cache")
    arguments = command("study.py", tmp_path / "run", f"--config.pretrained={source}")
    place = tmp_path / "run"

    def outcome_of(split: str) -> tuple[dict, dict, list[float]]:
        assert [path.parent.name for path in place.glob("*/test_predictions.jsonl")] == [split]
        summary = read_json(place / split / "summary.json")
        assert 0 < summary.pop("test")["accuracy"] <= 1
        # As every other stage is.
        del summary["data"]["splits"]["test"]
        plain = read_json(
            place / next(name for name in ("from_scratch", "fine_tune_all") if name != split) / "summary.json"
        )["data"]
        write_json(place / split / "summary.json", summary | {"data": plain, "known_to_source": None})
        (place / split / "test_predictions.jsonl").unlink()
        found = read_json(place / "how_deep.json")
        return outcome(place), read_json(place / "config.json"), [one["accuracy"] for one in found["candidates"]]

    whole = Process(arguments, env)
    assert whole.wait() == 0, whole.lines
    expected = outcome_of(read_json(place / "how_deep.json")["chosen"])
    place.rename(tmp_path / "whole")
    for name in () if kills else ("recipe.json", "config.json", "how_deep.json", "test_predictions.jsonl", "report.md"):
        killed = Process(arguments, env | {"KILLED_AT": name})
        assert killed.wait() == -signal.SIGKILL, killed.lines
    rng = random.Random(kills)
    for i in range(kills):
        kill_at_random(Process(arguments, env), place, 40, rng, in_save=i % 2 == 0)
    again = Process(arguments, env)
    assert again.wait() == 0, again.lines
    assert outcome_of(read_json(place / "how_deep.json")["chosen"]) == expected
    assert not list(place.glob("**/*.tmp"))


@pytest.mark.long
def test_a_hundred_kills(tmp_path, undisturbed):
    started = time.monotonic()
    found = kill_runs(tmp_path, undisturbed, ["tiny.py", "augmented.py", "recipe.py"], kills=100, seed=1)
    print(f"\n{found} in {time.monotonic() - started:.0f} s")
    assert found["different"] == 0 and not found["unreadable"], found
    assert found["in_saves"] >= 50
