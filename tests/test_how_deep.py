"""Studies with a tiny network: what they choose, run and say, and that they go on after a kill."""

import contextlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from processes import run_together
from tiny_runs import DIGITS, TIMES, check_predictions, drawing, make_source, read_summary

from tljax.cli import main
from tljax.config import Cache, Data, HowDeep, Recipe, Stage
from tljax.data.datasets import Extent
from tljax.networks.architectures import NETWORKS
from tljax.report import run_page
from tljax.report.blocks import Chart
from tljax.report.pictures import Albums
from tljax.runs import files
from tljax.runs.predictions import PREDICTIONS
from tljax.runs.records import read_records
from tljax.runs.workdir import clear
from tljax.stages import from_config, lessons, prices, rules
from tljax.stages.candidates import Candidates, list_candidates
from tljax.stages.from_config import run
from tljax.stages.recipe import build_lesson
from tljax.stages.repeats import add_repeats, choose_fewer, find_rest, keep_first, price_repeats
from tljax.weights.pretrained import load_weights

CANDIDATES = ["solved_head", "fine_tune_conv5_block1", "fine_tune_conv4_block1", "fine_tune_all", "from_scratch"]
DATA = replace(DIGITS, validation_split="train[70%:]", test_split="val", max_images=None, labels_per_class=20)


# What the whole study printed, beside its folder.
PRINTED = "printed.txt"


