"""Twins: every kind is found, what is only alike is not; groups, leaks and contradictions."""

import io
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_images

from tljax.check import twins
from tljax.check.twins import Named, Pairs, find_exact, find_twins, group_twins, list_twins, sketch

SIZE = 32


def to_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def read(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BILINEAR))


# What may have happened to a picture.
CHANGES = {
    "re-encoded": lambda image: to_jpeg(image, 60),
    "resized": lambda image: to_jpeg(image.resize((24, 24), Image.Resampling.BICUBIC), 85),
    "mirrored": lambda image: to_jpeg(ImageOps.mirror(image), 85),
    "cropped": lambda image: to_jpeg(image.crop((2, 2, 30, 30)), 85),
    "cropped on two sides": lambda image: to_jpeg(image.crop((2, 0, 32, 30)), 85),
    "brighter": lambda image: to_jpeg(ImageEnhance.Brightness(image).enhance(1.4), 85),
    "so bright that much is white": lambda image: to_jpeg(ImageEnhance.Brightness(image).enhance(1.55), 85),
    "mirrored, cropped and darker": lambda image: to_jpeg(
        ImageEnhance.Brightness(ImageOps.mirror(image.crop((2, 2, 30, 30)))).enhance(0.7), 85
    ),
}


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tiles of two photographs, without overlap and without the flattest ones."""
    cut = [
        np.asarray(Image.fromarray(photo[y : y + 64, x : x + 64]).resize((SIZE, SIZE), Image.Resampling.BOX))
        for photo in load_sample_images().images
        for y in range(0, 363, 64)
        for x in range(0, 576, 64)
    ]
    return np.array([tile for tile in cut if tile.std((0, 1)).mean() > 20])


def find(pictures: np.ndarray) -> set[tuple[int, int]]:
    found = find_twins(sketch(pictures))
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_twin_is_found_and_nothing_else(tiles, change):
    changed = np.array([read(CHANGES[change](Image.fromarray(tile))) for tile in tiles[::3]])
    wanted = {(3 * place, len(tiles) + place) for place in range(len(changed))}
    found = find(np.concatenate([tiles, changed]))
    assert len(wanted) > 10 and len(wanted & found) >= 0.8 * len(wanted) and not found - wanted


def test_mirror_images_are_marked(tiles):
    pictures = np.concatenate([tiles[:5], tiles[:10], tiles[5:10, :, ::-1]])
    found = find_twins(sketch(pictures))
    exact = found.distance == 0
    assert not found.mirrored[exact].any() and exact.sum() == 5
    assert found.mirrored[~exact].all() and (found.second - found.first == 5).all()
    assert set(found.second[~exact]) == set(range(15, 20))


def test_pictures_that_are_only_alike_are_no_twins():
    """Digits: some are as alike as a picture that was saved again, ones above all."""
    digits = np.array([
        read(Image.fromarray((digit * 15.9).astype(np.uint8)).convert("RGB").resize((SIZE, SIZE)))
        for digit in load_digits().images[:300]
    ])  # fmt: skip
    again = np.array([read(to_jpeg(Image.fromarray(digit), 60)) for digit in digits[:40]])
    found = find(np.concatenate([digits, again]))
    wanted = {(place, 300 + place) for place in range(40)}
    assert wanted <= found and len(found - wanted) <= 8


def test_flat_pictures_are_no_twins(tiles):
    """Skies: gradients of two colors, with the noise of a camera."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, SIZE)[:, None, None]
    ends = rng.uniform(120, 250, (2, 80, 1, 1, 3))
    skies = ends[0] * ramp + ends[1] * (1 - ramp) + rng.normal(size=(80, SIZE, SIZE, 3)) * 2
    skies = np.array([np.asarray(to_jpeg(Image.fromarray(sky), 85)) for sky in skies.clip(0, 255).astype(np.uint8)])
    assert find(skies) == set() and find(np.concatenate([tiles, skies])) == set()
    assert find(np.concatenate([skies, skies[:3]])) == {(0, 80), (1, 81), (2, 82)}


def test_one_background_with_two_things_is_no_twin(tiles):
    """A thing of 6 x 6 pixels of 32 x 32."""
    pictures, there = np.repeat(tiles[3:4], 2, axis=0), slice(10, 16)
    pictures[0, there, there], pictures[1, there, there] = tiles[30, there, there], tiles[50, there, there]
    assert find(pictures) == set()


def test_another_color_is_another_thing(tiles):
    colored = tiles[tiles.std(3).mean((1, 2)) > 25]
    assert len(colored) > 10 and find(np.concatenate([colored, colored[..., ::-1]])) == set()


def test_exact_twins_are_equal_after_decoding():
    digests = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [2, 1, 1, 1], [0, 0, 0, 0]], np.uint32)
    assert find_exact(digests).tolist() == [0, 1, 0, 2, 1]
    assert find_exact(digests[:0]).tolist() == []


