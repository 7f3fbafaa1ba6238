"""The structure: which package may import which, where programs are compiled, who takes whole configs, and that a name
means one thing."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tljax
from tljax.cli import COMMANDS

# A package may import itself and the packages before it in this row, and nothing else of tljax.
ROW = (
    "config",
    "trees",
    "text",
    "storage",
    "networks",
    "devices",
    "data",
    "training",
    "runs",
    "weights",
    "export",
    "report",
    "startup",
    "stages",
    "model",
    "mirror_gain",
    "check",
    "arguments",
    "commands",
    "flags",
    "cli",
    "__main__",
)
ROOT = Path(tljax.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py"
}


def find_imports(tree: ast.Module) -> set[str]:
    """The files of tljax that a file imports, as dotted names below tljax."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    ours = [node for node in froms if (node.module or "").split(".")[0] == "tljax"]
    found = set()
    for node in ours:
        module = (node.module or "").removeprefix("tljax").removeprefix(".")
        for alias in node.names:
            name = f"{module}.{alias.name}".removeprefix(".")
            found.add(name if name in FILES else module)
    return found


IMPORTS = {name: find_imports(tree) for name, tree in FILES.items()}


def package(name: str) -> str:
    return name.split(".")[0]


def test_every_package_stands_in_the_row():
    assert {package(name) for name in FILES} == set(ROW)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_imports_only_its_own_package_and_those_before_it(name):
    before = ROW[: ROW.index(package(name)) + 1]
    assert {package(other) for other in IMPORTS[name]} <= set(before)


def test_no_file_imports_itself_by_way_of_others():
    TopologicalSorter(IMPORTS).prepare()


def test_who_only_hashes_bytes_does_not_import_the_network():
    def reach(name: str) -> set[str]:
        return {name}.union(*(reach(other) for other in IMPORTS[name]))

    assert reach("storage.cache") == {"storage.cache", "trees"}
    assert not {package(name) for name in reach("runs.files")} & {"networks", "training"}


def test_programs_are_compiled_in_three_places_alone():
    calls = {name for name, tree in FILES.items() for node in ast.walk(tree)
             if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.jit"}  # fmt: skip
    assert calls == {"export.stablehlo", "stages.programs", "training.inference"}


def test_every_command_is_a_file_and_every_file_a_command():
    files = {name for name in FILES if package(name) == "commands"}
    assert files == {f"commands.{name}" for name in COMMANDS}
    assert {command.module for command in COMMANDS.values()} == {f"tljax.{name}" for name in files}


def test_below_stages_nothing_but_runs_takes_a_whole_config():
    whole = {"Config", "Lesson", "Recipe", "AnyConfig"}
    below = [name for name in FILES if ROW.index(package(name)) < ROW.index("stages")]
    takes = {
        name
        for name in below
        for node in ast.walk(FILES[name])
        if isinstance(node, ast.ImportFrom) and node.module == "tljax.config"
        if whole & {alias.name for alias in node.names}
    }
    assert {package(name) for name in takes} == {"runs"}


def find_names(tree: ast.Module) -> set[str]:
    """The classes, aliases and constants of a file."""
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", ast.Tuple([]))]
        found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def test_no_two_classes_aliases_or_constants_have_one_name():
    names = Counter(name for tree in FILES.values() for name in find_names(tree))
    assert len(names) > 200 and not [name for name, count in names.items() if count > 1]


def test_networks_are_named_without_jax():
    code = "import sys, tljax.networks.architectures; sys.exit(bool({'jax', 'flax'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_re_export_nothing_but_three_names():
    assert tljax.__all__ == ["Config", "load", "train"]
    inner = [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    assert inner and not [path for path in inner if path.read_text().strip()]


def test_the_loop_is_in_sight():
    """`train` itself contains the loop over epochs and is short enough to be read at a glance; no function changes a
    variable of the function around it."""
    (train,) = (
        node for node in FILES["stages.train"].body if isinstance(node, ast.FunctionDef) and node.name == "train"
    )
    assert any(isinstance(node, ast.While) for node in ast.walk(train))
    assert train.end_lineno is not None and train.end_lineno - train.lineno < 42
    assert not [node for tree in FILES.values() for node in ast.walk(tree) if isinstance(node, ast.Nonlocal)]
