"""The figures of a run: samples, predictions, curves. With several processes, only the leader writes them."""

import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tljax.data.batches import draw_order
from tljax.data.datasets import Split
from tljax.data.layouts import join_names
from tljax.devices.processes import leads
from tljax.report.axes import Axis, is_off, name_hidden
from tljax.report.curves import (
    LIMITS,
    Course,
    Line,
    changes_rate,
    find_axis,
    keep_trained,
    list_changes,
    list_lines,
    rates,
)
from tljax.report.depth import UnitResult
from tljax.report.fonts import Letters, choose_backend, find_letters
from tljax.report.more_labels import Tuned
from tljax.report.worst import (
    SAMPLES,
    Caption,
    Fits,
    Guesses,
    Seen,
    choose_color,
    choose_worst,
    explain,
    shorten,
    write_captions,
)
from tljax.text import printable
from tljax.training.learning_curve import LearningCurve, Point

# The names of the files.
PREDICTED, DRAWN, CURVES = "predictions.png", "samples.png", "curves.png"
# Those of a study.
PLACED, GROWN = "places.png", "growth.png"
COLUMNS = 5
# The side of a picture in inches; as fractions of it, the room for two lines of text above it, and the margin around
# it.
INCHES, TITLE, AROUND = 2.1, 0.22, 0.05
# A line of text, in points, and how much of it is about as wide as a picture.
FONT_SIZE, LINE_HEIGHT, LETTERS = 9, 12.5, 27


def draw_samples(folder: Path, seed: int, split: Split, class_names: Sequence[str]) -> None:
    """Writes `samples.png` into `folder`: up to `SAMPLES` images of the split, drawn at random, with their labels."""
    if not len(split.labels):
        return
    path = folder / DRAWN
    with _going_on(path):
        chosen = draw_order(len(split.labels), 1, seed=seed, epoch=0)[:SAMPLES, 0]
        labels = [class_names[i] for i in split.labels[chosen]]
        letters = _find_letters(path, labels)
        fits = _measure(letters.families)
        titles = [shorten(letters.write(label), fits) for label in labels]
        _draw_grid(path, split.images[chosen], titles, ["black"] * len(titles), letters.families)


def draw_predictions(folder: Path, split: Split, kind: str, class_names: Sequence[str], guesses: Guesses) -> None:
    """Writes `predictions.png` into `folder`: the images of the split that `choose_worst` chooses, with the guess, its
    probability and the label above each, green if the prediction is right, else red.

    `guesses` are of the whole split, also of what other processes read; `kind` is what a reader knows the split by.
    """
    if not len(split.labels):
        return
    path = folder / PREDICTED
    with _going_on(path):
        predicted, probabilities = guesses.predicted[split.rows], guesses.probabilities[split.rows]
        chosen = choose_worst(predicted == split.labels, probabilities)
        names = [(guesses.names[split.rows[i]], class_names[split.labels[i]]) for i in chosen]
        letters = _find_letters(path, chain.from_iterable(names))
        captions = [
            Caption(letters.write(guess), probability, letters.write(label))
            for (guess, label), probability in zip(names, probabilities[chosen], strict=True)
        ]
        titles = write_captions(captions, _measure(letters.families))
        colors = list(map(choose_color, predicted[chosen], split.labels[chosen]))
        legend = explain(predicted, split.labels, Seen(split.count, kind))
        _draw_grid(path, split.images[chosen], titles, colors, letters.families, legend)


def _find_letters(path: Path, names: Iterable[str]) -> Letters:
    """The fonts for `names`. A printed line says which of these have no font here, and are in Latin letters in the file
    `path`."""
    different = list(dict.fromkeys(names))
    letters = find_letters(different)
    if letters.lacking:
        lacking = (name for name in different if letters.lacking & set(name))
        print(printable(f"no font here has the letters of {join_names(lacking)}: {path} has them in Latin letters"))
    return letters


