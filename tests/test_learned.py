"""What a run has learned from is known to whoever measures its weights: later stages, and predict."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import DIGITS, make_source, small

from tljax.cli import main
from tljax.config import Data, Head, Lesson, Stage
from tljax.data import datasets
from tljax.data.decoding import digest_pixels
from tljax.model import load
from tljax.runs import learned
from tljax.runs.learned import NOTHING, learn, read_learned, write_learned
from tljax.stages.from_config import run
from tljax.storage.file_index import digest_bytes
from tljax.weights.pretrained import load_weights

SOLVED = Head(init="ridge")


def digests(*numbers: int) -> np.ndarray:
    return np.array([[n, 0, 7, 7] for n in numbers], np.uint32)


def make_noise(folder: Path, each: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in "abc":
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name / f"{seed}_{i}.png")
    return folder


def learn_head(folder: Path, data: Data) -> Path:
    """A run whose whole record is known: its source has learned from nothing."""
    source = make_source(folder.with_name("random"))
    write_learned(source, NOTHING)
    run(small("feature_extraction", pretrained=str(source), data=data), folder)
    return folder


def test_a_run_knows_its_own_pictures_and_those_of_its_sources():
    first = learn(digests(3, 1, 3), NOTHING, of_files=True)
    assert first.files.tolist() == [1, 3] and first.whole and not len(first.pixels)
    second = learn(digests(2, 3), first, of_files=True)
    assert second.files.tolist() == [1, 2, 3] and second.whole
    third = learn(digests(9), second, of_files=False)
    assert third.has(digests(1, 4, 9), of_files=True).tolist() == [True, False, False]
    assert third.has(digests(1, 4, 9), of_files=False).tolist() == [False, False, True]


def test_where_a_source_is_not_known_or_there_are_too_many_it_says_so(monkeypatch):
    assert not learn(digests(1), None, of_files=True).whole
    assert not learn(digests(2), learn(digests(1), None, of_files=True), of_files=True).whole
    monkeypatch.setattr(learned, "MOST_DIGESTS", 3)
    before = learn(digests(1, 2), NOTHING, of_files=True)
    cut = learn(digests(3, 4), before, of_files=True)
    # Its own come first.
    assert cut.files.tolist() == [3, 4] and not cut.whole
    assert len(learn(digests(*range(1, 9)), NOTHING, of_files=True).files) == 3


def test_files_that_could_not_be_read_are_no_pictures():
    found = learn(digests(0, 5), NOTHING, of_files=True)
    assert found.has(digests(0, 5), of_files=True).tolist() == [False, True]


def test_it_is_kept_and_a_damaged_file_is_no_silence(tmp_path):
    assert read_learned(tmp_path) is None
    kept = learn(digests(1), learn(digests(2), None, of_files=False), of_files=True)
    write_learned(tmp_path, kept)
    found = read_learned(tmp_path)
    assert found is not None and repr(found) == repr(kept)
    content = (tmp_path / learned.LEARNED).read_bytes()
    file = io.BytesIO()
    np.savez(file, files=np.zeros((1, 5), np.uint64), pixels=kept.pixels, whole=True)
    for damaged in (b"", content[:-40], content[:70] + b"?" + content[71:], b"[]", file.getvalue()):
        (tmp_path / learned.LEARNED).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"learned\.npz is damaged"):
            read_learned(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "digits"])
def test_fine_tuning_is_not_measured_on_what_its_source_learned_from(tmp_path, capsys, kind):
    source = make_source(tmp_path / "source")
    all_digits = replace(DIGITS, max_images=None)
    data = all_digits if kind == "digits" else Data(f"folder:{make_noise(tmp_path / 'pictures', 20)}", image_size=32)
    all_of_them = replace(data, validation_split="none")
    run(small("feature_extraction", pretrained=str(source), head=SOLVED, epochs=0, data=all_of_them), tmp_path / "all")
    tuning = small("fine_tune", pretrained=str(tmp_path / "all"), cut="conv5_block1", data=data)
    with pytest.raises(ValueError, match=r"has learned from all (6|54) validation pictures"):
        run(tuning, tmp_path / "tuned")
    assert not list((tmp_path / "tuned").glob("*"))
    # Half of the pictures that it is measured on are new to the source.
    if kind == "folder":
        make_noise(tmp_path / "pictures", 20, seed=1)
        capsys.readouterr()
        summary = run(tuning, tmp_path / "tuned")
        known = summary["known_to_source"]["validation"]
        count = summary["data"]["splits"]["validation"]["images"]
        assert 0 < known < count == 12
        said = capsys.readouterr().out
        assert f"has learned from {known} of the {count} validation pictures" in said
        assert f"its source had learned from {known} of the {count} validation pictures" in said
        # A head that is solved again is judged on pictures that the source has learned from.
        again = small("feature_extraction", pretrained=str(tmp_path / "all"), head=SOLVED, epochs=0, data=data)
        assert run(again, tmp_path / "again")["known_to_source"] == {"train": 60 - known, "validation": known}
        # What it learned from is known to those who start from it.
        found, before = read_learned(tmp_path / "tuned"), read_learned(tmp_path / "all")
        assert found and before and len(found.files) > len(before.files) == 60
        assert np.isin(before.files, found.files).all()


def test_a_source_of_an_earlier_version_is_not_known(tmp_path, capsys):
    source = make_source(tmp_path / "source")
    (source / learned.LEARNED).unlink(missing_ok=True)
    summary = run(small("feature_extraction", pretrained=str(source)), tmp_path / "run")
    assert "has not kept what it learned from" in capsys.readouterr().out
    assert summary["known_to_source"] is None
    found = read_learned(tmp_path / "run")
    assert found and not found.whole and len(found.pixels)


def test_a_damaged_record_is_named_and_the_weights_are_read(tmp_path, capsys):
    source = make_source(tmp_path / "source")
    (source / learned.LEARNED).write_bytes(b"PK")
    weights = load_weights(str(source))
    assert weights.learned is None and "learned.npz is damaged" in weights.notes[0]
    assert load(source).learned is None


def test_predict_counts_what_was_learned_from(tmp_path, capsys):
    pictures = make_noise(tmp_path / "pictures", 20)
    data = Data(f"folder:{pictures}", image_size=32)
    learn_head(tmp_path / "run", data)
    train = datasets.load_dataset(data, seed=0).train
    assert train is not None
    shown = make_noise(tmp_path / "shown", 3, seed=5)
    for name in train.ids[:12]:
        (shown / name).write_bytes((pictures / name).read_bytes())
    capsys.readouterr()
    main(["predict", str(tmp_path / "run"), str(shown)])
    assert (
        "WARNING it has learned from 12 of these 21 pictures; on the other 9 the accuracy is 0."
        in capsys.readouterr().out
    )
    main(["predict", str(tmp_path / "run"), str(make_noise(tmp_path / "new", 2, seed=6))])
    assert "it has learned from none of these 6" in capsys.readouterr().out


def test_predict_knows_records_by_their_pixels(tmp_path, capsys):
    learn_head(tmp_path / "run", DIGITS)
    found = read_learned(tmp_path / "run")
    train = datasets.load_dataset(DIGITS, seed=0).train
    assert (
        found and train and set(found.pixels) == set(np.ascontiguousarray(train.digests[:, :2]).view(np.uint64)[:, 0])
    )
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    for i, name in enumerate(train.ids[:4]):
        pixels = (digits.images[int(name.split("_")[1])] * (255 / 16)).round().astype(np.uint8)
        place = tmp_path / "shown" / DIGITS.classes[train.labels[i]] / f"{i}.bmp"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    capsys.readouterr()
    main(["predict", str(tmp_path / "run"), str(tmp_path / "shown")])
    assert (
        "WARNING it has learned from 4 of these 4 pictures; their accuracy measures nothing" in capsys.readouterr().out
    )


def test_digests_are_of_bytes_and_of_pixels(tmp_path):
    image = Image.new("RGB", (4, 6), "red")
    assert (digest_pixels(image) != digest_pixels(image.resize((6, 4)))).any()
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as again:
        assert (digest_pixels(again) == digest_pixels(image)).all()
    assert digest_bytes(b"a").tolist() != digest_bytes(b"b").tolist()


def test_pixels_say_nothing_of_files(tmp_path, capsys):
    learn_head(tmp_path / "records", DIGITS)
    data = Data(f"folder:{make_noise(tmp_path / 'pictures', 20)}", image_size=32)
    summary = run(small("feature_extraction", pretrained=str(tmp_path / "records"), data=data), tmp_path / "run")
    assert summary["known_to_source"] is None
    assert "some of the validation pictures may be among it" in capsys.readouterr().out


def test_a_record_does_not_become_smaller(tmp_path):
    data = Data(f"folder:{make_noise(tmp_path / 'pictures', 20)}", image_size=32)
    learn_head(tmp_path / "source", data)
    config = small("feature_extraction", pretrained=str(tmp_path / "source"), data=data)
    run(config, tmp_path / "run")
    before = read_learned(tmp_path / "run")
    (tmp_path / "source" / learned.LEARNED).unlink()
    run(replace(config, epochs=2), tmp_path / "run")
    assert before and before.whole and repr(read_learned(tmp_path / "run")) == repr(before)


def test_a_lesson_is_refused_before_anything_is_deleted(tmp_path):
    """The second folder is validated on what the source has learned from."""
    first = Data(f"folder:{make_noise(tmp_path / 'pictures', 20)}", image_size=32)
    learn_head(tmp_path / "source", first)
    train = datasets.load_dataset(first, seed=0).train
    assert train is not None
    for name in train.ids:
        (tmp_path / "other" / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "pictures" / name, tmp_path / "other" / "val" / name)
    make_noise(tmp_path / "other" / "train", 5, seed=9)
    stages = {"a": Stage("feature_extraction", epochs=1, batch_size=16)}
    lesson = Lesson(pretrained=str(tmp_path / "source"), data=first, network="tiny", stages=stages)
    run(lesson, tmp_path / "run")
    files = sorted(tmp_path.joinpath("run").rglob("*"))
    other = replace(lesson, data=Data(f"folder:{tmp_path / 'other'}", image_size=32))
    for place, overwrite in ((tmp_path / "run", True), (tmp_path / "new", False)):
        with pytest.raises(ValueError, match="has learned from all 54 validation pictures"):
            run(other, place, overwrite=overwrite)
    assert sorted(tmp_path.joinpath("run").rglob("*")) == files and not (tmp_path / "new").exists()
