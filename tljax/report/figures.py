"""The figures of a run: samples, predictions, curves. With several processes, only the leader writes them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from tljax.data.batches import draw_order
from tljax.data.datasets import Split
from tljax.data.layouts import join_names
from tljax.devices.processes import leads
from tljax.report.fonts import choose_backend, find_letters
from tljax.text import printable
from tljax.trees import Row

# As many as the Keras lesson shows.
SAMPLES, COLUMNS = 25, 5


def draw_samples(
    folder: Path,
    seed: int,
    split: Split,
    class_names: Sequence[str],
    predicted: Int[np.ndarray, " n"],
    guesses: Sequence[str],
) -> None:
    """Writes `samples.png` and `predictions.png` into `folder`: two grids of the same images, up to `SAMPLES`.

    In the first, the title is the label. In the second, it is the guess above the label, green if the prediction is
    right, else red. `predicted` (labels) and `guesses` (texts) have an entry for every example of the split, also for
    those that other processes read.
    """
    if not len(split.labels):
        return
    with _going_on(folder):
        chosen = draw_order(len(split.labels), 1, seed=seed, epoch=0)[:SAMPLES, 0]
        images, rows = split.images[chosen], split.rows[chosen]
        labels, said = [class_names[i] for i in split.labels[chosen]], [guesses[row] for row in rows]
        letters = find_letters([*labels, *said])
        if letters.lacking:
            names = (name for name in dict.fromkeys([*labels, *said]) if letters.lacking & set(name))
            print(printable(f"no font here has the letters of {join_names(names)}: {folder} has them in Latin letters"))
        labels = list(map(letters.write, labels))
        _draw_grid(folder / "samples.png", images, labels, ["black"] * len(labels), letters.families)
        titles = [f"{letters.write(guess)}\n({label})" for guess, label in zip(said, labels, strict=True)]
        colors = np.where(predicted[rows] == split.labels[chosen], "tab:green", "tab:red")
        _draw_grid(folder / "predictions.png", images, titles, colors.tolist(), letters.families)


def _draw_grid(
    path: Path, images: np.ndarray, titles: Sequence[str], colors: Sequence[str], fonts: Sequence[str]
) -> None:
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    # As fractions of a picture's side: the room for two lines of text above it, and the margin around it.
    title, margin = 0.22, 0.05
    figure = _figure_class()(figsize=(2.1 * columns, 2.1 * (1 + title) * rows))
    # All pictures share one Axes: with one Axes each, most of the time goes into ticks that nobody sees.
    axes = figure.add_axes((0, 0, 1, 1))
    for i, (image, text, color) in enumerate(zip(images, titles, colors, strict=True)):
        left, top = i % columns, i // columns * (1 + title) + title
        extent = (left + margin, left + 1 - margin, top + 1 - 2 * margin, top)
        axes.imshow(image, extent=extent)
        position = left + 0.5, top - 0.01
        # Names are text, not formulas: `$` is a dollar.
        look = {"fontsize": 9, "fontfamily": fonts, "color": color, "parse_math": False}
        axes.text(*position, text, ha="center", va="bottom", **look)
    axes.set(xlim=(0, columns), ylim=(rows * (1 + title), 0), aspect="auto")
    axes.set_axis_off()
    _save(figure, path)


def draw_curves(path: Path, runs: Mapping[str, Sequence[Row]]) -> None:
    """Draws loss and accuracy of each run over the epochs, training dashed and validation solid, into the file `path`;
    beside them the learning rate, if it changes within a stage.

    `runs` has the metrics of each run by its name. A run may have several stages, such as a fine_tune that continued a
    feature_extraction: it is one line, and a dotted vertical line marks where the stage changes.
    """
    with _going_on(path):
        changes = any(_rate_changes(rows) for rows in runs.values())
        columns = 3 if changes else 2
        figure = _figure_class()(figsize=(5 * columns, 4), layout="constrained")
        for column, metric in enumerate(("loss", "accuracy")):
            _draw_metric(figure.add_subplot(1, columns, column + 1), metric, runs)
        if changes:
            _draw_rates(figure.add_subplot(1, columns, columns), runs)
        _save(figure, path)


def _trained(rows: Sequence[Row]) -> list[Row]:
    """The rows with a learning rate: a solved head has none."""
    return [row for row in rows if row.get("learning_rate") is not None]


def _rate_changes(rows: Sequence[Row]) -> bool:
    steps = pairwise(_trained(rows))
    return any(_is_same_stage(a, b) and a["learning_rate"] != b["learning_rate"] for a, b in steps)


def _is_same_stage(a: Row, b: Row) -> bool:
    """Whether two epochs are of one stage, as far as they tell: those of older versions do not say what was frozen."""
    return (a["stage"], a.get("cut")) == (b["stage"], b.get("cut"))


def _draw_rates(axes: Any, runs: Mapping[str, Sequence[Row]]) -> None:
    for i, (name, rows) in enumerate(runs.items()):
        trained = _trained(rows)
        rates = [row["learning_rate"] for row in trained]
        axes.plot([row["epoch"] for row in trained], rates, ".-", color=f"C{i}", label=name)
    axes.set(xlabel="epoch", ylabel="learning rate of the last step")
    _finish_axes(axes)


def _draw_metric(axes: Any, metric: str, runs: Mapping[str, Sequence[Row]]) -> None:
    for i, (name, rows) in enumerate(runs.items()):
        epochs = [row["epoch"] for row in rows]
        for key, style, split in ((metric, "x--", "train"), (f"val_{metric}", ".-", "validation")):
            values = [np.nan if row[key] is None else row[key] for row in rows]
            axes.plot(epochs, values, style, color=f"C{i}", label=f"{name}, {split}")
        for before, after in pairwise(rows):
            if not _is_same_stage(before, after):
                axes.axvline(before["epoch"] + 0.5, color="gray", linestyle=":")
                axes.annotate(
                    f" {after['stage']}", (before["epoch"] + 0.5, 0.98), xycoords=("data", "axes fraction"),
                    va="top", fontsize=8, color="gray",
                )  # fmt: skip
    axes.set(xlabel="epoch", ylabel=metric)
    _finish_axes(axes)


def _finish_axes(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _figure_class() -> Any:
    # The class, not pyplot, which has global state and may need a window system. The import waits until a figure is
    # drawn.
    choose_backend()
    from matplotlib.figure import Figure

    return Figure


@contextmanager
def _going_on(path: Path) -> Iterator[None]:
    """A block that draws. If it fails, it says so in one line, and the run goes on: a figure is not worth a run."""
    try:
        with warnings.catch_warnings():
            # A font that lacks the letters of a stage's name draws boxes.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"{path} is not drawn ({reason}); the run goes on without it")


def _save(figure: Any, path: Path) -> None:
    if not leads():
        return
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"unfinished_{path.name}")
    figure.savefig(unfinished, dpi=110, backend="agg")
    unfinished.replace(path)
