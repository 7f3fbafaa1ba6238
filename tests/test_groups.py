"""Pictures that belong together: whole groups are held out, each class as nearly a tenth as that allows."""

import re
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import load_folder
from PIL import Image

from tljax.config import Data
from tljax.data import datasets
from tljax.data.groups import find_groups, stratify_groups
from tljax.data.sources import open_source

PATIENT = "(p[0-9]+)_"
# The patients of each class, and how many pictures of each; "x" is none.
trees = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.dictionaries(st.sampled_from(["p1", "p2", "p3", "p4", "p5", "p66", "x"]), st.integers(1, 5), min_size=1),
    min_size=1,
)


def touch(root: Path, tree: dict[str, dict[str, int]]) -> set[str]:
    """Writes empty files, and returns their paths."""
    paths = {f"{name}/{who}_{i}.jpg" for name, found in tree.items() for who, n in found.items() for i in range(n)}
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return paths


def who(path: str) -> str:
    name = path.rsplit("/", 1)[1].split("_")[0]
    return path if name == "x" else name


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees)
def test_no_group_is_on_both_sides_and_every_picture_is_used_once(tree):
    with tempfile.TemporaryDirectory() as folder:
        paths = touch(Path(folder), tree)
        try:
            source = open_source(Data(f"folder:{folder}", group=PATIENT))
        except ValueError as error:
            holders = defaultdict(set)
            for path in paths:
                holders[path.split("/")[0]].add(who(path))
            # Every group has all of a class, or none has a name.
            whole = set().union(*(owners for owners in holders.values() if len(owners) == 1))
            assert "\n" not in str(error) and "config.data.group" in str(error)
            assert {who(path) for path in paths} <= whole or all(path == who(path) for path in paths)
            return
        rows = {split: np.arange(n) for split, n in source.sizes.items()}
        found = {split: source.describe(split, rows[split])[1] for split in rows}
        assert sorted([*found["train"], *found["val"]]) == sorted(paths)
        sides = {split: {who(path) for path in found[split]} for split in found}
        assert sides["train"] and sides["val"] and not sides["train"] & sides["val"]
        # Every class is learned, and one that is not measured is named.
        assert {path.split("/")[0] for path in found["train"]} == set(tree)
        missing = set(tree) - {path.split("/")[0] for path in found["val"]}
        named = {name for line in source.warnings for name in re.findall(r"\b[a-d]\b", line.split(":")[0])}
        assert missing == named, source.warnings
        # The numbers are those of the names.
        of = {path: source.groups.of[s][i] for s in found for i, path in enumerate(found[s])}
        assert all((of[one] == of[other]) == (who(one) == who(other)) for one in paths for other in paths)


def test_a_tenth_of_each_class_is_held_out_where_groups_allow():
    rng = np.random.default_rng(0)
    labels, alone = rng.integers(0, 4, 3000), np.arange(3000)

    def shares(groups) -> np.ndarray:
        val = stratify_groups(labels, groups)["val"]
        assert not set(groups[val]) & set(np.delete(groups, val))
        return np.bincount(labels[val], minlength=4) / np.bincount(labels)

    # To the picture, as without groups; groups of one class; of several, of very different sizes.
    np.testing.assert_array_equal(shares(alone) * np.bincount(labels), np.round(np.bincount(labels) / 10))
    assert np.abs(shares(labels + 4 * rng.integers(0, 40, 3000)) - 0.1).max() < 0.03
    assert np.abs(shares((rng.pareto(1, 3000) * 3).astype(int)) - 0.1).max() < 0.02
    # The small group would bring b nearer to a tenth, but has all of a.
    small = np.array([0, 1, *[1] * 5]), np.array([0, 0, *[1] * 5])
    assert stratify_groups(*small)["train"].tolist() == [0, 1]
    # Two groups: one on each side.
    assert (shares(alone % 2) > 0.4).all() and (shares(alone % 2) < 0.6).all()


def test_the_first_brackets_name_a_group_or_else_the_whole_match():
    paths = ["a/p1_0.jpg", "b/p1_1.jpg", "b/p2_0.jpg", "a/none.jpg", "a/_.jpg"]

    def numbers(pattern: str) -> list[int]:
        groups, _ = find_groups(pattern, {"train": paths[:3], "val": paths[3:]}, {})
        assert groups is not None
        return [*groups.of["train"], *groups.of["val"]]

    def alike(pattern: str) -> list[list[int]]:
        own = numbers(pattern)
        return sorted([i for i, one in enumerate(own) if one == number] for number in set(own))

    assert alike("p([0-9]+)_([0-9])") == [[0, 1], [2], [3], [4]] == alike("p[0-9]+")
    assert alike("p[0-9]+_[0-9]") == [[0], [1], [2], [3], [4]]
    # A match of nothing is none, as are brackets that take no part.
    assert alike("(p[0-9])?_") == alike("(p[0-9])|none") == [[0, 1], [2], [3], [4]]
    _, (line,) = find_groups("p([0-9]+)", {"train": paths}, {})
    assert line == (
        "4 groups by 'p([0-9]+)', the largest 1 with 2 pictures; 2 pictures have none there and are a group each"
    )
    assert find_groups(None, {"train": paths}, {}) == (None, [])


