"""Labels in a table beside a folder of pictures."""

import time
import unicodedata
from pathlib import Path

import pytest
from pictures import save
from PIL import Image

from tljax.config import Data
from tljax.data import datasets
from tljax.data.table_files import Finder
from tljax.data.table_text import read_table
from tljax.data.tables import recognize_table


def make(folder: Path, names: list[str], text: str) -> Path:
    for i, name in enumerate(names):
        save(folder / name, Image.new("RGB", (8, 8), (i, 0, 0)))
    (folder / "train.csv").write_text(text, "utf-8")
    return folder / "train.csv"


NAMES = [f"images/{i}.jpg" for i in range(6)]
ROWS = [f"{i}.jpg,{'cat' if i % 2 else 'dog'}" for i in range(6)]


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n" + "\n".join(ROWS),
        "label;image_id\n" + "\n".join(f"{row.split(',')[1]};{row.split('.')[0]}" for row in ROWS),
        "\ufeffFileName\tClass\n" + "\n".join("images/" + row.replace(",", "\t") for row in ROWS),
        "id,width,breed\n" + "\n".join(row.replace(",", ",40,") for row in ROWS),
        "file,label\r" + "\r".join(ROWS).replace("cat", '" cat"'),
        "image,what it is\n" + "\n".join(f"./images/{row}" for row in [*ROWS, ROWS[0]]),
    ],
)
def test_columns_separators_and_spellings_of_files_are_told(tmp_path, text):
    found = recognize_table(make(tmp_path, [*NAMES, "other.jpg"], text))
    assert found.splits == {"all": {"cat": NAMES[1::2], "dog": NAMES[0::2]}}
    assert dict(found.left_out) == {"not in the table": 1}
    assert found.notes[0].startswith("columns of train.csv: ")


def test_a_column_of_splits_is_read(tmp_path):
    text = "file,label,split\n" + "\n".join(f"{row},{('Train', 'valid', 'test')[i // 2]}" for i, row in enumerate(ROWS))
    file = make(tmp_path, NAMES, text)
    assert recognize_table(file).splits == {
        "train": {"cat": [NAMES[1]], "dog": [NAMES[0]]},
        "val": {"cat": [NAMES[3]], "dog": [NAMES[2]]},
        "test": {"cat": [NAMES[5]], "dog": [NAMES[4]]},
    }
    dataset = datasets.load_dataset(Data(name=f"csv:{file}", image_size=8), seed=0)
    assert (dataset.train.count, dataset.validation.count, dataset.class_names) == (2, 2, ("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\n9.jpg,cat\n8.jpg,dog\n0.jpg,dog",
            r"names 2 pictures not found: 9\.jpg \(not there\); 8\.jpg \(not there\); paths are read from",
        ),
        ("file,label\n0.jpg,cat\n0.jpg,dog", r"names 1 picture with two labels: images/0.jpg \(cat and dog\)"),
        ("0.jpg,cat\n1.jpg,dog", r"names a picture in its first line \(0.jpg, cat\), where the names of its columns"),
        ("file\n0.jpg", "has the one column 'file': it needs one with files and one with labels"),
        ("a,b,c\nx,cat,z", "which of the columns a, b, c holds the files. Call it 'file'"),
        ("a,b,c\n0.jpg,cat,1", "which of the columns b, c holds the labels. Call it 'label'"),
        ("file,a,b\n0.jpg,cat,1", "which of the columns a, b holds the labels. Call it 'label'"),
        ("file,label,split\n0.jpg,cat,train\n1.jpg,dog,val", "the split train has no picture of the class dog"),
    ],
)
def test_a_table_that_cannot_be_understood_is_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        recognize_table(make(tmp_path, NAMES, text))
    assert "\n" not in str(error.value)


def test_a_file_name_that_two_pictures_have_is_not_guessed(tmp_path):
    file = make(tmp_path, ["a/0.jpg", "b/0.jpg"], "file,label\n0.jpg,cat\n")
    with pytest.raises(
        ValueError,
        match=r"1 picture of which .* is meant: 0\.jpg \(2 pictures fit: a/0\.jpg and b/0\.jpg\); write paths",
    ):
        recognize_table(file)
    file.write_text("file,label\na/0.jpg,cat\nb/0.jpg,dog\n")
    assert recognize_table(file).splits == {"all": {"cat": ["a/0.jpg"], "dog": ["b/0.jpg"]}}


