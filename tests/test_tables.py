"""Labels in a table beside a folder of pictures."""

from pathlib import Path

import pytest
from pictures import save
from PIL import Image

from tljax.config import Data
from tljax.data import datasets
from tljax.data.tables import read_table, recognize_table


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
    assert dict(found.left_out) == {"with the ending .csv": 1, "not in the table": 1}
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
            "names 2 pictures that are not there: 9.jpg, 8.jpg; they are looked",
        ),
        ("file,label\n0.jpg,cat\n0.jpg,dog", "names 1 pictures with two labels: 0.jpg"),
        ("0.jpg,cat\n1.jpg,dog", r"names a picture in its first line \(0.jpg, cat\), where the names of its columns"),
        ("file\n0.jpg", "has the one column 'file': it needs one with files and one with labels"),
        ("a,b,c\n0.jpg,cat,1", "which of the columns a, b, c holds the files. Call it 'file'"),
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
    with pytest.raises(ValueError, match=r"1 pictures that are not there: 0\.jpg"):
        recognize_table(file)
    file.write_text("file,label\na/0.jpg,cat\nb/0.jpg,dog\n")
    assert recognize_table(file).splits == {"all": {"cat": ["a/0.jpg"], "dog": ["b/0.jpg"]}}


def test_pictures_without_a_label_are_counted(tmp_path):
    found = recognize_table(make(tmp_path, NAMES, "file,label\n0.jpg,cat\n1.jpg,\n2.jpg,dog"))
    assert found.left_out["without a label or a split"] == 1


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
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        datasets.load_dataset(Data(name=f"csv:{tmp_path / 'nothing.csv'}"), seed=0)
