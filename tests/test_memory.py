"""The program starts itself once more with huge pages, which take fewer page faults."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tljax import __main__ as program

STATE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SCRIPT = """
import resource
import jax, jax.numpy as jnp

run, x = jax.jit(lambda x: jnp.cumsum(x * 2)[-1]), jnp.ones(2**24)
run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is a setting of Linux's C library")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=1", "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", None),
        ("glibc.malloc.hugetlb=1", None),
    ],
)
def test_the_process_starts_once_more_with_the_setting(monkeypatch, before, after):
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append((command, os.environ["GLIBC_TUNABLES"])))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "main.py", "show", "a b"])
    monkeypatch.setenv("GLIBC_TUNABLES", before) if before else monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    program.use_huge_pages()
    command = sys.executable, [sys.executable, "-u", "main.py", "show", "a b"]
    assert started == ([(command, after)] if after else [])


def test_it_says_the_same_and_ends_with_the_same_code():
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, root / "main.py", "show", "a b"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "main.py: a b is no folder; give the workdir of a run or of a lesson\n"


@pytest.mark.skipif(not STATE.is_file() or "[madvise]" not in STATE.read_text(), reason="all have huge pages, or none")
def test_working_memory_in_huge_pages_takes_few_page_faults():
    def count_page_faults(setting: str) -> int:
        environment = os.environ | {"GLIBC_TUNABLES": setting}
        command = [sys.executable, "-c", SCRIPT]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    # The program works on 64 MiB or more, which are 16,384 small pages.
    assert count_page_faults("glibc.malloc.hugetlb=0") > 16_000
    assert count_page_faults(program.HUGE_PAGES) < 2_000
