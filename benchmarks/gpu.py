"""Checks and measures tljax on a GPU in at most eight minutes: one script for a machine that is lent for a short time.

    python benchmarks/gpu.py --out gpu            # writes gpu.json and gpu.md after every part
    python benchmarks/gpu.py --out cpu --quick    # tries the script itself, on any machine

Each part is a process of its own with a time limit: a selection of the tests, the demo, then the speed of tljax, of
plain Flax (`nn.Conv`, `nn.BatchNorm`) and of torch (compiled, channels_last, bfloat16 by autocast) on the same work.
The network is Keras's ResNet50 everywhere; weights and images are random, and images lie on the device.

Needs an installed JAX for the device and the dependencies of tljax; torch is measured if it is there. docs/gpu.md says
which wheels a machine without internet needs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol import output_file

ROOT = Path(__file__).parents[1]
TOTAL_SECONDS = 480
REPEATS, ROUNDS = 10, 5
PRECISIONS = ("bfloat16", "float32")
# What a GPU may do differently from the CPU that the tests usually run on.
TESTS = (
    *("test_convolution", "test_pooling", "test_windows", "test_microbatch", "test_resnet", "test_state"),
    *("test_steps", "test_metrics"),
)


class Job(NamedTuple):
    """Work that every library does: images a repetition, their side in pixels, classes, and whether it trains."""

    batch: int
    side: int
    classes: int
    trains: bool


JOBS = {
    "step_all": Job(256, 32, 10, True),
    "forward_32": Job(1024, 32, 10, False),
    "forward_224": Job(128, 224, 1000, False),
}
# What tljax, its demo and the tests import.
NEEDED = (
    *("jax", "flax", "optax", "orbax.checkpoint", "grain", "array_record", "tensorflow_datasets", "tyro", "pooch"),
    *("jaxtyping", "h5py", "safetensors", "sklearn", "matplotlib", "PIL", "tqdm", "pytest", "keras"),
)
# A library's work: one repetition, and the bytes of device memory that the job needs at most.
Prepared = tuple[Callable[[], Any], int | None]


def draw(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Random images (uint8) and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (job.batch, job.side, job.side, 3), np.uint8)
    return images, rng.integers(0, job.classes, job.batch).astype(np.int32)


def prepare_tljax(job: Job, precision: str) -> Prepared:
    """A run's own programs."""
    import jax
    from tljax_worker import init, prepare_steps

    from tljax.config import Compute, Config
    from tljax.data.preprocessing import CAFFE
    from tljax.devices.mesh import compute_dtype, make_mesh
    from tljax.networks.resnet import ResNet
    from tljax.training.inference import classify, start_inference

    mesh, (images, labels) = make_mesh(), draw(job)
    config = Config(stage="from_scratch", cut="conv1", compute=Compute(precision=precision))  # type: ignore[arg-type]
    if not job.trains:
        model = ResNet(job.classes, dtype=compute_dtype(mesh, config.compute.precision))
        inference = start_inference(model, CAFFE, init(job.classes), mesh)
        program = inference.program(partial(classify, size=job.side))
        inputs = jax.device_put((inference.folded, images, labels))
        return partial(program, *inputs), needed_bytes(program, *inputs)
    key = jax.random.key(0)
    train, state, chunk = prepare_steps(config, job.classes, images, labels, 1)
    needed = needed_bytes(train, state, *chunk, key=key)

    def step() -> Any:
        nonlocal state
        state, sums = train(state, *chunk, key=key)
        return sums

    return step, needed