def _look(fonts: Sequence[str]) -> dict[str, Any]:
    # Names are text, not formulas: `$` is a dollar.
    return {"fontsize": FONT_SIZE, "fontfamily": fonts, "parse_math": False}


def _measure(fonts: Sequence[str]) -> Fits:
    """Whether a text is not wider than a picture."""
    figure_class = _figure_class()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_class()
    renderer, widest = FigureCanvasAgg(figure).get_renderer(), (1 - AROUND) * INCHES * figure.dpi
    text = figure.text(0, 0, "", **_look(fonts))

    def fits(words: str) -> bool:
        text.set_text(words)
        return bool(text.get_window_extent(renderer).width <= widest)

    return fits


def _draw_grid(
    path: Path,
    images: np.ndarray,
    titles: Sequence[str],
    colors: Sequence[str],
    fonts: Sequence[str],
    legend: Sequence[str] = (),
) -> None:
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    lines = [part for line in legend for part in textwrap.wrap(line, LETTERS * columns)]
    # In sides of a picture.
    above = (len(lines) + 1) * LINE_HEIGHT / 72 / INCHES if lines else 0.0
    height = above + rows * (1 + TITLE)
    figure = _figure_class()(figsize=(INCHES * columns, INCHES * height))
    # All pictures share one Axes: with one Axes each, most of the time goes into ticks that nobody sees.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.text(AROUND, AROUND, "\n".join(lines), va="top", linespacing=1.2, **_look(fonts))
    for i, (image, text, color) in enumerate(zip(images, titles, colors, strict=True)):
        left, top = i % columns, above + i // columns * (1 + TITLE) + TITLE
        extent = (left + AROUND, left + 1 - AROUND, top + 1 - 2 * AROUND, top)
        axes.imshow(image, extent=extent)
        position = left + 0.5, top - 0.01
        axes.text(*position, text, ha="center", va="bottom", color=color, **_look(fonts))
    axes.set(xlim=(0, columns), ylim=(height, 0), aspect="auto")
    axes.set_axis_off()
    _save(figure, path)


def draw_curves(path: Path, courses: Mapping[str, Course]) -> None:
    """Draws loss and accuracy of each run over the epochs, training dashed and validation solid, into the file `path`;
    beside them the learning rate, if it changes within a stage.

    `courses` has the epochs of each run by its name. A run may have several stages, such as a fine_tune that continued
    a feature_extraction: it is one line, and a dotted vertical line marks where the stage changes. Without any epoch
    there is no file.
    """
    trained = keep_trained(courses)
    if not trained:
        _remove(path)
        return
    with _going_on(path):
        changes = any(map(changes_rate, trained.values()))
        columns = 3 if changes else 2
        figure = _figure_class()(figsize=(5 * columns, 4), layout="constrained")
        for column, metric in enumerate(LIMITS):
            drawn = _draw_metric(figure.add_subplot(1, columns, column + 1), metric, trained)
        if changes:
            _draw_rates(figure.add_subplot(1, columns, columns), trained)
        # A column for each run, as far as there is room.
        names = [artist.get_label() for artist in drawn]
        figure.legend(drawn, names, loc="outside lower center", ncols=min(len(trained), 4), fontsize=8)
        _save(figure, path)


def _draw_rates(axes: Any, courses: Mapping[str, Course]) -> None:
    for i, (name, course) in enumerate(courses.items()):
        axes.plot(*zip(*rates(course), strict=True), ".-", color=f"C{2 * i}", label=name)
    axes.set(xlabel="epoch", ylabel="learning rate of the last step")
    _finish_axes(axes)
    axes.legend(axes.lines, list(courses), fontsize=8)


