"""Predicting is killed, its reader goes away, its disk is full, its pictures are damaged: one row each, or no file."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from harness import HERE
from PIL import Image, PngImagePlugin
from test_untrusted import encode, huge_png, mutate
from tiny_runs import make_source

from tljax.commands import predict
from tljax.model import load

MAIN = [sys.executable, str(HERE.parents[1] / "main.py"), "predict"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("predicting") / "run")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(300):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def start(*arguments: object, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        [*MAIN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def wait_for(condition) -> None:
    ended = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < ended
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "left"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)])
def test_a_kill_leaves_what_was_there_before(source, pictures, tmp_path, number, left):
    out = tmp_path / "rows.csv"
    out.write_text("before")
    run = start(source, pictures, "-", "--out", out, stdin=subprocess.PIPE)
    # It has opened its file and waits for more paths.
    wait_for(lambda: list(tmp_path.glob(".rows.csv.*.part")))
    time.sleep(1)
    run.send_signal(number)
    _, said = run.communicate()
    assert run.returncode == (-9 if number == signal.SIGKILL else 143), said
    assert out.read_text() == "before" and len(list(tmp_path.glob(".rows.csv.*"))) == left
    assert said == ("" if number == signal.SIGKILL else "main.py: stopped by SIGTERM\n")


def test_a_reader_that_goes_away_ends_it_without_a_word(source, pictures):
    run = start(source, pictures, pictures, "--out", "-")
    assert run.stdout is not None and run.stderr is not None
    assert run.stdout.readline().startswith('{"file": ')
    run.stdout.close()
    said = run.stderr.read().splitlines()
    assert run.wait() == 1
    assert said == [
        f"{source}: 3 classes (5, 6, 7); pictures are read at 32 pixels, their centre square",
        said[1],
    ] and said[1].startswith("unchecked, ")


def test_a_full_disk_is_one_line(source, pictures, tmp_path):
    out = tmp_path / "rows.jsonl"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    wrapper = f"import os, resource, sys; {limit}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    arguments = [sys.executable, "-c", wrapper, *MAIN[1:], str(source), str(pictures), "--out", str(out)]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr == f"main.py: {out} cannot be written (File too large); give another --out\n"
    assert not list(tmp_path.iterdir())


def test_damaged_and_hostile_pictures_have_one_row_each(source, tmp_path):
    rng, noise = random.Random(1), Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    good = [encode(noise, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2**27, zip=True)
    bomb = encode(Image.new("L", (8, 8)), "PNG", pnginfo=text)
    hostile = [
        huge_png(2**31 - 1, 2**31 - 1),
        huge_png(10**6, 101),
        bomb,
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"",
        b"\0" * 999,
    ]
    files = [mutate(good[i % len(good)], rng) for i in range(200)] + [hostile[i % len(hostile)] for i in range(100)]
    for i, content in enumerate(files):
        (tmp_path / f"{i:03d}.jpg").write_bytes(content)
    model = load(source)
    answers = list(predict.answer_all(model, predict.find_pictures([str(tmp_path)], (), Counter()), predict.Wanted()))
    assert [Path(answer.picture.file).name for answer in answers] == [f"{i:03d}.jpg" for i in range(300)]
    errors = [answer.picture.error for answer in answers]
    assert all((answer.prediction is None) == bool(error) for answer, error in zip(answers, errors, strict=True))
    assert all("\n" not in error and len(error) < 300 for error in errors)
    assert all(errors[200:]) and 50 < sum(map(bool, errors[:200])) < 200