def prepare_flax(job: Job, precision: str) -> Prepared:
    """The network as one would write it in Flax, BatchNorm in inference mode, Adam of optax."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    conv = partial(nn.Conv, dtype=jnp.dtype(precision))
    norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1.001e-5, dtype=jnp.dtype(precision))

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(norm()(conv(64, (7, 7), 2, padding=3)(x)))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
            for stage, blocks in enumerate((3, 4, 6, 3)):
                for block in range(blocks):
                    width, stride = 64 * 2**stage, 2 if stage and not block else 1
                    y = nn.relu(norm()(conv(width, (1, 1), stride)(x)))
                    y = nn.relu(norm()(conv(width, (3, 3), padding=1)(y)))
                    y = norm()(conv(4 * width, (1, 1))(y))
                    x = nn.relu(y + (x if block else norm()(conv(4 * width, (1, 1), stride)(x))))
            return nn.Dense(job.classes)(jnp.mean(x, (1, 2), dtype=jnp.float32))

    def forward(variables: Any, images: Any) -> Any:
        pixels = images[..., ::-1].astype(jnp.float32) - jnp.asarray((103.939, 116.779, 123.68))
        return Plain().apply(variables, pixels.astype(precision))

    images, labels = jax.device_put(draw(job))
    variables = jax.jit(Plain().init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    if not job.trains:
        program = jax.jit(lambda variables, images: jax.nn.softmax(forward(variables, images)))
        return partial(program, variables, images), needed_bytes(program, variables, images)
    tx = optax.adam(1e-3, eps=1e-7)

    def update(params: Any, stats: Any, opt_state: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = forward({"params": params, "batch_stats": stats}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    program = jax.jit(update, donate_argnums=(0, 2))
    params, stats = variables["params"], variables["batch_stats"]
    opt_state = tx.init(params)
    needed = needed_bytes(program, params, stats, opt_state, images, labels)

    def step() -> Any:
        nonlocal params, opt_state
        params, opt_state, value = program(params, stats, opt_state, images, labels)
        return value

    return step, needed


def prepare_torch(job: Job, precision: str) -> Prepared:
    """The network of the CPU benchmark, compiled, channels_last; bfloat16 by autocast."""
    import torch
    from torch_worker import build, compile_whole

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = (torch.from_numpy(array).to(device) for array in draw(job))
    _, network = build(job.classes, "conv1")
    network = network.to(device, memory_format=torch.channels_last)
    compiled = compile_whole(network)
    cast = partial(torch.autocast, device, torch.bfloat16, enabled=precision == "bfloat16")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, fused=True)

    def forward() -> Any:
        with torch.inference_mode(), cast():
            return compiled(images).float().softmax(1)

    def step() -> Any:
        with cast():
            logits = compiled(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = step if job.trains else forward
    run()
    return run, torch.cuda.max_memory_allocated() if device == "cuda" else None


LIBRARIES = {"tljax": prepare_tljax, "flax": prepare_flax, "torch": prepare_torch}


def needed_bytes(program: Any, *arguments: Any, **settings: Any) -> int | None:
    """Device memory of a compiled program: arguments, results and what it needs in between, without what is shared."""
    analysis = program.lower(*arguments, **settings).compile().memory_analysis()
    if analysis is None:
        return None
    own = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return int(own - analysis.alias_size_in_bytes)


def wait_for(result: Any) -> None:
    """Returns when the device is done."""
    if hasattr(result, "cpu"):
        result.cpu()
    else:
        import jax

        jax.block_until_ready(result)


def measure(library: str, name: str, precision: str, quick: bool) -> dict[str, Any]:
    """Images a second, the median of some rounds, and memory of one job."""
    job = JOBS[name]._replace(batch=8) if quick else JOBS[name]
    began = time.perf_counter()
    run, needed = LIBRARIES[library](job, precision)
    for _ in range(2):
        wait_for(run())
    setup = time.perf_counter() - began
    seconds = []
    for _ in range(2 if quick else ROUNDS):
        began, repeats = time.perf_counter(), 1 if quick else REPEATS
        for _ in range(repeats):
            result = run()
        wait_for(result)
        seconds.append((time.perf_counter() - began) / repeats)
    found = {
        "images_per_second": round(job.batch / float(np.median(seconds)), 1),
        "spread": [round(job.batch / s, 1) for s in (max(seconds), min(seconds))],
        "setup_seconds": round(setup, 1),
        "memory_gib": None if needed is None else round(needed / 2**30, 2),
    }
    if (library, name, precision) == ("tljax", "step_all", "bfloat16"):
        found["largest"] = profile(run)
    return found


def profile(run: Callable[[], Any]) -> list[list[Any]]:
    """The five operations that take most of a repetition's time on the device: name and share of all operations."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            wait_for(run())
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
        device = [plane for plane in planes if plane.name.startswith("/device:")]
        total: dict[str, float] = defaultdict(float)
        for plane in device or planes:
            for line in plane.lines:
                # The streams of a GPU, the operations of a TPU, the threads of a CPU.
                if line.name.startswith(("Stream", "XLA Ops", "tf_XLA")):
                    for event in line.events:
                        total[event.name[:80]] += event.duration_ns
    everything = sum(total.values()) or 1
    largest = sorted(total.items(), key=lambda item: -item[1])[:5]
    return [[name, round(nanoseconds / everything, 3)] for name, nanoseconds in largest]


def describe() -> dict[str, Any]:
    """The machine, and whether JAX sees its device."""
    from tljax.devices import environment

    found = environment.describe()
    return found | {"memory": environment.describe_memory()}


class Part(NamedTuple):
    """A process of the comparison: its command, the seconds that it may take, and where it runs."""

    name: str
    command: list[str]
    seconds: float


