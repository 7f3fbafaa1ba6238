"""Classifies 1,000 photographs of 640 x 480, whole processes from the command to the last row, beside PyTorch.

python benchmarks/predicting.py --peers .venv-peers/bin/python
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from streaming import draw

PHOTOGRAPHS, ROUNDS = 1000, 3
HERE = Path(__file__).parent
MAIN = [sys.executable, str(HERE.parent / "main.py")]


def seconds(command: list[str], env: dict[str, str]) -> float:
    """How long a process takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - began


def make_run(folder: Path, env: dict[str, str]) -> Path:
    """A run of ResNet50 on a few pictures of 224 pixels."""
    for i in range(40):
        draw(folder / "few" / "ab"[i % 2] / f"{i}.jpg", i)
    settings = {"data.name": f"folder:{folder / 'few'}", "epochs": 1, "batch_size": 18}
    command = [*MAIN, "--config", "from_scratch", "--workdir", str(folder / "run")]
    seconds([*command, *(f"--config.{name}={value}" for name, value in settings.items())], env)
    return folder / "run"


def main(peers: str) -> None:
    """Prints the seconds of every process, and medians."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = os.environ | {"TLJAX_CACHE_DIR": str(folder / "cache")}
        paths = [folder / "photographs" / f"{i // 100}" / f"{i}.jpg" for i in range(PHOTOGRAPHS)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw, paths, range(PHOTOGRAPHS), chunksize=50))
        predict = [*MAIN, "predict", str(make_run(folder, env)), str(paths[0].parents[1]), "--out"]
        torch = [peers, str(HERE / "torch_predict.py"), str(paths[0].parents[1])]
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            shutil.rmtree(folder / "cache")
            for name, command in {
                "tljax, first call": [*predict, str(folder / "rows.csv")],
                "tljax, later calls": [*predict, str(folder / "rows.csv")],
                "torch, 2 processes decode": [*torch, str(folder / "torch.csv"), "2"],
                "torch, none does": [*torch, str(folder / "torch.csv"), "0"],
            }.items():
                found.setdefault(name, []).append(seconds(command, env))
                print(f"{name}: {found[name][-1]:.1f} s", flush=True)
        for name, times in found.items():
            median = statistics.median(times)
            print(f"{name}: median {median:.1f} s, {PHOTOGRAPHS / median:.1f} a second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="a Python with torch and Pillow")
    main(parser.parse_args().peers)
