"""report: writes a page of runs and lessons."""

import argparse
import os

from tljax.report.pictures import Albums
from tljax.report.run_page import write_page
from tljax.text import printable


def run(flags: argparse.Namespace) -> None:
    """Writes the page of the runs, and says where it is."""
    # Pictures are read, and nothing is computed: a run may have the accelerator.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    print(printable(f"written: {write_page(flags.runs, flags.out, Albums(), flags.check)}"))
