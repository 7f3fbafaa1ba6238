"""A page with every kind of block, ordinary and hostile names, and more of everything than a run has."""

import base64
import io
import math

import numpy as np
from PIL import Image

from tljax.check.findings import Finding
from tljax.check.result import Checked, Part, Result, Shortcut, Verdict
from tljax.report.blocks import (
    Block,
    Chart,
    Code,
    Details,
    Facts,
    Gallery,
    Item,
    Mark,
    Matrix,
    Page,
    PictureGrid,
    Section,
    Series,
    Sheet,
    Tabs,
    Text,
    Thumbnail,
)

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\"quotes\" and 'more' & <b>",
    "two\nlines\tand a tab",
    "חתול and قطة",
    "\u202egnp.tac",
    "w" * 200,
    "byte \udcff that is no UTF-8",
    "<!--<script>",
    "\u2028lines\u2029",
)
NAMES = [f"class {i}" for i in range(30)] + list(HOSTILE)


def make_picture(seed: int, name: str, side: int = 32) -> Thumbnail:
    """A small picture of random squares."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((side // 4, side // 4, 1), np.uint8))).save(buffer, "png")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(name, source, side, side, f"a picture of {name}")


def make_curves(points: int) -> Chart:
    """A loss that falls from 34, with gaps, and two marks close to each other."""
    xs = range(1, points + 1)
    train = [(x, 34 / x + 0.05) for x in xs]
    validation = [(x, math.nan if x % 7 == 3 else 30 / x + 0.2) for x in xs]
    marks = (Mark(points // 3, "best epoch"), Mark(points // 3 + 1, f"fine-tuning of {HOSTILE[6]}"))
    series = [Series("train", train), Series("validation", validation, 1, "dashed")]
    return Chart("Loss", "epoch", "loss in nats", series, marks, log_y=True, note="The axis is logarithmic.")


def make_charts() -> list[Chart]:
    bins = [(0.05 + i / 10, (0.05 + i / 10) ** 1.5) for i in range(10)]
    after = [(x, x * 0.98) for x, _ in bins]
    reliability = [Series("before", bins, 0, "line"), Series("after", after, 1, "dots")]
    rates = [Series("learning rate", [(x, 0.1 * 0.5 ** (x // 5)) for x in range(20)], 2, "steps")]
    many = [Series(f"series {i} {HOSTILE[i]}", [(x, math.sin(x / 3 + i)) for x in range(40)], i) for i in range(8)]
    return [
        make_curves(20),
        Chart("Reliability", "confidence", "share that is right", reliability, diagonal=True),
        Chart("Learning rate", "epoch", "rate", rates),
        Chart(
            "Sizes", "labels in a set", "pictures", [Series("sets", [(1, 60), (2, 30), (3, None), (4, 2)], 4, "dots")]
        ),
        Chart("One point", "epoch", "loss", [Series("loss", [(1, 0.5)])]),
        Chart("None", "epoch", "loss", [Series("loss", [(1, math.nan), (2, math.inf)])]),
        Chart(HOSTILE[0], HOSTILE[1], HOSTILE[4], many, (Mark(20, HOSTILE[0]),), y_range=(-0.5, 0.5)),
    ]


def make_matrix(classes: int) -> Matrix:
    draws = np.random.default_rng(0)
    counts = draws.poisson(0.4, (classes, classes)) + np.diag(draws.integers(20, 120, classes))
    pictures = {"0,0": ["p0", "p1", "p2"], f"{classes - 1},{classes - 1}": ["absent"]}
    return Matrix(NAMES[-classes:], counts.tolist(), pictures)


def make_blocks(classes: int, cards: int, rows: int) -> list[Block]:
    """Every block but tabs, with `cards` of the page's pictures."""
    table = [[name, 10.0 * i, 1 / (i + 1), f"{100 - i}.5% (90 to 99)", None] for i, name in enumerate(NAMES[24:])]
    numbers = [["not a number", math.nan, np.float32(0.25), "-", 3], ["infinite", math.inf, np.int64(7), "1,200", None]]
    columns = ["class", "pictures", "share", "accuracy", "nothing"]
    items = [
        Item([f"p{i}"], f"label {NAMES[i % 40]}, called {NAMES[(i + 1) % 40]}", ["97.1% sure"], "")
        for i in range(cards)
    ]
    special = [
        Item(["p0", "p1"], "right, with its map", ["91.3%"], "good"),
        Item(["absent", None], HOSTILE[6], [HOSTILE[6]], "warning"),
        Item([None], "no picture at all"),
    ]
    views = [["p0", "p1", "p2"], ["p3", None, "absent"]]
    return [
        Text(["A sentence in plain words.", *HOSTILE]),
        Text(["This is good.", "And that."], "good"),
        Text([f"Beware of {HOSTILE[0]}."], "warning"),
        Sheet(columns, [*table, *numbers], "Classes"),
        Sheet(columns * 4, [row * 4 for row in table[:rows]], "A wide one", wide=True),
        *make_charts(),
        make_matrix(classes),
        Gallery("The most confident mistakes", [*special, *items], f"{cards} of 1,000 are shown."),
        PictureGrid("As the network gets them", ["as it is", "a draw", HOSTILE[6]], views, ["first", HOSTILE[6]]),
        PictureGrid("Without titles of rows", ["one", "two"], [["p0", "p1"]]),
        Code(["python main.py predict runs/demo photo.png", *HOSTILE], "What uses it"),
        Facts([("seconds", "12.3"), ("machine", "two cores"), *((name, name) for name in HOSTILE)]),
        Details("More", [Text(["Hidden until asked."]), Facts([("a", "b")]), Code([HOSTILE[1]])]),
    ]


