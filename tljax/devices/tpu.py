"""Memory, speed limits and collectives of a config's programs on a TPU slice, without a TPU, data or weights.

The figures come from the TPU's own compiler, which libtpu contains.
"""

import importlib.util
import math
import os
import re
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from tljax.devices.mesh import make_mesh

GIB = 2**30
EXTRA = "pip install 'tljax[tpu-preflight]', or '.[tpu-preflight]' in a checkout"


class Chip(NamedTuple):
    """One chip of a TPU, with the figures that its maker publishes."""

    hbm_gib: float
    """Size of its memory, GiB."""
    teraflops: float
    """Peak compute in bfloat16, 10^12 operations per second."""
    hbm_bandwidth: float
    """Bandwidth of its memory, 10^9 bytes per second."""


# cloud.google.com/tpu/docs/v4, v5e, v6e: "Peak compute per chip (bf16)", "HBM capacity and bandwidth".
CHIPS = {
    "v4": Chip(32, 275, 1228),
    "v5e": Chip(16, 197, 819),
    "v6e": Chip(32, 918, 1640),
}

# The slices that are sold (cloud.google.com/tpu/docs/v4, v5e, v6e). v4 has four small ones, and all slices whose sides
# are multiples of four in rising order, up to a pod of 4,096 chips.
_SIDES = range(4, 257, 4)
CUBES = tuple(f"{a}x{b}x{c}" for a in _SIDES for b in _SIDES for c in _SIDES if a <= b <= c and a * b * c <= 4096)
FLAT_SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *CUBES),
    "v5e": FLAT_SLICES,
    "v6e": FLAT_SLICES,
}

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "f64": 64}


class Program(NamedTuple):
    """The compiler's figures for one program on one chip, per step."""

    images: int
    """Images that this chip processes."""
    arguments: int
    """Bytes, as for all fields up to `code`."""
    donated: int
    """The part of the arguments whose memory is reused for results."""
    results: int
    temporaries: int
    code: int
    flops: float
    traffic: float
    """Bytes to and from the chip's memory."""
    collectives: dict[str, tuple[int, int]]
    """For each kind: the number of collectives, and the bytes of their results."""
    compile_seconds: float

    @property
    def memory(self) -> int:
        """Bytes in use at once; donated memory counts once."""
        return self.arguments + self.results - self.donated + self.temporaries + self.code


def topology_mesh(topology: str) -> tuple[Mesh, Chip]:
    """Returns a mesh over the chips of a slice such as `v5e:4x4`, and the figures of one chip.

    No TPU needs to be there. The function sets environment variables for libtpu and switches JAX's compilation cache
    off for this process.

    Raises:
      ValueError: if no such slice is sold, libtpu is not installed, or libtpu refuses.
    """
    from jax.experimental import topologies

    name, _, shape = topology.partition(":")
    if name not in CHIPS:
        raise ValueError(
            f"config.compile_for={topology!r}: the chip must be one of {', '.join(CHIPS)}, as in 'v5e:4x4'"
        )
    if shape not in SLICES[name]:
        raise ValueError(
            f"config.compile_for={topology!r}: no such slice is sold; the nearest is '{name}:{_nearest(shape, name)}'"
        )
    # Otherwise libtpu asks the machine which TPU it is part of.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        # No chip is used here, so other processes may use libtpu at the same time.
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(variable, value)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(f"config.compile_for={topology!r} needs the TPU's compiler: {EXTRA}")
    # Programs that were compiled for absent chips cannot be loaded from JAX's compilation cache.
    jax.config.update("jax_enable_compilation_cache", False)
    # On v4 both cores of a chip work as one device. On a TPU VM this is the default; here it must be set.
    settings: dict[str, Any] = {"chip_config_name": "megacore"} if name == "v4" else {}
    # A host has four chips, except in a slice of a single chip.
    if set(shape.split("x")) == {"1"}:
        settings["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **settings).devices
    # libtpu raises exceptions of its own types, for an unknown slice for example.
    except Exception as error:
        raise ValueError(f"config.compile_for={topology!r}: {str(error).splitlines()[0]}") from error
    return make_mesh(devices), CHIPS[name]


def _nearest(shape: str, name: str) -> str:
    """The slice of chip `name` that is nearest to `shape` in its number of chips, and then in its sides."""
    sides = [int(side) for side in re.findall(r"\d+", shape)] or [1]

    def distance(other: str) -> tuple[float, float]:
        others = [int(side) for side in other.split("x")]
        ratio = abs(math.log(max(math.prod(sides), 1) / math.prod(others)))
        return ratio, sum(abs(a - b) for a, b in zip(sorted(sides), sorted(others), strict=False))

    return min(SLICES[name], key=distance)


def compile_program(name: str, run: Any, arguments: tuple[Any, ...], images: int, chip: Chip) -> Program:
    """Compiles a jitted `run` for the devices in the shardings of its abstract `arguments`.

    `images` is the number of images that one chip processes per step; `name` names the program in the error.

    Raises:
      ValueError: if the program does not fit into the chip's memory.
    """
    began = time.perf_counter()
    try:
        compiled = run.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"{name} does not fit into a chip: {explain(str(error))}; take a smaller batch_size"
        ) from error
    seconds = time.perf_counter() - began
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Program(
        images=images,
        arguments=memory.argument_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        results=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=cost["flops"],
        traffic=cost["bytes accessed"],
        collectives=count_collectives(compiled.as_text()),
        compile_seconds=seconds,
    )


