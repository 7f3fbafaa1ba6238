"""Sums all measurements up in a table: medians, the better setting of each peer, ratios and targets."""

from statistics import median
from typing import Any, NamedTuple

from contestants import PEERS, SETTINGS

Rounds = list[dict[str, dict[str, Any]]]


class Row(NamedTuple):
    """A line of the table.

    `job` is the measured job, `own` the name of tljax's measurements, `target` the ratio to reach, and `against` are
    the peers that count for the ratio.
    """

    job: str
    own: str = "tljax"
    target: float | None = None
    against: tuple[str, ...] = PEERS


ROWS = (
    Row("forward_224", target=1.0),
    Row("forward_32", target=1.15),
    Row("step_head"),
    Row("step_conv5"),
    Row("step_all", target=1.5),
    Row("step_all_batch_norm", target=1.3),
    Row("job_feature_extraction", "tljax cold", 9.0),
    Row("job_feature_extraction", "tljax warm", 100.0),
    Row("job_fine_tune", "tljax cold", 6.0),
    Row("job_fine_tune", "tljax warm", 6.0),
    Row("job_cached", "tljax cold", 1.1),
    Row("peak", target=1.0, against=("torch",)),
)
# By the start of a job's name: key of the value in an answer, its unit, whether more is better.
UNITS = {"job_": ("seconds", "s", False), "peak": ("peak_mb", "MB", False)}
RATE = ("images_per_second", "images/s", True)


def unit_of(job: str) -> tuple[str, str, bool]:
    return next((unit for start, unit in UNITS.items() if job.startswith(start)), RATE)


def summarize(row: Row, rounds: Rounds) -> dict[str, Any]:
    """The medians of tljax and of each peer's better setting, and how they compare.

    `ratio` is how many times better the median of tljax is than that of the best peer in `row.against`. `spread` is the
    smallest and the largest ratio in a single round.
    """
    key, unit, more_is_better = unit_of(row.job)
    names = [row.own, *(name for peer in PEERS for name in SETTINGS[peer])]
    values = {name: {i: r[name][key] for i, r in enumerate(rounds) if key in r.get(name, {})} for name in names}
    medians = {name: median(of.values()) for name, of in values.items() if of}
    scaled = {name for r in rounds for name, answer in r.items() if answer.get("scaled")}
    errors = {name: answer["error"] for r in rounds for name, answer in r.items() if "error" in answer}

    def ratio(own: float, other: float) -> float:
        return own / other if more_is_better else other / own

    def best_of(candidates: list[str]) -> str | None:
        choose = max if more_is_better else min
        return choose(candidates, key=medians.__getitem__, default=None)

    better = {peer: best_of([name for name in SETTINGS[peer] if name in medians]) for peer in PEERS}
    best = best_of([name for peer in row.against if (name := better[peer])])
    summary: dict[str, Any] = {"job": row.job, "own": row.own, "unit": unit, "target": row.target}
    summary["tljax"] = medians.get(row.own)
    for peer, name in better.items():
        summary[peer] = name and {"setting": name, "median": medians[name], "scaled": name in scaled}
    if best and row.own in medians:
        pairs = [ratio(values[row.own][i], values[best][i]) for i in values[row.own] if i in values[best]]
        summary |= {"best": best, "ratio": ratio(medians[row.own], medians[best])}
        summary["spread"] = [min(pairs), max(pairs)] if pairs else None
    return summary | ({"errors": errors} if errors else {})


def make_table(summaries: list[dict[str, Any]]) -> str:
    """The table in Markdown. A peer's cell names its better setting, and says `scaled` if only a part was measured."""
    lines = [
        "| job | tljax | Keras | torch | tljax is better | in single rounds | target |",
        "| :-- | --: | --: | --: | --: | :-: | --: |",
    ]
    for summary in summaries:
        job, unit = summary["job"] + summary["own"].removeprefix("tljax"), summary["unit"]
        job = {"job_cached cold": "job_feature_extraction cold, against job_cached"}.get(job, job)
        cells = [job.replace("peak", "peak memory of step_all"), _quantity(summary["tljax"], unit)]
        for peer in PEERS:
            cell, setting = "-", summary[peer]
            if setting:
                notes = setting["setting"].removeprefix(peer).strip() + (", scaled" if setting["scaled"] else "")
                cell = f"{_quantity(setting['median'], unit)} ({notes})"
            cells.append(cell)
        spread, target = summary.get("spread"), summary["target"]
        cells.append(f"{summary['ratio']:.2f}x" if "ratio" in summary else "-")
        cells.append(f"{spread[0]:.2f} - {spread[1]:.2f}" if spread else "-")
        cells.append(f"{target:g}x" if target else "-")
        lines.append("| " + " | ".join(cells) + " |")
    if any(summary[peer] and summary[peer]["scaled"] for summary in summaries for peer in PEERS):
        lines += [
            "",
            "scaled: computed from two epochs on fewer images, as setup + epochs x second epoch x images ratio.",
        ]
    return "\n".join(lines)


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:,.1f} {unit}"
