"""Several processes of a script that work together."""

import socket
import subprocess
import sys
from pathlib import Path


def find_port() -> int:
    """A free one of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run_together(count: int, script: str, *arguments: object) -> list[str]:
    """What `count` processes of `script` print, each given PROCESSES, PROCESS_ID and PORT after the `arguments`."""
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
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    return outputs
