"""Ten thousand steps with kills in between: nothing of tljax grows, and a process compiles each program once.

`pytest tests/faults/test_soak.py -m long -s`
"""

import random
import re
import time

import pytest
from harness import Run, command, environment, outcome

# Memory in MiB that each checkpoint leaves behind: 0.19 were measured, the rest is a margin. TensorStore keeps half a
# KiB for each of the 250 arrays that it writes, whatever their size, and a little for each save (docs/reliability.md).
KEPT_A_CHECKPOINT = 0.25


@pytest.mark.long
def test_ten_thousand_steps(tmp_path):
    env = environment(tmp_path / "cache", TMPDIR=str(tmp_path / "tmp"), STATUS="1")
    (tmp_path / "tmp").mkdir()
    # 13 steps an epoch.
    settings = ("--config.epochs=770", "--config.patience=1000")
    rng, kills, parts, started = random.Random(0), 0, [], time.monotonic()
    folder = tmp_path / "run"
    while True:
        run = Run(command("augmented.py", folder, *settings), env)
        if kills < 10:
            time.sleep(rng.uniform(10, 30))
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()
                kills += 1
                run.wait_for("END")
                parts.append(run.lines)
                continue
        assert run.wait(3000) == 0, run.lines[-20:]
        parts.append(run.lines)
        break
    reports = [
        [tuple(map(int, re.findall(r"\d+", line))) for line in lines if line.startswith("STATUS")] for lines in parts
    ]
    for report in reports:
        # Memory in MiB, open files and compiled programs of both kinds of step, a tenth of the way in and at the end.
        print(
            "STATUS (MiB, files, train_steps, eval_steps):", len(report), report[len(report) // 10 :][:1], report[-1:]
        )
    print(f"{kills} kills, {time.monotonic() - started:.0f} s")
    last = reports[-1]
    early, late = last[len(last) // 10], last[-1]
    assert late[0] < early[0] + 10 + KEPT_A_CHECKPOINT * len(last) and late[1] <= early[1] + 2
    assert {row[2:] for report in reports for row in report} == {(1, 1)}
    assert not list((tmp_path / "tmp").iterdir())
    left = [path.name for path in (folder / "checkpoints").iterdir()]
    assert len(left) <= 3 and not any("tmp" in name for name in left), left

    whole = Run(command("augmented.py", tmp_path / "whole", *settings), env)
    assert whole.wait(3000) == 0
    assert outcome(tmp_path / "whole") == outcome(folder)