def _draw_metric(axes: Any, metric: str, courses: Mapping[str, Course]) -> list[Any]:
    """Draws the lines of a metric, and returns what a legend has."""
    lines = list_lines(courses, metric)
    axis = find_axis(lines, metric)
    drawn = [artist for line in lines for artist in _draw_line(axes, line, axis)]
    for epoch, stage in list_changes(courses):
        axes.axvline(epoch, color="gray", linestyle=":")
        # It may stand on a curve.
        look = {"va": "top", "fontsize": 8, "color": "dimgray", "bbox": {"color": "white", "alpha": 0.7, "pad": 1}}
        axes.annotate(f" {stage}", (epoch, 0.97), xycoords=("data", "axes fraction"), **look)
    hidden = name_hidden(axis, [(line.name, line.points) for line in lines])
    axes.set_title("\n".join(part for line in hidden for part in textwrap.wrap(line, 80)), fontsize=7, loc="left")
    axes.set(xlabel="epoch", ylabel=axis.label(metric), yscale="log" if axis.log else "linear", ylim=axis[:2])
    _finish_axes(axes)
    return drawn


def _draw_line(axes: Any, line: Line, axis: Axis) -> list[Any]:
    color, style = f"C{line.color}", {"linestyle": "--", "marker": "x"} if line.train else {"marker": "."}
    epochs, values = zip(*((epoch, np.nan if value is None else value) for epoch, value in line.points), strict=True)
    drawn = axes.plot(epochs, values, **style, color=color, label=line.name)
    for epoch, value in zip(epochs, values, strict=True):
        if is_off(axis, value):
            edge, marker = (axis.low, "v") if value < axis.low else (axis.high, "^")
            axes.plot(epoch, edge, marker, color=color, clip_on=False, zorder=3)
    if line.best is not None:
        look = {"markersize": 10, "fillstyle": "none", "linestyle": "none", "color": color}
        best = [value if epoch == line.best else np.nan for epoch, value in zip(epochs, values, strict=True)]
        drawn += axes.plot(epochs, best, marker="o", label=f"best: epoch {line.best}", **look)
    return drawn


def _finish_axes(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def draw_growth(path: Path, curve: LearningCurve, tuned: Tuned | None = None) -> None:
    """Draws accuracy against labels a class into the file `path`: what was measured and, where there is a curve, that
    with its band, carried on to twice as many; and that of a fine-tuning, with its intervals."""
    with _going_on(path):
        figure = _figure_class()(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        _draw_points(axes, curve.measured, fmt="o", color="C1", label="solved head, measured: mean and 95% of draws")
        if tuned:
            _draw_points(axes, tuned.points, fmt="s", color="C2", label=f"{tuned.name}: one network each, 95%")
        if curve.fitted:
            places, fitted, low, high = np.array(curve.fitted).T
            axes.fill_between(places, low, high, color="C0", alpha=0.2, label="about 95% of heads")
            axes.plot(places, fitted, color="C0", label="fitted, up to twice as many")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="labels a class", ylabel="validation accuracy")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        _save(figure, path)


def _draw_points(axes: Any, points: Sequence[Point], **look: str) -> None:
    labels, accuracies, lows, highs = np.array(points).T
    axes.errorbar(labels, accuracies, [accuracies - lows, highs - accuracies], capsize=2, **look)


def draw_places(path: Path, places: Sequence[UnitResult]) -> None:
    """Draws the accuracy of a head at each unit with its interval into the file `path`, and the price on a second
    axis."""
    with _going_on(path):
        figure = _figure_class()(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        units, (accuracies, lows, highs, seconds) = range(len(places)), np.array([place[1:] for place in places]).T
        prices = axes.twinx()
        prices.plot(units, seconds, ".:", color="C1")
        prices.set_ylabel("seconds (dotted)", color="C1")
        prices.set_ylim(bottom=0)
        axes.errorbar(units, accuracies, [accuracies - lows, highs - accuracies], fmt=".-", color="C0", capsize=2)
        axes.set_ylabel("validation accuracy, 95%", color="C0")
        axes.set_xticks(units, [place.unit for place in places], rotation=45, ha="right", fontsize=8)
        axes.grid(alpha=0.3)
        _save(figure, path)


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


def _remove(path: Path) -> None:
    """What an earlier version drew there is not of this run's epochs."""
    if leads():
        path.unlink(missing_ok=True)
