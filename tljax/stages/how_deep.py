"""A study of how much of the source weights to train: a probe, candidates that are ordinary runs, and the answer."""

from pathlib import Path

from tljax.config import NOT_READ, HowDeep, Lesson, as_json
from tljax.devices.processes import wait
from tljax.report.study import describe_tested, draw_study, write_sections
from tljax.runs.files import read_json, write_json
from tljax.runs.saved_values import PLAN_RULES, check_values
from tljax.runs.workdir import CONFIG, RECIPE
from tljax.stages.answer import find_answer
from tljax.stages.late_test import evaluate_test
from tljax.stages.lessons import Ran, claim_lesson, leave_report, run_stages, stage_configs
from tljax.stages.plan import choose_study
from tljax.stages.recipe import STUDY, resolve
from tljax.stages.repeats import add_repeats
from tljax.trees import Row


def run_study(study: HowDeep, workdir: Path, overwrite: bool, began: float) -> dict[str, Row]:
    """Runs the candidates of a study, the best two with more seeds, and says which one to take. Returns the summaries.

    The study `began` then, in the seconds of `time.perf_counter`.
    """
    lesson, plan = resolve(study, workdir, overwrite, began, choose_study)
    check_plan(plan, workdir)
    with claim_lesson(lesson, workdir, overwrite):
        if not overwrite:
            keep_config(lesson, workdir)
        ran = run_stages(lesson, workdir, overwrite, plan)
        if "finalists" not in plan[STUDY]:
            known = plan["reasons"]
            lesson, plan = add_repeats(study.time_limit, lesson, plan, ran.summaries)
            print("\n".join(["", *(f"- {reason}" for reason in plan["reasons"][len(known) :])]))
            write_json(workdir / RECIPE, plan)
            keep_config(lesson, workdir)
            ran = run_stages(lesson, workdir, False, plan, before=ran)
        found = find_answer(lesson, plan, workdir, ran)
        ran = test_answer(lesson, plan, workdir, found, ran)
        test = ran.summaries[found["chosen"]].get("test")
        print("\n".join(["", *found["said"], *describe_tested(found, test), found["command"]]))
        drawn = draw_study(found, workdir / "figures")
        leave_report(lesson, workdir, ran, plan["reasons"], write_sections(found, test, drawn))
    return ran.summaries


def check_plan(plan: Row, workdir: Path) -> None:
    try:
        check_values(plan, PLAN_RULES, PLAN_RULES)
    except ValueError as error:
        raise ValueError(
            f"{workdir / RECIPE} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error


def keep_config(lesson: Lesson, workdir: Path) -> None:
    """Writes `config.json` anew where the plan has got more stages since: a kill may have come between the two."""
    wait(f"{workdir} has its plan")
    if (workdir / CONFIG).exists():
        saved = read_json(workdir / CONFIG)
        stages = saved.get("stages") if isinstance(saved, dict) else None
        if isinstance(stages, dict) and stages.keys() < lesson.stages.keys():
            write_json(workdir / CONFIG, as_json(lesson))
    wait(f"{workdir} has its config")


def test_answer(lesson: Lesson, plan: Row, workdir: Path, found: Row, ran: Ran) -> Ran:
    """The summaries after the test split was evaluated for the answer alone, if there is one and it is asked for."""
    asked = plan["asked"]["data"]["test_split"]
    if asked == NOT_READ:
        return ran
    chosen = found["chosen"]
    summary = evaluate_test(stage_configs(lesson, workdir)[chosen], workdir / chosen, asked)
    return ran._replace(summaries=ran.summaries | {chosen: summary})
