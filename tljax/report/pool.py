"""Which pictures a page shows, and under which keys its blocks find them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tljax.report.blocks import Thumbnail
from tljax.report.maps import paint
from tljax.report.mistakes import find_turned, say
from tljax.report.pictures import MOST_PICTURES, Drawn, make_thumbnails, read_images
from tljax.report.shown import IN_GALLERY, Shown, rank_rows, take_turns
from tljax.runs.predictions import choose_rows

# How many of a page's pictures may be contribution maps and training pictures.
MOST_EVIDENCE = MOST_PICTURES // 2


class Pool(NamedTuple):
    """The pictures of a page by their keys, and by stage the keys of its contribution maps (by row) and of its
    training pictures. `left_out` are the stages for whose maps and training pictures there was no room."""

    pictures: Mapping[str, Thumbnail]
    maps: Mapping[str, Mapping[int, str]]
    views: Mapping[str, Sequence[Sequence[str]]]
    left_out: Sequence[str]


def collect_pictures(stages: Sequence[Shown]) -> Pool:
    """At most `MOST_PICTURES` pictures: contribution maps and training pictures, those of galleries, then those of the
    confusion matrices, in turns."""
    pictures: dict[str, Drawn] = {}
    maps: dict[str, dict[int, str]] = {}
    views: dict[str, list[list[str]]] = {}
    left_out = []
    for shown in stages:
        drawn, maps[shown.label] = _draw_maps(shown)
        grid, views[shown.label] = _draw_views(shown)
        if len(pictures) + len(drawn) + len(grid) > MOST_EVIDENCE:
            maps[shown.label], views[shown.label] = {}, []
            left_out.append(shown.label)
        else:
            pictures |= drawn | grid
    for shown, rows in _share(stages, MOST_PICTURES - len(pictures)):
        pictures |= _draw_rows(shown, rows)
    return Pool(make_thumbnails(pictures), maps, views, left_out)


def _share(stages: Sequence[Shown], room: int) -> list[tuple[Shown, list[int]]]:
    """The rows of each stage that are shown. A picture that two stages show counts once."""
    with_rows = [(shown, rank_rows(shown.chosen)) for shown in stages if shown.chosen is not None]
    turned = {shown.label: _list_turned(shown, stages) for shown, _ in with_rows}
    queue = [(s, row) for s, (first, _, _) in with_rows for row in (*first, *turned[s.label])]
    for kind in (1, 2):
        queue += take_turns([[(s, row) for row in ranked[kind]] for s, ranked in with_rows])
    keys: set[str] = set()
    taken: dict[str, list[int]] = {shown.label: [] for shown, _ in with_rows}
    for shown, row in queue:
        key = shown.key(row)
        if key is not None and (key in keys or len(keys) < room):
            keys.add(key)
            taken[shown.label].append(row)
    return [(shown, taken[shown.label]) for shown, _ in with_rows]


def list_steps(stages: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """Each stage with the one that it goes on from."""
    return [
        (before, after)
        for after in stages
        for before in stages
        if before.run is after.run and after.run.origins.get(after.record.name) == before.record.name
    ]


def _list_turned(after: Shown, stages: Sequence[Shown]) -> list[int]:
    pairs = [find_turned(before, later) for before, later in list_steps(stages) if later is after]
    return [int(row) for pair in pairs if pair for rows in pair for row in rows[:IN_GALLERY]]


def _draw_rows(shown: Shown, rows: Sequence[int]) -> dict[str, Drawn]:
    found = shown.predictions
    assert found is not None, "it has rows"
    names = {found.ids[row]: row for row in rows}
    drawn = {}
    for name, image in read_images(shown.album, names).items():
        alt = f"{name}, {shown.names[found.labels[names[name]]]}"
        drawn[str(shown.key(names[name]))] = Drawn(name, image, alt)
    return drawn


def _draw_maps(shown: Shown) -> tuple[dict[str, Drawn], dict[int, str]]:
    """Contribution maps of a stage's pictures, by their keys, and the keys by row of the predictions."""
    evidence, found = shown.record.evidence, shown.predictions
    if evidence is None or found is None or shown.part != "validation":
        return {}, {}
    rows = np.searchsorted(choose_rows(shown.images), evidence.rows).tolist()
    pairs = [(row, map_) for row, map_ in zip(rows, evidence.maps, strict=False) if row < len(found.ids)]
    images = read_images(shown.album, [found.ids[row] for row, _ in pairs])
    drawn: dict[str, Drawn] = {}
    keys: dict[int, str] = {}
    for row, contributions in pairs:
        name = found.ids[row]
        if name in images:
            keys[row] = f"map-{shown.label}-{row}"
            painted = paint(images[name], contributions.astype(np.float32))
            drawn[keys[row]] = Drawn(name, painted, f"what speaks for {say(shown, row)} in {name}")
    return drawn, keys


def _draw_views(shown: Shown) -> tuple[dict[str, Drawn], list[list[str]]]:
    """Training pictures of a stage by their keys, and the keys in rows and columns."""
    evidence = shown.record.evidence
    if evidence is None:
        return {}, []
    drawn: dict[str, Drawn] = {}
    keys: list[list[str]] = []
    for r, images in enumerate(evidence.views):
        keys.append([f"view-{shown.label}-{r}-{c}" for c in range(len(images))])
        names = [f"training picture {r + 1}, {title}" for title in evidence.view_titles]
        drawn |= {key: Drawn(name, image, name) for key, name, image in zip(keys[-1], names, images, strict=True)}
    return drawn, keys