def make(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(root / name)
    return root


def test_a_run_says_what_it_divides(tmp_path):
    folder = make(tmp_path, [f"{name}/p{i}_{j}.png" for name in "ab" for i in range(10) for j in range(2)])
    (folder / "c").mkdir()
    make(folder, [f"c/p3_{j}.png" for j in range(5)])
    grouped = load_folder(folder, group=PATIENT)
    assert grouped.description["notes"] == [
        "10 groups by '(p[0-9]+)_', the largest p3 with 9 pictures",
        "the split val is 1 of the 10 groups, about a tenth of each class; other pictures, other groups",
    ]
    assert grouped.description["warnings"] == ["one group of each of c: none is left to validate on"]
    train, validation = grouped.train, grouped.validation
    assert (train.count, validation.count) == (41, 4) and not set(train.groups) & set(validation.groups)
    np.testing.assert_array_equal(train.all_groups(), train.groups)
    few = load_folder(folder, group=PATIENT, max_images=9).train
    known = dict(zip(train.ids, train.groups, strict=True))
    assert [known[name] for name in few.ids] == few.groups.tolist() and few.count == 9
    plain = load_folder(folder)
    assert plain.train.groups is None is plain.train.all_groups() and plain.description["warnings"] == []


def test_groups_on_both_sides_of_given_splits_are_a_leak(tmp_path):
    names = [f"{s}/{c}/p{i}_{s}{j}.png" for s, who in (("train", (1, 2, 3)), ("val", (3, 4))) for i in who
             for c in "ab" for j in range(2)]  # fmt: skip
    folder = make(tmp_path, names)
    (line,) = load_folder(folder, group=PATIENT).description["warnings"]
    assert line == (
        "1 group is in both train and validation (p3): 4 of the 8 validation pictures are of such groups, and the "
        "accuracy there says too much"
    )
    # A slice is a given split, too; all groups may be apart.
    sliced = load_folder(folder, group=PATIENT, validation_split="train[50%:]").description["warnings"]
    assert len(sliced) == 1 and sliced[0].startswith("3 groups are in both train and validation (p1, p2, p3)")
    assert load_folder(folder, group="(p[0-9]+_[a-z]+)").description["warnings"] == []


def table(folder: Path, rows: list[str]) -> Data:
    make(folder, [f"{i}.png" for i in range(12)])
    (folder / "t.csv").write_text("\n".join(["file,label,Patient ID", *rows]))
    return Data(f"csv:{folder / 't.csv'}", image_size=8, group="column:patient_id")


def test_a_column_names_the_groups(tmp_path):
    data = table(tmp_path, [f"{i}.png,{'ab'[i % 2]},{'' if i < 2 else i // 4}" for i in range(12)])
    dataset = datasets.load_dataset(data, seed=0)
    assert dataset.description["notes"][1] == (
        "5 groups by 'column:patient_id', the largest 1 with 4 pictures; 2 pictures have none there and are a group "
        "each"
    )
    by_name = dict(zip([*dataset.train.ids, *dataset.validation.ids],
                       [*dataset.train.groups, *dataset.validation.groups], strict=True))  # fmt: skip
    assert [by_name[f"{i}.png"] == by_name[f"{i + 1}.png"] for i in range(11)] == [
        False, False, True, False, *[True] * 3, False, *[True] * 3
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"t\.csv names 1 picture in two groups: 3\.png \(0 and 9\); correct the table"
    ):
        datasets.load_dataset(table(tmp_path, ["3.png,a,0", "3.png,a,9", "1.png,b,2"]), seed=0)
    with pytest.raises(
        ValueError, match=r"config\.data\.group='column:patient_id' is blank for all 2 pictures, such as"
    ):
        datasets.load_dataset(table(tmp_path, ["3.png,a,", "1.png,b,"]), seed=0)
    data.group = "column:who"
    with pytest.raises(
        ValueError, match=r"t\.csv has no column 'who' for config\.data\.group; it has file, label, Pat"
    ):
        datasets.load_dataset(data, seed=0)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("p[0-9]+x", r"matches none of the 12 pictures, such as [ab]/p\d_\d.png"),
        ("png", "makes one group of all pictures, png: none is left to validate on"),
        ("^(.)/", "each of the 2 groups has all pictures of a class, which leaves none to validate on"),
        ("column:who", "a folder has no columns; give a REGEX"),
        ("p(", r"is no REGEX: missing \), unterminated subpattern at position 1"),
        ("", "must be a REGEX or column:NAME"),
    ],
)
def test_groups_that_cannot_be_divided_are_one_line(tmp_path, group, message):
    folder = make(tmp_path, [f"{name}/p{i}_{j}.png" for name in "ab" for i in range(3) for j in range(2)])
    with pytest.raises(ValueError, match=message) as caught:
        data = Data(f"folder:{folder}", group=group)
        data.check()
        open_source(data)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("config.data.group=")
    with pytest.raises(ValueError, match="is for folder:PATH and csv:FILE, whose pictures have paths; leave it out"):
        Data("digits", group="p").check()