def make_study(source: Path | str) -> HowDeep:
    return HowDeep(pretrained=str(source), data=replace(DATA, augment="none"))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Candidates train for an epoch or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "TUNE_EPOCHS", (1, 1))
        patch.setattr(rules, "EPOCHS", (2, 2))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> HowDeep:
    return make_study(make_source(tmp_path_factory.mktemp("how_deep") / "source"))


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> Path:
    """The folder of a study that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("how_deep") / "run"
    with drawing(), (workdir.parent / PRINTED).open("w") as printed, contextlib.redirect_stdout(printed):
        run(study, workdir)
    return workdir


@pytest.fixture
def again(whole, tmp_path):
    """That folder, for a test that changes it: stages know the folder of the stage that they start from."""
    kept = shutil.copytree(whole, tmp_path / "kept")
    yield whole
    shutil.rmtree(whole)
    shutil.move(kept, whole)


def read_answer(workdir: Path) -> dict:
    return files.read_json(workdir / "how_deep.json")


def list_later(plan: dict) -> list[str]:
    """The stages that are chosen when the candidates have run."""
    return [name for name in plan["stages"] if name.endswith(("_seed1", "_seed2", "_half", "_quarter"))]


def read_plan(workdir: Path) -> dict:
    return files.read_json(workdir / "recipe.json")


def without_times(value):
    """JSON without seconds, and without sentences that say some."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in (*TIMES, "said")}
    return list(map(without_times, value)) if isinstance(value, list) else value


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The stages that run, as they run."""
    names: list[str] = []
    plain = lessons.run_stage

    def announced(config, workdir, *about, **more):
        names.append(workdir.name)
        return plain(config, workdir, *about, **more)

    monkeypatch.setattr(lessons, "run_stage", announced)
    return names


def test_a_study_is_ordinary_runs_and_an_answer(whole, study):
    plan, found, config = read_plan(whole), read_answer(whole), files.read_json(whole / "config.json")
    later = list_later(plan)
    repeats = [name for name in later if "_seed" in name]
    assert list(config["stages"]) == list(plan["stages"]) and config["own"] == plan["own"]
    first = [name for name in plan["stages"] if name not in later]
    assert first in (CANDIDATES, ["solved_head", "start", *CANDIDATES[1:]])
    assert list(plan["stages"]) == first + later and later[: len(repeats)] == repeats
    finalists = plan["study"]["finalists"]
    accuracies = {name: read_summary(whole / name)["accuracy"] for name in CANDIDATES}
    assert sorted(accuracies.values())[-2:] == sorted(accuracies[name] for name in finalists)
    # A solved head of pictures as they are depends on no seed.
    assert repeats == [f"{name}_seed{n}" for n in (1, 2) for name in finalists if name != "solved_head"]
    assert {one["name"]: one["seeds"] for one in found["candidates"]} == {
        name: 3 if f"{name}_seed2" in repeats else 1 for name in CANDIDATES
    }
    assert all(one["seconds"] > 0 for one in found["candidates"])
    saved = [files.read_json(whole / name / "config.json") for name in plan["stages"]]
    assert {one["data"]["test_split"] for one in saved} == {"none"}
    assert {one["seed"] for one in saved} == {0, 1, 2}
    pictures = {json.dumps(read_summary(whole / name)["data"]["splits"]["train"]) for name in (*first, *repeats)}
    assert len(pictures) == 1, "other seeds have the same pictures"


def test_units_are_printed_once_and_what_is_chosen_later_too(whole):
    plan, printed = read_plan(whole), (whole.parent / PRINTED).read_text()
    lines = printed.splitlines()
    tables = [line for line in lines if line.split() == ["unit", "parameters", "BatchNorm"]]
    # The solved head may read before the end of the network.
    assert len(tables) == (1 if plan["study"]["place"] == "head" else 2)
    assert all(f"- {reason}" in lines for reason in plan["reasons"])
    assert any("fewer labels, too" in reason for reason in plan["reasons"])


def test_the_best_fine_tuning_has_fewer_labels_too(whole):
    plan, tuned = read_plan(whole), read_answer(whole)["tuned_by_labels"]
    name, fewer = tuned["name"], [stage for stage in list_later(plan) if "_seed" not in stage]
    assert fewer == ["start_half", f"{name}_half", "start_quarter", f"{name}_quarter"]
    summaries = {stage: read_summary(whole / stage) for stage in plan["stages"]}
    assert summaries[name]["accuracy"] == max(summaries[tuning]["accuracy"] for tuning in CANDIDATES[1:4])
    assert [point["labels"] for point in tuned["points"]] == [5, 10, 20]
    accuracies = [summaries[stage]["accuracy"] for stage in (fewer[3], fewer[1], name)]
    assert [point["accuracy"] for point in tuned["points"]] == accuracies
    assert all(0 <= point["low"] < point["accuracy"] < point["high"] <= 1 for point in tuned["points"])
    classes = {stage: summaries[stage]["data"]["splits"]["train"]["classes"].values() for stage in fewer}
    assert [set(counts) for counts in classes.values()] == [{10}, {10}, {5}, {5}]
    contents = [summaries[stage]["data"]["splits"]["train"]["content"] for stage in fewer]
    assert contents[0] == contents[1] != contents[2] == contents[3], "a head has the labels of its fine-tuning"
    starts = [Path(files.read_json(whole / stage / "config.json")["pretrained"]).name for stage in fewer[1::2]]
    assert starts == fewer[::2] and {summaries[stage]["stage"] for stage in starts} == {"feature_extraction"}


def test_the_test_split_is_evaluated_for_the_answer_alone(whole):
    tested = [path.parent.name for path in whole.glob(f"*/{PREDICTIONS['test']}")]
    assert tested == [read_answer(whole)["chosen"]]
    assert [path.parent.name for path in whole.glob("*/summary.json") if "test" in read_summary(path.parent)] == tested


def test_the_answer_is_shown_everywhere(whole, capsys):
    found, report = read_answer(whole), (whole / "report.md").read_text()
    accuracy = read_summary(whole / found["chosen"])["test"]["accuracy"]
    test = f"evaluated for {found['chosen']} alone: accuracy {accuracy:.3f}"
    assert found["said"][0].startswith(f"train {found['chosen']}: accuracy ")
    assert [line.partition(": ")[0] for line in found["said"][1:6]] == [
        *(f"{after} instead of {before}" for before, after in pairwise(CANDIDATES)),
        ", ".join(CANDIDATES[1:]),
    ]
    assert "chosen on the same validation pictures" in found["said"][5]
    assert found["said"][-1].startswith(f"{found['tuned_by_labels']['name']}: accuracy ")
    main(["show", str(whole)])
    shown = capsys.readouterr().out
    units = [row["unit"] for row in found["heads"]]
    assert units == ["conv2_block1", "conv3_block1", "conv4_block1", "conv5_block1", "head"]
    for text in (report, shown):
        assert all(line in text for line in found["said"]) and test in text and found["command"] in text
        assert all(f"\n| {unit}" in text for unit in units)
    assert "![places](figures/places.png)" in report and "![growth](figures/growth.png)" in report
    assert all((whole / "figures" / name).stat().st_size > 5000 for name in ("places.png", "growth.png"))
    assert all(f"- {reason}\n" in report for reason in read_plan(whole)["reasons"])
    page, fewer = (whole / "report.html").read_text(), f"{found['tuned_by_labels']['name']}, one network each"
    assert all(text in page for text in ("How deep", found["said"][1], "Accuracy by unit", "Accuracy by labels", fewer))
    made = run_page.make_page([read_records(whole)], Albums(()).find)
    assert [section.title for section in made.sections][:2] == ["How deep", "Results"]
    assert len(made.lead) == 1, "which stage is the best is said by the study alone"


def test_a_finished_study_runs_nothing_again(again, study, ran, monkeypatch, capsys):
    workdir = again
    for name in ("how_deep.choose_study", "probe.probe", "answer.choose_answer"):
        monkeypatch.setattr(f"tljax.stages.{name}", None)
    before = {path.name: path.read_bytes() for path in workdir.glob("*.json")}
    found = run(study, workdir)
    assert not ran and "test" in found[read_answer(workdir)["chosen"]]
    assert {path.name: path.read_bytes() for path in workdir.glob("*.json")} == before
    assert read_answer(workdir)["said"][0] in capsys.readouterr().out


@pytest.mark.parametrize(
    "left",
    [*(pytest.param(name, marks=pytest.mark.long) for name in ("candidates", "plan", "seed")), "fewer", "answer"],
)
def test_a_study_that_was_killed_goes_on(again, study, tmp_path, ran, left):
    """The folder is as a kill leaves it after the candidates, after the plan has got its later stages, after one of
    these, before the last of them, and before the test split was evaluated."""
    workdir, kept = again, tmp_path / "kept"
    plan, chosen = read_plan(workdir), read_answer(workdir)["chosen"]
    later = list_later(plan)
    killed = {"answer": [], "seed": later[1:], "fewer": later[-1:]}.get(left, later)
    for name in ("report.md", "report.html"):
        (workdir / name).unlink()
    summary = read_summary(workdir / chosen)
    del summary["test"]
    files.write_json(workdir / chosen / "summary.json", summary)
    (workdir / chosen / PREDICTIONS["test"]).unlink()
    if left != "answer":
        (workdir / "how_deep.json").unlink()
    for name in killed:
        shutil.rmtree(workdir / name)
    if left in ("candidates", "plan"):
        files.write_json(workdir / "config.json", without_stages(files.read_json(workdir / "config.json"), later))
    if left == "candidates":
        files.write_json(workdir / "recipe.json", without_stages(plan, later))
    run(study, workdir)
    assert ran == killed
    assert without_times(read_answer(workdir)) == without_times(read_answer(kept))
    assert without_times(read_plan(workdir)) == without_times(plan)
    assert (workdir / "config.json").read_bytes() == (kept / "config.json").read_bytes()
    found = read_summary(workdir / chosen)["test"]
    assert found == read_summary(kept / chosen)["test"] and (workdir / "report.md").exists()


def without_stages(row: dict, names: list[str]) -> dict:
    """A config or a plan as it was before these stages were chosen."""
    row = row | {part: {name: row[part][name] for name in row[part] if name not in names} for part in ("stages", "own")}
    if "study" in row:
        row["study"] = {name: value for name, value in row["study"].items() if name != "finalists"}
        said = "best two", "every seed", "fewer labels"
        row["reasons"] = [reason for reason in row["reasons"] if not any(text in reason for text in said)]
    return row


def test_what_cannot_be_studied_leaves_nothing(whole, study, tmp_path):
    for settings, message in (
        ({"pretrained": None}, "must be source weights"),
        ({"data": replace(DATA, validation_split="none")}, "the validation pictures choose"),
        ({"data": replace(DATA, augment="flip")}, "add data.views"),
        ({"cache": Cache(features=False)}, "one pass gives what a head at each unit reads"),
        ({"time_limit": 0}, "minutes, more than"),
        ({"seed": -1}, "must be a whole number"),
        ({"data": replace(DATA, seed=-1)}, r"config\.data\.seed=-1"),
        ({"data": Data(name="none such")}, "none such"),
    ):
        with pytest.raises(ValueError, match=message):
            run(replace(study, **settings), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    recipe = Recipe(**{name: getattr(study, name) for name in ("pretrained", "data")})
    for config, message in (
        (replace(study, seed=1), r"another recipe \(seed: 0 before, 1 now\)"),
        (recipe, "a study before, a recipe now"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config, whole)
    for damage in (
        {"study": None},
        {"study": read_plan(whole)["study"] | {"heads": [{"unit": "head"}, 3]}},
        {"study": read_plan(whole)["study"] | {"growth": {"measured": []}}},
        {"own": {"solved_head": 3}},
        {"own": {"none such": {"seed": 1}}},
    ):
        workdir = tmp_path / "damaged"
        workdir.mkdir(exist_ok=True)
        files.write_json(workdir / "recipe.json", read_plan(whole) | damage)
        with pytest.raises(ValueError, match=r"recipe\.json is damaged|config\.own"):
            run(study, workdir)
    shutil.rmtree(workdir)


def test_an_answer_without_fewer_labels_is_shown(again, study, capsys):
    """Studies that ended before these were trained."""
    answer = read_answer(again)
    name = answer.pop("tuned_by_labels")["name"]
    files.write_json(again / "how_deep.json", answer)
    run(study, again)
    main(["show", str(again)])
    assert capsys.readouterr().out.count(answer["said"][-1]) == 2 and not read_records(again).troubles
    (page,) = (s for s in run_page.make_page([read_records(again)], Albums(()).find).sections if s.title == "How deep")
    series = [one.name for chart in page.blocks if isinstance(chart, Chart) for one in chart.series]
    assert "solved head, mean of draws" in series and not [one for one in series if name in one]


def test_a_damaged_answer_is_named_and_the_rest_is_shown(again, study, capsys):
    answer = read_answer(again)
    for damage in ("{", *(json.dumps(answer | {name: 3}) for name in ("said", "tuned_by_labels"))):
        (again / "how_deep.json").write_text(damage)
        record = read_records(again)
        assert record.answer is None and any("how_deep.json is damaged" in line for line in record.troubles)
        assert run_page.make_page([record], Albums(()).find).sections[0].title == "Results"
        with pytest.raises(ValueError, match=r"how_deep\.json is damaged"):
            run(study, again)
        with pytest.raises(SystemExit):
            main(["show", str(again)])
        assert "how_deep.json is damaged" in capsys.readouterr().err
    clear(again)
    assert not list(again.iterdir())


@pytest.mark.long
def test_two_processes_study_together(whole, study, tmp_path):
    run_together(2, "study_of_several.py", study.pretrained, tmp_path / "run")
    alone, found = read_answer(whole), read_answer(tmp_path / "run")
    for name in ("expected", "accuracy"):
        ours, theirs = ([row[name] for row in one["heads"]] for one in (found, alone))
        np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert found["place"] == alone["place"] and [one["name"] for one in found["candidates"]] == CANDIDATES
    assert [path.parent.name for path in (tmp_path / "run").glob(f"*/{PREDICTIONS['test']}")] == [found["chosen"]]
    tested = read_summary(tmp_path / "run" / found["chosen"])["test"]
    check_predictions(tmp_path / "run" / found["chosen"] / PREDICTIONS["test"], tested)


def test_what_fits_into_a_limit_is_kept_and_what_does_not_is_said(study, monkeypatch):
    extent, source = Extent(60, 54, 3, 32, (20,) * 3), load_weights(study.pretrained)
    found = list_candidates(extent, NETWORKS["tiny"].architecture, "conv5_block1", 1, "none")
    costs = {"fine_tune_conv5_block1": 20, "fine_tune_conv4_block1": 30, "fine_tune_all": 60, "from_scratch": 1}
    timed: list[str] = []

    def estimate(lesson, *about) -> int:
        timed.append(list(lesson.stages)[-1])
        return costs[timed[-1]]

    monkeypatch.setattr(prices, "estimate", estimate)
    monkeypatch.setattr(prices, "find_left", lambda limit, began: int(0.9 * limit))
    fitting = prices.keep_fitting(replace(study, time_limit=1), found, {}, source, extent, 0.0)
    assert list(fitting.candidates.stages) == ["solved_head", "start", *CANDIDATES[1:3]]
    assert timed == CANDIDATES[1:4] and fitting.left_out == tuple(CANDIDATES[3:])
    assert "fine_tune_all would take about 60 s, and of config.time_limit=1 minutes 4 s are left" in fitting.reasons[2]
    assert len(fitting.reasons) == 4
    none = prices.keep_fitting(replace(study, time_limit=0.1), found, {}, source, extent, 0.0)
    assert list(none.candidates.stages) == ["solved_head"]
    assert prices.keep_fitting(study, found, {}, source, extent, 0.0).candidates == found


@pytest.mark.long
def test_candidates_are_timed_before_a_study_with_a_limit(study, tmp_path, capsys):
    run(replace(study, time_limit=30), tmp_path / "run")
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines() if line.startswith("timing the")] == [
        f"{name};" for name in CANDIDATES[1:]
    ]
    said = [reason for reason in read_plan(tmp_path / "run")["reasons"] if "which fit into config.time_limit" in reason]
    assert [reason.split()[0] for reason in said] == CANDIDATES[1:]
    for reason in said:
        estimated, name = float(reason.split()[3]), reason.split()[0]
        took = read_summary(tmp_path / "run" / name)["seconds"]
        assert took / 5 < estimated < 5 * took + 30, (reason, took)


def test_later_stages_are_those_that_a_limit_has_room_for():
    summaries, plan = {"a": {"seconds": 10.0}, "b": {"seconds": 20.2}}, {"study": {"seconds": 4.5}}
    repeats = Candidates(dict.fromkeys(("a_seed1", "b_seed1", "a_seed2", "b_seed2"), Stage()), {}, ("why",))
    by_name = price_repeats(repeats, summaries)
    left = find_rest(2, plan, summaries)
    assert left == 60 * 2 * (1 - prices.KEPT_BACK) - 35
    assert keep_first(repeats, by_name, 62, 2) == (repeats, 0)
    few, left = keep_first(repeats, by_name, 34, 2)
    assert list(few.stages) == ["a_seed1", "b_seed1"] and left == 3
    assert few.reasons[0] == "why" and few.reasons[1].endswith("no room for it: a_seed2, b_seed2")


@pytest.mark.parametrize(("seconds", "kept"), [(40.5, 4), (39.5, 2), (19.5, 0), (-0.5, 0)])
def test_fewer_labels_have_what_the_repeats_leave_of_a_limit(whole, study, seconds, kept):
    """A head is not solved for a fine-tuning that has no room."""
    later = list_later(read_plan(whole))
    fewer = [name for name in later if "_seed" not in name]
    plan = without_stages(read_plan(whole), later)
    plan["study"]["seconds"] = 0.0
    summaries = {name: read_summary(whole / name) | {"seconds": 10.0} for name in plan["stages"]}
    seconds += 10 * (len(summaries) + len(later) - len(fewer))
    minutes = seconds / 60 / (1 - prices.KEPT_BACK)
    _, grown = add_repeats(minutes, build_lesson(study, plan), plan, summaries)
    assert [name for name in list_later(grown) if name in fewer] == fewer[:kept]
    late = [reason for reason in grown["reasons"] if "has no room" in reason and reason.endswith(fewer[-1])]
    assert len(late) == (kept < 4) and all(", ".join(fewer[kept:]) in reason for reason in late)


def test_groups_are_not_cut_for_fewer_labels(study):
    grouped = study.lesson({}, group="([0-9]+)")
    found = choose_fewer("fine_tune_all", grouped, {})
    assert not found.stages and "which cuts groups (config.data.group=([0-9]+))" in found.reasons[0]
    assert choose_fewer(None, grouped, {}) == Candidates({}, {}, ())


def test_a_preflight_compiles_every_candidate(study, monkeypatch):
    seen: dict = {}
    monkeypatch.setattr(from_config, "preflight", lambda configs, topology, in_lesson: seen.update(configs))
    assert from_config.run(replace(study, compile_for="v5e:2x2", network="tiny"), "nowhere") == {}
    assert list(seen) == CANDIDATES and {config.network for config in seen.values()} == {"tiny"}
