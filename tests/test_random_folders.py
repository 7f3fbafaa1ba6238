"""Folders at random: whatever their names, a run learns no split's name, and uses every picture once or counts it."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tljax.data.layouts import EXTENSIONS, SYSTEM_FOLDERS, recognize, split_role

SPLITS = ["train", "Training", "train_set", "val", "Valid", "dev", "test", "Testing", "test1", "pred"]
CLASSES = ["cat", "dog", "Cat", "é", "e\u0301", "Ba$$in", "a b", "[x]", "10", "test_tube", "__MACOSX", ".git", "x.jpg"]
FILES = ["0.jpg", "1.PNG", "2.jfif", "notes.txt", ".hidden.jpg", "photo.HEIC", "no_ending", "caf\udce9.jpg"]

files = st.sets(st.sampled_from(FILES), max_size=4)
classes = st.dictionaries(st.sampled_from(CLASSES), files, max_size=4)
doubled = classes.map(lambda found: {f"train/{name}": files for name, files in found.items()})
split = st.one_of(classes, files.map(lambda found: {"": found}), doubled)
roots = st.one_of(
    *(st.dictionaries(st.sampled_from(names), split, max_size=4) for names in (SPLITS, CLASSES, SPLITS + CLASSES)),
    st.dictionaries(st.sampled_from(["train", "val", "test"]), split, min_size=2),
)


def write(root: Path, tree: dict[str, dict[str, set[str]]]) -> None:
    for top, folders in tree.items():
        (root / top).mkdir(exist_ok=True)
        for name, found in folders.items():
            (root / top / name).mkdir(parents=True, exist_ok=True)
            for file in found:
                (root / top / name / file).touch()


def pictures(root: Path) -> Counter[str]:
    """Every picture that could be read: not hidden, and not in a hidden folder or one of the system."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    seen = (p for p in found if not any(part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in p.parts))
    return Counter(str(path) for path in seen if path.suffix.lower() in EXTENSIONS)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(roots)
def test_every_picture_is_used_once_or_counted_and_no_split_is_a_class(tree):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, tree)
        try:
            found = recognize(root)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            return
        used = Counter(
            str((found.base / path).relative_to(root))
            for by_class in found.splits.values()
            for paths in by_class.values()
            for path in paths
        )
        assert all(count == 1 for count in used.values())
        there = pictures(root)
        assert used.keys() <= there.keys()
        reasons = ("with the ending", "hidden", "in folders of the system")
        counted = sum(n for reason, n in found.left_out.items() if not reason.startswith(reasons))
        assert sum(there.values()) - sum(used.values()) == counted, found.left_out
        classes_alone = found.splits.get("all", {})
        assert len(classes_alone) < 2 or not all(split_role(name) for name in classes_alone)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("train_images", "val_images")])
def test_two_splits_are_never_two_classes(tmp_path, names):
    write(tmp_path, {name: {"a": {"0.jpg"}, "b": {"1.jpg"}} for name in names})
    assert "all" not in recognize(tmp_path).splits