def explain(message: str) -> str:
    """Shortens the compiler's out-of-memory message to the memory needed and available, or else to its main line."""
    amounts = r"([\d.]+\w*) of ([\d.]+\w*) hbm"
    if used := re.search(rf"Used {amounts}", message):
        over = re.search(r"Exceeded hbm capacity by ([\d.]+\w*)", message)
        return f"it needs {used[1]} of {used[2]}" + (f", {over[1]} too much" if over else "")
    if temporaries := re.search(r"temporaries \(([\d.]+\w*)\) exceeds available HBM \(([\d.]+\w*)\)", message):
        return f"its temporaries alone need {temporaries[1]} of {temporaries[2]}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if "memory" in line or "hbm" in line.lower()), lines[0] if lines else message)
    return f"the compiler says: {told}"


def count_collectives(text: str) -> dict[str, tuple[int, int]]:
    """For each kind: the number of collectives in a compiled program's HLO `text`, and the bytes of their results."""
    found: dict[str, tuple[int, int]] = {}
    # An asynchronous collective has two lines, `-start` and `-done`. Only `-done` has the plain result as its type.
    for shapes, kind in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-done)?\(", text):
        count, size = found.get(kind, (0, 0))
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        found[kind] = count + 1, size + sum(_bytes(dtype, sides) for dtype, sides in arrays)
    return found


def _bytes(dtype: str, sides: str) -> int:
    return math.prod(int(side) for side in sides.split(",") if side) * BITS.get(dtype, 32) // 8


def describe_program(name: str, program: Program, chip: Chip) -> str:
    """The figures of a program as text, with the speed that its compute or memory traffic allows at most."""
    rate = {
        "compute": program.images / (program.flops / chip.teraflops / 1e12),
        "memory traffic": program.images / (program.traffic / chip.hbm_bandwidth / 1e9),
    }
    limit = min(rate, key=lambda what: rate[what])
    kinds = [f"{count} {kind} of {size / 1e6:,.1f} MB" for kind, (count, size) in sorted(program.collectives.items())]
    gib = {part: getattr(program, part) / GIB for part in ("memory", "arguments", "donated", "temporaries")}
    return "\n".join(
        [
            f"{name}: {program.images} images a chip and step, compiled in {program.compile_seconds:.0f} s",
            f"  memory       {gib['memory']:.2f} of {chip.hbm_gib:g} GiB: arguments {gib['arguments']:.2f} (donated "
            f"{gib['donated']:.2f}), temporaries {gib['temporaries']:.2f}",
            f"  an image     {program.flops / program.images / 1e6:,.0f} MFLOP, "
            f"{program.traffic / program.images / 1e6:,.2f} MB to and from memory",
            f"  at most      {rate[limit]:,.0f} images/s a chip, limited by {limit} "
            f"({rate['compute']:,.0f} by compute)",
            f"  collectives  {', '.join(kinds) or 'none'}",
        ]
    )
