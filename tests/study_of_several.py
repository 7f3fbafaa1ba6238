"""One of several processes that together run the study of `test_how_deep.py` from the source weights in WEIGHTS.

python tests/study_of_several.py WEIGHTS WORKDIR PROCESSES PROCESS_ID PORT
"""

import sys
from pathlib import Path

import conftest  # noqa: F401

from tljax.devices import processes
from tljax.stages import from_config, rules

weights, workdir = sys.argv[1:3]
count, process_id, port = map(int, sys.argv[3:])
processes.join(f"localhost:{port}", count, process_id)

from test_how_deep import make_study

rules.TUNE_EPOCHS, rules.EPOCHS = (1, 1), (2, 2)
from_config.run(make_study(weights), Path(workdir))
