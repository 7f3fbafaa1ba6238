"""Odd pictures: planted ones are found, good ones are not, and what all have in common is not odd."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from tljax.check.odd import list_odd
from tljax.check.properties import FileFacts, PixelFacts, measure_pixels
from tljax.check.twins import Named

SIZE = 64


def make_files(sizes: list[tuple[float, float]]) -> FileFacts:
    width, height = np.array(sizes, float).T
    blank, empty = np.full(len(sizes), np.nan), ("",) * len(sizes)
    return FileFacts(width, height, blank, blank, empty, empty, empty)


def find(files: FileFacts, pixels: PixelFacts) -> dict[str, set[int]]:
    """The places of odd pictures by kind."""
    ids = [str(place) for place in range(len(pixels.gray))]
    found = defaultdict(set)
    rows = list_odd(files, pixels, Named(ids, ["train"] * len(ids), ["cat"] * len(ids)))
    assert all(0.5 < row.score <= 1 and (row.split, row.label) == ("train", "cat") for row in rows)
    for row in rows:
        found[row.kind].add(int(row.file))
    return dict(found)


def find_pixels(images: np.ndarray) -> dict[str, set[int]]:
    return find(make_files([(500, 375)] * len(images)), measure_pixels(images))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Parts of a photograph, but for its sky."""
    photo = load_sample_images().images[0]
    parts = [photo[y : y + 96, x : x + 96] for y in range(0, 330, 32) for x in range(0, 540, 32)]
    parts = [part for part in parts if part.std((0, 1)).max() > 20]
    return np.array([np.asarray(Image.fromarray(part).resize((SIZE, SIZE), Image.Resampling.BOX)) for part in parts])


def letterbox(photo: np.ndarray) -> np.ndarray:
    boxed = photo.copy()
    boxed[:10] = boxed[-10:] = 0
    return boxed


PLANTED = {
    "dark": lambda photo: (photo * 0.15).astype(np.uint8),
    "bright": lambda photo: np.clip(photo * 1.0 + 238, 0, 255).astype(np.uint8),
    "blurred": lambda photo: np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(3))),
    "constant": lambda photo: np.full_like(photo, 90),
    "border": letterbox,
}


def test_parts_of_photographs_are_not_odd(photographs):
    assert not find_pixels(photographs)


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("number", [1, 12])
def test_what_is_planted_is_found_and_nothing_else(photographs, kind, number):
    places = range(5, 5 + 12 * number, 12)
    images = photographs.copy()
    images[list(places)] = [PLANTED[kind](photographs[place]) for place in places]
    found = find_pixels(images)
    assert set(found) == {kind}
    assert found[kind] <= set(places) and len(found[kind]) >= 0.9 * number


@pytest.mark.parametrize("kind", ["dark", "bright", "blurred", "border"])
def test_what_all_pictures_are_is_not_odd(photographs, kind):
    images = np.array([PLANTED[kind](photo) for photo in photographs])
    assert kind not in find_pixels(images)


def test_pictures_of_one_color_are_odd_everywhere(photographs):
    images = np.zeros((20, SIZE, SIZE, 3), np.uint8)
    images[:] = np.arange(20, dtype=np.uint8)[:, None, None, None] * 13
    noise = np.random.default_rng(0).integers(0, 4, images.shape, dtype=np.uint8)
    assert find_pixels(images + noise) == {"constant": set(range(20))}


def test_of_few_pictures_the_odd_one_is_found(photographs):
    images = photographs[20:24].copy()
    images[0] = PLANTED["dark"](images[0])
    assert find_pixels(images) == {"dark": {0}}


def test_digits_are_dark_and_blurred_by_nature():
    digits = load_digits().images * 15.9
    images = [Image.fromarray(digit.astype(np.uint8)).resize((32, 32)).convert("RGB") for digit in digits]
    assert not find_pixels(np.array([np.asarray(image) for image in images]))


def find_sizes(photographs: np.ndarray, sizes: list[tuple[float, float]]) -> dict[str, set[int]]:
    return find(make_files(sizes), measure_pixels(photographs[: len(sizes)]))


@pytest.mark.parametrize("usual, odd, kind", [
    ((500, 375), (40, 30), "odd_size"),
    ((500, 375), (9000, 7000), "odd_size"),
    ((300, 300), (600, 190), "odd_shape"),
    ((300, 300), (150, 500), "odd_shape"),
    ((800, 200), (400, 400), "odd_shape"),
])  # fmt: skip
def test_tiny_huge_and_long_pictures_are_odd_among_others(photographs, usual, odd, kind):
    sizes = [*[usual] * 30, odd, *[usual[::-1]] * 10]
    assert find_sizes(photographs, sizes) == {kind: {30}}


def test_sizes_and_shapes_that_vary_are_not_odd(photographs):
    sides = np.exp(np.random.default_rng(0).uniform(np.log(50), np.log(2000), (100, 2)))
    assert not find_sizes(photographs, sides.tolist())
    assert not find_sizes(photographs, [(500, 333), (333, 500), (640, 427), (375, 500), (500, 500)] * 8)


def test_blank_headers_say_nothing(photographs):
    assert not find_sizes(photographs, [(np.nan, np.nan)] * 10)
    assert find_sizes(photographs, [(np.nan, np.nan), *[(500, 375)] * 10, (20, 20)]) == {"odd_size": {11}}
    assert not find_sizes(photographs, [(500.0, 375.0)] * 0 or [(500, 375)])


def test_rows_of_a_kind_begin_with_the_worst(photographs):
    images = photographs.copy()
    for place, part in ((3, 0.2), (9, 0.05), (14, 0.12)):
        images[place] = images[place] * part
    rows = list_odd(make_files([(9, 9)] * len(images)), measure_pixels(images),
                    Named(list(map(str, range(len(images)))), ["val"] * len(images), ["a"] * len(images)))  # fmt: skip
    assert [row.file for row in rows] == ["9", "14", "3"]