def make_pictures(number: int) -> dict[str, Thumbnail]:
    names = [*HOSTILE, *(f"folder/class {i % 10}/picture_{i:05}.png" for i in range(number))]
    pictures = {f"p{i}": make_picture(i, names[i], 96 if i % 5 == 1 else 32) for i in range(number)}
    return pictures | {"absent": Thumbnail("no file here.png", "", 0, 0, "a picture that is gone")}


def make_page(classes: int = 12, cards: int = 12, rows: int = 3) -> Page:
    """The page: blocks by themselves, and blocks in tabs."""
    stages = [
        (name, [Text([f"Stage {name}."]), make_curves(10), make_matrix(5), Tabs("Inner", [("a", []), ("b", [])])])
        for name in ("from_scratch", "feature_extraction", HOSTILE[0], HOSTILE[4])
    ]
    sections = [
        Section("all", "All blocks", make_blocks(classes, cards, rows)),
        Section("stages", "Stages", [Tabs("Stage", stages)]),
        Section("hostile", HOSTILE[0], [Tabs("None", [])]),
    ]
    lead = ["The head learned from 1,200 labels and is right on 91 of 100 pictures.", f"Beware of {HOSTILE[1]}."]
    return Page(f"demo {HOSTILE[1]}", lead, sections, make_pictures(max(cards, 4)))


def make_big_page() -> Page:
    """What a page may have at most: 600 pictures, 40 classes, 1,000 rows, 1,000 points."""
    rows = [[f"row {i}", i, i / 7, f"{i % 100}%"] for i in range(1000)]
    blocks = [make_matrix(40), make_curves(1000), Sheet(["name", "number", "share", "percent"], rows, "Rows")]
    items = [Item([f"p{i}"], f"picture {i}", ["99.0% sure"]) for i in range(600)]
    return Page("big", ["Much."], [Section("big", "Big", [*blocks, Gallery("All", items)])], make_pictures(600))


# Names that a table of a spreadsheet would change, beside those that a page could.
CELLS = (
    "=1+2.png",
    "'-a\r\nb.png",
    " two  spaces.png ",
    '",".png',
    "\U0001f600.png",
    r"x\udcff.png",
    "\tb;c.png",
    "keep",
)
CHECKED_NAMES = ("cat", "dog", "=sum", *HOSTILE, "Keep", " spaced ", *(f"class {i:03}" for i in range(9)))


def make_check(number: int = 14) -> tuple[Result, Checked, dict[str, str]]:
    """A check with findings of most kinds, hostile names, a group of nine twins, and decisions that were made before;
    its pictures; and why some are broken."""
    ids = (*HOSTILE, *CELLS, *(f"folder/picture_{i:03}.png" for i in range(number)))
    images = np.random.default_rng(0).integers(0, 256, (len(ids), 8, 8, 3), np.uint8)
    labels = np.arange(len(ids)) % 3
    parts = {
        name: Part(images[place], ids[place], labels[place], np.zeros((0, 4), np.uint32), None, list)
        for name, place in (("train", slice(12, None)), ("validation", slice(0, 12)))
    }
    checked = Checked(CHECKED_NAMES, parts)
    named = {name: (split, CHECKED_NAMES[label])
             for name, split, label in zip(checked.ids, checked.splits, checked.labels, strict=True)}  # fmt: skip

    def find(kind: str, file: str, score: float, suggested: str = "", decision: str = "", other: str = "") -> Finding:
        return Finding(file, named[file][0], kind, score, named[file][1], suggested, decision, other)

    findings = [
        *(find("leak", ids[i], 1 - i / 100, other=ids[i + 12]) for i in range(6)),
        find("contradiction", ids[6], 0.9, "=sum", other=ids[7]),
        find("contradiction", ids[7], 0.9, CHECKED_NAMES[6], other=ids[6]),
        *(find("near_twin", ids[i], 0.7, other=ids[20]) for i in range(21, 29)),
        *(find("label", ids[i], 1 - i / 200, CHECKED_NAMES[i % 15]) for i in range(3, len(ids)) if i % 15 > 2),
        find("dark", ids[0], 0.5, decision="drop"),
        find("dark", ids[30], 0.25, decision=CHECKED_NAMES[5]),
        find("bright", ids[30], 0.125),
        *(Finding(f"{name} is broken", "train", "broken", 1.0, name) for name in HOSTILE[:3]),
        Finding("before.png", "train", "", 0.0, "cat", decision="keep"),
    ]
    counts = {part: dict.fromkeys(CHECKED_NAMES, 1) for part in parts}
    draws = np.random.default_rng(1)
    shortcuts = [
        Shortcut("bytes", "cat", "above 9", 0.5, 0.97, ids[:8],
                 {name: draws.normal(i, 1, 50).tolist() for i, name in enumerate(CHECKED_NAMES[:4])}),
        Shortcut(HOSTILE[0], HOSTILE[1], "is <b>", 0.5, 0.97, (), {HOSTILE[1]: ["<b>"] * 9, "cat": [HOSTILE[6], "x"]}),
    ]  # fmt: skip
    verdicts = [Verdict("leak", 6, f"a twin is in another split ({HOSTILE[0]})"), Verdict("class_few", 1, HOSTILE[1])]
    result = Result(f"folder:{HOSTILE[0]}", CHECKED_NAMES, counts, verdicts, findings, shortcuts, [HOSTILE[1]])
    return result, checked, {f"{name} is broken": f"no picture: {HOSTILE[2]}" for name in HOSTILE[:2]}
