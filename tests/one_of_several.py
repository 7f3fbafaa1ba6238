"""One of several processes that together run STAGES, with commas between them, of the lesson of `tiny_runs.py` from the
source weights in WEIGHTS, and beside it a head on several views of each picture.

Each process has a cache folder of its own.

    python tests/one_of_several.py WEIGHTS WORKDIR STAGES PROCESSES PROCESS_ID PORT
"""

import sys
from dataclasses import replace
from pathlib import Path

import conftest  # noqa: F401

from tljax.devices import processes
from tljax.stages import from_config

weights, workdir, stages = sys.argv[1:4]
count, process_id, port = map(int, sys.argv[4:])
processes.join(f"localhost:{port}", count, process_id)

from tiny_runs import make_lesson, train_on_views

lesson = make_lesson()
chosen = {name: lesson.stages[name] for name in stages.split(",")}
from_config.run(replace(lesson, pretrained=weights, source_classes=(), stages=chosen), Path(workdir))
train_on_views(weights, Path(workdir) / "views")