def test_pictures_without_a_label_are_counted(tmp_path):
    found = recognize_table(make(tmp_path, NAMES, "file,label\n0.jpg,cat\n1.jpg,\n2.jpg,dog"))
    assert found.left_out["without a file, a label or a split"] == 1


def test_other_labels_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    text = "file,label\n" + "\n".join(ROWS)
    file = make(tmp_path / "data", NAMES, text)
    read = lambda: datasets.load_dataset(Data(name=f"csv:{file}", image_size=8), seed=0, disk_bytes=2**20)  # noqa: E731
    before = dict(zip(read().train.ids, read().train.labels.tolist(), strict=True))
    file.write_text(text.replace("2.jpg,dog", "2.jpg,cat"))
    after = dict(zip(read().train.ids, read().train.labels.tolist(), strict=True))
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed <= {"images/2.jpg"} and read().description["splits"]["train"]["classes"]["cat"] >= 3


def test_what_is_no_text_is_a_line(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,cat")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        read_table(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_bytes("file,label\n0.jpg,cat".encode("utf-16-le"))
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        read_table(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_table(tmp_path / "labels.csv")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        datasets.load_dataset(Data(name=f"csv:{tmp_path / 'nothing.csv'}"), seed=0)


def name_rows(head: str, row, n: int = 6) -> str:
    return "\n".join([head, *(row(i) for i in range(n))])


def label(i: int) -> str:
    return "cat" if i % 2 else "dog"


def count(found) -> dict[str, int]:
    return {split: sum(map(len, by_class.values())) for split, by_class in found.splits.items()}


CATS_AND_DOGS = {"all": {"cat": NAMES[1::2], "dog": NAMES[0::2]}}


def test_the_column_of_files_is_the_one_whose_values_are_files(tmp_path):
    order = [3, 1, 5, 0, 2, 4]
    text = name_rows("id,name,label", lambda i: f"{order[i]},{i}.jpg,{label(i)}")
    found = recognize_table(make(tmp_path, NAMES, text))
    assert found.splits == CATS_AND_DOGS
    assert found.notes[0] == (
        "columns of train.csv: name for files (0.jpg, 1.jpg, 2.jpg, ...), label for labels (dog, cat)"
    )
    # The numbers of classes are names of files too, but few.
    text = name_rows("y,id", lambda i: f"{i % 2},{i}")
    assert recognize_table(make(tmp_path, NAMES, text)).splits == {"all": {"0": NAMES[0::2], "1": NAMES[1::2]}}
    # Two columns that mean the same files are one.
    text = name_rows("image,path,label", lambda i: f"{i}.jpg,images/{i}.jpg,{label(i)}")
    assert recognize_table(make(tmp_path, NAMES, text)).splits == CATS_AND_DOGS


def test_two_columns_of_different_files_are_refused(tmp_path):
    masks = [f"masks/{i}_mask.jpg" for i in range(6)]
    text = name_rows("image,mask,label", lambda i: f"{i}.jpg,{i}_mask.jpg,{label(i)}")
    # One picture is missing: the masks are not taken in its place.
    for missing in ("", "images/2.jpg"):
        file = make(tmp_path, [*NAMES, *masks], text)
        (tmp_path / missing).unlink() if missing else None
        with pytest.raises(ValueError, match="the columns image and mask both name files here, and not the same ones"):
            recognize_table(file)


@pytest.mark.parametrize(
    ("column", "of", "counts"),
    [
        ("is_valid", lambda i: i >= 4, {"train": 4, "val": 2}),
        ("is_test", lambda i: int(i >= 4), {"train": 4, "test": 2}),
        ("is_train", lambda i: i < 4, {"train": 4, "val": 2}),
        ("split", lambda i: int(i >= 4), {"train": 4, "val": 2}),
        ("split", lambda i: "val" if i >= 4 else "", {"train": 4, "val": 2}),
        ("Usage", lambda i: "Test" if i >= 4 else "Training", {"train": 4, "test": 2}),
        ("dataset", lambda i: f"clinic {i % 3}", {"all": 6}),
        ("fold", lambda i: i, {"all": 6}),
        ("valid", lambda i: "good", {"all": 6}),
        ("Is Valid", lambda i: i >= 4, {"train": 4, "val": 2}),
        ("ml_use", lambda i: "TRAIN" if i < 4 else "VALIDATION", {"train": 4, "val": 2}),
        ("ml_use", lambda i: "TRAIN" if i < 4 else "UNASSIGNED", {"all": 6}),
        ("batch", lambda i: f"train_{i}", {"all": 6}),
        ("is_training_image", lambda i: int(i < 4), {"all": 6}),
    ],
)
def test_a_column_of_splits_needs_values_that_are_splits(tmp_path, column, of, counts):
    text = name_rows(f"image,label,{column}", lambda i: f"{i}.jpg,{label(i)},{of(i)}")
    found = recognize_table(make(tmp_path, NAMES, text))
    assert count(found) == counts
    used, unused = f"{column} for splits (", f"the column {column} is not used ("
    assert [used in found.notes[0], any(unused in note for note in found.notes)] == [
        "all" not in counts,
        "all" in counts,
    ]


def test_a_column_called_split_with_other_values_is_refused(tmp_path):
    text = name_rows("image,label,split", lambda i: f"{i}.jpg,{label(i)},{'AB'[i % 2]}")
    with pytest.raises(ValueError, match="the column split has the values A, B: name them train, val and test"):
        recognize_table(make(tmp_path, NAMES, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n0.jpg,Rose, red\n1.jpg,Tulip", r"line 2 has 3 cells \(0.jpg, Rose, red\) under 2 names"),
        ("file,label\n0.jpg,cat\n1.jpg", "line 3 has 1 cells"),
        ('file,label\n0.jpg,cat\n1.jpg,"dog\n2.jpg,cat', "line 3: a quote is not closed"),
        ('file,label\n0.jpg,cat\n1.jpg,"dog\n2.jpg,"cat"', "line 3: a quote is not closed"),
        ('file,label\n0.jpg,"dog\n' + "1.jpg,cat\n" * 20_000, "line 2: a quote is not closed"),
        ("file,label\n", "has the columns file, label and no row below them"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        recognize_table(make(tmp_path, NAMES, text))
    assert "\n" not in str(error.value) and "train.csv" in str(error.value)


def test_tables_as_programs_write_them(tmp_path):
    plain = name_rows("file,label", lambda i: f"{i}.jpg,{label(i)}")
    spoiled = {
        "blank cells behind": plain.replace("\n", ",,\n") + ",,",
        "an index of pandas": name_rows(",file,label", lambda i: f"{i + 7},{i}.jpg,{label(i)}"),
        "all in quotes": name_rows('"file","label"', lambda i: f'"{i}.jpg","{label(i)}"'),
        "blank lines": plain.replace("\n", "\n\n"),
        "the separator told": "sep=;\n" + plain.replace(",", ";"),
        "bars": plain.replace(",", "|"),
        "line ends of Windows": plain.replace("\n", "\r\n"),
        "line ends of old Macs": "sep=;\r" + plain.replace("\n", "\r").replace(",", ";"),
        "more commas than separators": name_rows("file;label, of (a, b)", lambda i: f"{i}.jpg;{label(i)}"),
        "quotes behind a space": name_rows("file, label", lambda i: f'{i}.jpg, "{label(i)}"'),
        "ClassId": name_rows("Width,ClassId,Path", lambda i: f"2{i % 2},{label(i)},images/{i}.jpg"),
        "Label Studio": name_rows("annotator,choice,id,image", lambda i: f"1,{label(i)},{i},/data/images/{i}.jpg"),
        "a blank column of labels": name_rows("file,label,class", lambda i: f"{i}.jpg,,{label(i)}"),
        "columns without names": name_rows("0,1", lambda i: f"{i}.jpg,{label(i)}"),
    }
    for what, text in spoiled.items():
        assert recognize_table(make(tmp_path, NAMES, text)).splits == CATS_AND_DOGS, what
    file = make(tmp_path, NAMES, "")
    file.write_bytes(plain.replace(",", "\t").encode("utf-16"))
    assert recognize_table(file).splits == CATS_AND_DOGS


def test_labels_that_are_equal_in_letters_are_one_class(tmp_path):
    beetle = [unicodedata.normalize(form, "K\u00e4fer") for form in ("NFC", "NFD")]
    text = name_rows("file,label", lambda i: f"{i}.jpg, {beetle[i % 2] if i < 4 else 'Biene'} ")
    found = recognize_table(make(tmp_path, NAMES, text))
    assert {name: len(paths) for name, paths in found.splits["all"].items()} == {"Biene": 2, beetle[0]: 4}
    assert f"one class in two Unicode forms: {beetle[0]}" in found.notes
    found = recognize_table(
        make(tmp_path, NAMES, name_rows("file,label", lambda i: f"{i}.jpg,{'Cat' if i else 'cat'}"))
    )
    assert found.warnings == ["classes whose names differ in case alone are read as two: cat and Cat"]


def test_a_picture_is_in_one_split(tmp_path):
    rows = name_rows("file,label,split", lambda i: f"{i}.jpg,{label(i)},train")
    assert count(recognize_table(make(tmp_path, NAMES, f"{rows}\n0.jpg,dog,train"))) == {"train": 6}
    with pytest.raises(ValueError, match=r"names 1 picture in two splits: images/0\.jpg \(train and val\)"):
        recognize_table(make(tmp_path, NAMES, f"{rows}\n0.jpg,dog,val"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (name_rows("image,cat,dog", lambda i: f"{i}.jpg,{i % 2}.0,{1 - i % 2}.0"), r"for each class \(cat, dog\): put"),
        (name_rows("image,car,train", lambda i: f"{i}.jpg,{i % 2},{1 - i % 2}"), r"for each class \(car, train\): put"),
        (
            name_rows("row_id,image", lambda i: f"r{i},{i}.jpg"),
            "row_id hold labels. It has 6 different values in 6 rows",
        ),
        (
            name_rows("TRAIN,gs://b/9.jpg,cat", lambda i: f"TEST,gs://b/{i}.jpg,cat"),
            "names a picture in its first line",
        ),
        (name_rows("5,cat", lambda i: f"{i},{label(i)}", n=5), "names a picture in its first line"),
        ("# by Anna, May\nfile,label\n0.jpg,cat", r"columns \(file, label\) below its first line \(# by Anna, May\)"),
        (
            name_rows("image,label,label", lambda i: f"{i}.jpg,{label(i)},{label(i + 1)}"),
            "two columns are called label",
        ),
        (name_rows("image,label", lambda i: f"{i}.jpg,"), "has no labels: all columns but image are blank"),
        ("image,label,split\n0.jpg,cat,\n1.jpg,,train", "no row has all of a file, a label and a split"),
        (
            name_rows("image,label,is_valid,is_test", lambda i: f"{i}.jpg,{label(i)},{i in (2, 3)},{i > 3}"),
            "the columns is_valid and is_test both name splits, and not the same ones",
        ),
    ],
)
def test_what_would_be_misread_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        recognize_table(make(tmp_path, NAMES, text))
    assert "\n" not in str(error.value)


def test_a_class_that_may_be_none_is_a_warning(tmp_path):
    text = name_rows("file,label", lambda i: f"{i}.jpg,{['nan', 'a', 'b', 'a|b', 'c d', 'a'][i]}")
    found = recognize_table(make(tmp_path, NAMES, text))
    assert found.warnings == [
        "nan is read as a class: leave the cell blank where a picture has no label",
        "several labels in a cell are read as a class of its own: a|b",
    ]


@pytest.mark.parametrize(
    ("names", "cell", "said"),
    [
        (["train/n1/{}.jpg"], "n1/{}.jpg", None),
        (["images/{}.jpg"], "images\\{}.jpg", None),
        (["images/{}.JPG"], "{}.jpg", "6 files differ from the table in case, such as images/0.JPG for 0.jpg"),
        (["images/{}.jpg"], "/home/old/data/images/{}.jpg", "6 paths begin with /home/old/data, which is not here"),
        (["images/\u00e4{}.jpg"], "a\u0308{}.jpg", None),
        (["images/{}.JPG"], "Images/{}", "6 files differ from the table in case, such as images/0.JPG for Images/0"),
    ],
)
def test_a_path_is_a_whole_end_of_the_other(tmp_path, names, cell, said):
    pictures = [name.format(i) for i in range(6) for name in names]
    found = recognize_table(make(tmp_path, pictures, name_rows("file,label", lambda i: f"{cell.format(i)},{label(i)}")))
    assert found.splits == {"all": {"cat": pictures[1::2], "dog": pictures[0::2]}}
    assert said is None or any(said in note for note in found.notes)


def test_a_path_that_leads_to_a_file_is_that_file(tmp_path):
    make(tmp_path / "pictures", NAMES, "")
    make(tmp_path / "tables", ["images/0.jpg"], "")
    for cell in ("../pictures/images/{}.jpg", f"{tmp_path}/pictures/images/{{}}.jpg"):
        text = name_rows("file,label", lambda i, cell=cell: f"{cell.format(i)},{label(i)}")
        (tmp_path / "tables" / "labels.csv").write_text(text)
        found = recognize_table(tmp_path / "tables" / "labels.csv")
        assert found.splits["all"]["dog"] == [cell.format(i) for i in (0, 2, 4)]
        data = Data(name=f"csv:{tmp_path}/tables/labels.csv", image_size=8)
        assert datasets.load_dataset(data, seed=0).description["splits"]["train"]["images"] == 4


@pytest.mark.parametrize(
    ("pictures", "text", "message"),
    [
        (
            ["cat/0.jpg", "dog/0.jpg", "dog/1.jpg"],
            "file,label\ncat/1.jpg,cat\ndog/0.jpg,dog",
            r"cat/1\.jpg \(not there; the nearest is dog/1\.jpg\)",
        ),
        (
            ["0.jpg", "1.jpg"],
            "file,label\ncat/0.jpg,cat\ndog/1.jpg,dog",
            r"beginnings of their paths differ \(cat, dog\)",
        ),
        (
            ["a/0.jpg", "1.jpg"],
            "file,label\na/0.jpg,cat\nb/1.jpg,dog",
            r"beginnings of their paths differ \(none, b\)",
        ),
        (["0001.jpg", "0002.jpg"], "id,label\n1,cat\n2,dog", r"1 \(not there; 0001\.jpg is, with zeros that"),
        (["a1.jpg", "b2.jpg"], "file,label\na1.jpeg,cat\nb2.jpg,dog", r"\(not there; the nearest is a1\.jpg\)"),
        # A copy in another folder is not what is meant.
        (
            ["a/0.jpg", "a/1.jpg", "copy/a/2.jpg"],
            "file,label\na/0.jpg,cat\na/1.jpg,dog\na/2.jpg,dog",
            r"a/2\.jpg \(not there; copy/a/2\.jpg is, in another folder than most\)",
        ),
        (
            ["0.jpg", "1.jpg", "copy/2.jpg"],
            "file,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,dog",
            r"2\.jpg \(not there; copy/2\.jpg is, in another folder than most\)",
        ),
        (
            ["x/a/0.jpg", "y/a/1.jpg"],
            "file,label\na/0.jpg,cat\na/1.jpg,dog",
            r"its paths lead into several folders \(x/a/0\.jpg, y/a/1\.jpg\): make them paths from the table",
        ),
        (["0.jpg"], "file,label\n0.jpg,cat\ntrain.csv,cat", r"train\.csv \(its ending is none of \.jpg"),
        ([], "file,label\n0.jpg,cat", r"0\.jpg \(not there\).* from the table's folder, and .* has no picture"),
        (["a/0.jpg", "a/0.png"], "file,label\n0,cat", r"0 \(2 pictures fit: a/0\.jpg and a/0\.png\)"),
        (
            ["train/1.jpg", "train/2.jpg", "test/3.jpg"],
            "id,label\n1,cat\n2,dog\n3,dog",
            r"3 \(test/3\.jpg is of another split than most pictures of the table, train\)",
        ),
    ],
)
def test_another_picture_is_never_taken(tmp_path, pictures, text, message):
    with pytest.raises(ValueError, match=message):
        recognize_table(make(tmp_path, pictures, text))


def test_paths_of_one_table_may_lie_in_the_folders_of_splits(tmp_path):
    pictures = ["train/a/0.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/3.jpg"]
    text = "file,label,split\na/0.jpg,cat,train\nb/1.jpg,dog,train\na/2.jpg,cat,val\nb/3.jpg,dog,val"
    assert count(recognize_table(make(tmp_path, pictures, text))) == {"train": 2, "val": 2}


@pytest.mark.parametrize(("yes", "no"), [("WAHR", "FALSCH"), ("VRAI", "FAUX"), ("True", "False"), ("1", "0")])
def test_yes_and_no_are_read_as_a_spreadsheet_writes_them(tmp_path, yes, no):
    text = name_rows("file,label,is_valid", lambda i: f"{i}.jpg,{label(i)},{yes if i >= 4 else no}")
    assert count(recognize_table(make(tmp_path, NAMES, text))) == {"train": 4, "val": 2}


def test_one_picture_by_two_paths_is_one(tmp_path):
    file = make(tmp_path / "a", ["images/0.jpg", "../b/1.jpg"], "")
    (tmp_path / "a" / "link").symlink_to("images")
    for first, second in (("images/0.jpg", "link/0.jpg"), ("../b/1.jpg", tmp_path / "b" / "1.jpg")):
        file.write_text(f"file,label,split\n{first},cat,train\n{second},cat,val")
        with pytest.raises(ValueError, match=r"names 1 picture in two splits: \S+ \(train and val\)"):
            recognize_table(file)


def test_large_folders_take_seconds(tmp_path):
    """Comparing every cell with every picture, or a missing one with all names, would take minutes."""
    begin = time.process_time()
    finder = Finder(tmp_path, [f"patient{i}/1.jpg" for i in range(4_000)])
    assert all(finder.find(f"/old/patient{i}/1.jpg").picture == f"patient{i}/1.jpg" for i in range(4_000))
    finder = Finder(tmp_path, [f"{i:06}.jpg" for i in range(20_000)])
    for i in (7, 77, 777, 7777):
        assert finder.explain(f"{i}.jpg") == f"not there; {i:06}.jpg is, with zeros that spreadsheets drop"
    assert time.process_time() - begin < 20


def test_a_bare_name_may_lie_in_the_split_that_its_row_names(tmp_path):
    text = "file,label,split\n1.jpg,cat,train\n2.jpg,dog,train\n3.jpg,dog,test\n4.jpg,cat,test"
    pictures = ["train/1.jpg", "train/2.jpg", "test/3.jpg", "test/4.jpg"]
    assert count(recognize_table(make(tmp_path, pictures, text))) == {"train": 2, "test": 2}


def test_the_nearest_name_is_looked_for_only_where_it_is_printed(tmp_path, monkeypatch):
    """A table of many rows and columns would take minutes else."""
    asked: list[str] = []
    explain = Finder.explain
    monkeypatch.setattr(Finder, "explain", lambda self, cell: asked.append(cell) or explain(self, cell))
    text = name_rows("split,file,label", lambda i: f"train,x{i}.jpg,{label(i)}", n=30)
    with pytest.raises(ValueError, match=r"names 30 pictures .*x9\.jpg \(not there.* and 20 others"):
        recognize_table(make(tmp_path, NAMES, text))
    assert len(asked) == 10


def test_a_column_of_splits_is_named_wherever_it_stands(tmp_path):
    text = name_rows("split,file,label", lambda i: f"{'val' if i >= 4 else 'train'},{i}.jpg,{label(i)}")
    assert "split for splits (train, val)" in recognize_table(make(tmp_path, NAMES, text)).notes[0]
