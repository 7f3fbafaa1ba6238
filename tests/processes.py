"""Runs a script in several processes that work together."""

import socket
import subprocess
import sys
from pathlib import Path


def find_port() -> int:
    """A free port of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run_together(count: int, script: str, *arguments: object) -> list[str]:
    """Runs `count` processes of `script` and returns what each has printed.

    Each gets PROCESSES, PROCESS_ID and PORT after the `arguments`.
    """
    port = find_port()
    path = Path(__file__).parent / script
    started = [
        subprocess.Popen(
            [sys.executable, path, *map(str, (*arguments, count, i, port))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=900)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), outputs
    return outputs