def test_large_pictures_are_read_in_parts(tiles, monkeypatch):
    monkeypatch.setattr(twins, "CHUNK", 4)
    large = np.array([np.asarray(Image.fromarray(tile).resize((80, 80))) for tile in tiles[:10]])
    large = np.concatenate([large, large[:1]])
    seen: list[float] = []
    read_in_parts = sketch(large, seen.append)
    assert read_in_parts.pictures.shape == (11, SIZE, SIZE, 3) and seen[-1] == 1 and len(seen) == 3
    assert find_exact(read_in_parts.digests).tolist() == [*range(10), 0]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pictures_are_no_trouble(n, tiles):
    assert find(tiles[:n]) == set()
    assert find(np.repeat(tiles[:1], n, axis=0)) == ({(0, 1)} if n == 2 else set())


def test_the_part_that_is_done_grows_to_all(tiles):
    seen: list[float] = []
    find_twins(sketch(tiles), seen.append)
    assert seen == sorted(seen) and seen[-1] == 1


def make_pairs(*ends: tuple[int, int, float]) -> Pairs:
    first, second, distance = (np.array(column) for column in zip(*ends, strict=True))
    return Pairs(first, second, np.zeros(len(first), bool), distance.astype(np.float32))


def test_groups_are_twins_and_their_twins():
    groups = group_twins(6, make_pairs((0, 2, 0.0), (2, 5, 0.3), (1, 4, 0.3)))
    assert groups[0] == groups[2] == groups[5] and groups[1] == groups[4] and len(set(groups)) == 3


def test_a_chain_is_no_group():
    """0 - 1 - 2 - ... - 6: neighbours are alike, others are not."""
    chain = make_pairs(*((place, place + 1, 0.5) for place in range(6)))

    def measure(pairs: Pairs) -> np.ndarray:
        return 2.0 * abs(pairs.first - pairs.second)

    groups = group_twins(8, chain, measure)
    assert len(set(group_twins(8, chain))) == 2
    assert all(np.ptp(np.flatnonzero(groups == group)) <= 3 for group in groups) and len(set(groups)) < 6
    assert len(set(group_twins(8, chain, lambda pairs: np.zeros(len(pairs.first))))) == 2


def test_rows_name_leaks_contradictions_and_copies():
    named = Named(
        ("a", "b", "c", "d", "e"),
        ("train", "train", "validation", "train", "test"),
        ("cat", "cat", "cat", "dog", "cat"),
    )
    pairs = make_pairs((0, 1, 0.0), (0, 2, 0.5), (1, 2, 0.1), (1, 3, 0.2), (2, 4, 0.4))
    rows = {(row.file, row.kind): row for row in list_twins(pairs, named)}
    assert {key: row.other for key, row in rows.items()} == {
        ("b", "exact_twin"): "a",
        ("c", "leak"): "b",
        ("b", "contradiction"): "d",
        ("d", "contradiction"): "b",
        ("e", "leak"): "c",
    }
    assert rows["b", "exact_twin"].score == 1 and rows["c", "leak"].score == pytest.approx(0.95)
    assert astuple(rows["d", "contradiction"])[1:6] == ("train", "contradiction", pytest.approx(0.9), "dog", "cat")
    swapped = list_twins(make_pairs((2, 3, 0.1)), named)
    assert [(row.file, row.split) for row in swapped if row.kind == "leak"] == [("c", "validation")]


def list_kinds(splits: str, labels: str, *ends: tuple[int, int, float]) -> dict[str, set[int]]:
    """The places that rows of each kind are about; splits and labels are the first letters of theirs."""
    parts = {"t": "train", "v": "validation", "e": "test"}
    named = Named(tuple(map(str, range(len(splits)))), [parts[split] for split in splits], tuple(labels))
    kinds: dict[str, set[int]] = {}
    for row in list_twins(make_pairs(*ends), named):
        kinds.setdefault(row.kind, set()).add(int(row.file))
    return kinds


def test_what_a_picture_is_its_copies_are_too():
    # The first one of equal pixels stands for all in pairs.
    leaks = list_kinds("tvvv", "cccc", (0, 1, 0.4), (1, 2, 0.0), (1, 3, 0.0))
    assert leaks == {"leak": {1, 2, 3}, "exact_twin": {2, 3}}
    assert list_kinds("ttt", "ccd", (0, 1, 0.0), (0, 2, 0.0)) == {"contradiction": {0, 1, 2}, "exact_twin": {1}}
    # A copy of another class, and a near twin of that.
    assert list_kinds("ttt", "cdd", (0, 1, 0.0), (0, 2, 0.3))["contradiction"] == {0, 1, 2}
    assert list_kinds("ttt", "cdc", (0, 1, 0.0), (0, 2, 0.3)) == {"contradiction": {0, 1, 2}, "near_twin": {2}}
    # Near twins, each with a copy in test.
    assert list_kinds("vvee", "cccc", (0, 1, 0.3), (0, 2, 0.0), (1, 3, 0.0))["leak"] == {2, 3}
