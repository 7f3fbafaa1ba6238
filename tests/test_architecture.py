"""The layers: a file imports only files above it, and only one compiles."""

import ast
from pathlib import Path

import pytest

import tljax

ORDER = [
    "config",
    "preemption",
    "windows",
    "winograd",
    "channels",
    "convolution",
    "pooling",
    "resnet",
    "preprocess",
    "partition",
    "cache",
    "programs",
    "metrics",
    "mesh",
    "workdir",
    "preflight",
    "imagenet",
    "state",
    "convert",
    "checkpoint",
    "weight_files",
    "pretrained",
    "cifar10",
    "sources",
    "decoding",
    "data",
    "batches",
    "optim",
    "microbatch",
    "steps",
    "features",
    "report",
    "loop",
    "stages",
    "lesson",
]
FILES = {path.stem: ast.parse(path.read_text()) for path in Path(tljax.__file__).parent.glob("[!_]*.py")}


def imported(tree: ast.Module) -> set[str]:
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = {node.module.split(".")[1] for node in froms if (node.module or "").startswith("tljax.")}
    return modules | {alias.name for node in froms if node.module == "tljax" for alias in node.names}


def test_every_file_has_its_place():
    assert set(FILES) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_files_above_it(name):
    assert imported(FILES[name]) <= set(ORDER[: ORDER.index(name)])


def test_only_stages_compiles():
    calls = {name for name, tree in FILES.items() for node in ast.walk(tree)
             if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.jit"}  # fmt: skip
    assert calls == {"stages"}