def parts(quick: bool, folder: Path) -> list[Part]:
    """What runs, most important first: whatever comes after the time is up is left out."""
    this = [sys.executable, __file__, *(["--quick"] if quick else [])]
    tests = [f"tests/{name}.py" for name in (TESTS[:3] if quick else TESTS)]
    libraries = [name for name in LIBRARIES if name != "torch" or importlib.util.find_spec("torch")]
    wanted = [(name, "bfloat16") for name in libraries] + [(name, "float32") for name in libraries if name != "torch"]
    small = ["--config.data.max_images=40"] if quick else []
    demo = [sys.executable, "main.py", "--config", "demo", "--workdir", str(folder / "demo"), *small]
    speed = [Part(" ".join(one), [*this, "--measure", *one], 75) for one in wanted]
    return [
        Part("environment", [*this, "--describe"], 60),
        Part("tests", [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-n0", *tests], 100),
        *speed[: len(libraries)],
        Part("demo", demo, 180),
        *speed[len(libraries) :],
    ]


def run_part(part: Part, seconds: float, environment: dict[str, str]) -> dict[str, Any]:
    """How a part ended, and the JSON lines that it printed."""
    began = time.perf_counter()
    try:
        done = subprocess.run(part.command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)
        code, out, tail = done.returncode, done.stdout, (done.stdout + done.stderr)[-2000:]
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        code, tail = None, f"stopped after {seconds:.0f} s\n{out[-1000:]}"
    rows = [json.loads(line) for line in out.splitlines() if line.startswith('{"')]
    return {"exit": code, "seconds": round(time.perf_counter() - began, 1), "rows": rows, "tail": tail}


def write(results: dict[str, Any], out: Path) -> None:
    """Both files, as far as the parts have come."""
    Path(f"{out}.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = ["| work | library | precision | images/s | slowest - fastest round | memory, GiB | setup, s |"]
    lines.append("| :-- | :-- | :-- | --: | :-: | --: | --: |")
    for result in results.values():
        for row in (row for row in result.get("rows", []) if "job" in row):
            spread = " - ".join(f"{value:,}" for value in row["spread"])
            cells = (row["job"], row["library"], row["precision"], f"{row['images_per_second']:,}", spread,
                     row["memory_gib"] or "-", row["setup_seconds"])  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    ends = [f"- {name}: exit {result['exit']}, {result['seconds']} s" for name, result in results.items()]
    tails = [f"## {name}\n\n```\n{result['tail']}\n```" for name, result in results.items() if result["exit"] != 0]
    largest = [f"- {share:.1%} {name}" for result in results.values() for row in result["rows"]
               for name, share in row.get("largest", [])]  # fmt: skip
    text = [*lines, "", "Ends of the parts:", "", *ends, "", "Largest operations of tljax step_all bfloat16:", ""]
    Path(f"{out}.md").write_text("\n".join([*text, *largest, "", *tails]) + "\n")


def results_path(path: str) -> Path:
    """The `path` of results without its ending, where files can be written."""
    return output_file(f"{path}.json").with_name(Path(path).name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=results_path, default=Path("gpu"), help="path of the results without its ending")
    parser.add_argument("--quick", action="store_true", help="tiny batches: tries the script, measures nothing")
    parser.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("LIBRARY", "PRECISION"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.describe:
        print(json.dumps(describe()))
        return
    if flags.measure:
        library, precision = flags.measure
        for name in JOBS:
            row = {"job": name, "library": library, "precision": precision}
            print(json.dumps(row | measure(library, name, precision, flags.quick)), flush=True)
        return
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"this Python lacks {', '.join(missing)}: docs/gpu.md says how to bring them")
    began = time.perf_counter()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        # A part takes the device's memory as it needs it, so that the next one finds it free.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TLJAX_CACHE_DIR": f"{folder}/cache",
            # The tests choose the CPU unless they are told otherwise.
            "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", ""),
        }
        for part in parts(flags.quick, Path(folder)):
            left = TOTAL_SECONDS - (time.perf_counter() - began)
            if left < 20:
                results[part.name] = {"exit": None, "seconds": 0, "rows": [], "tail": "left out: the time was up"}
            else:
                print(f"{part.name} ...", flush=True)
                results[part.name] = run_part(part, min(part.seconds, left), environment)
            write(results, flags.out)
    print(Path(f"{flags.out}.md").read_text())
    if any(result["exit"] != 0 for result in results.values()):
        sys.exit("some parts failed or were left out, see above")


if __name__ == "__main__":
    main()
