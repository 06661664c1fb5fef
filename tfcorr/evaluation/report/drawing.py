"""Three kinds of figures: lines, means with their intervals, and ranks before against ranks after."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from tfcorr.evaluation.style import INK, REFERENCE, SOFT, WIDTH, Look

LEVEL = 0.01  # what moves by less of itself is drawn as level
LABEL = 24  # characters of a name in a figure
NAME_HEIGHT = 0.095  # of a line of text, as a share of an axes' height
NICE = [1, 2, 2.5, 5, 10]  # steps of axes
CELL_NUMBERS = 999  # the largest number that fits into a cell


@dataclass(frozen=True)
class Line:
    """A series through points, with the intervals about them where there are any."""

    label: str
    look: Look
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Axes with lines. `ticks` names the places 0, 1, … where x is a category; `scale` is 'log', 'epochs' or
    'category'.

    `floor` is where y begins, unless it is None; `references` are values of y by name to read the lines by; `breaks`
    are places of x where something changes.
    """

    title: str
    x: str
    y: str
    lines: list[Line]
    scale: str
    ticks: Sequence[str] = ()
    floor: float | None = 0.0
    references: Mapping[str, float] = field(default_factory=dict)
    breaks: Sequence[float] = ()


@dataclass(frozen=True)
class Dot:
    """A mean and its 95% interval, which is NaN where it is not known, in the row of a label."""

    label: str
    look: Look
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Moves:
    """How many of `counts` [after, before] have moved from one bin of ranks to another; `tops` [bins] are the bins'
    last ranks."""

    title: str
    before: str
    after: str
    tops: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def shortened(name: str) -> str:
    """A name that is too long for a figure without its middle."""
    half = (LABEL - 1) // 2
    return name if len(name) <= LABEL else f"{name[:half]}…{name[-half:]}"


def draw_lines(panels: Sequence[Panel]) -> Figure:
    """The panels two by two, or one by one if x has categories, whose names need room; every line is named where it
    ends."""
    figure, places = _grid(len(panels), 2.35, 1 if panels[0].scale == "category" else 2)
    for axes, panel in zip(places, panels, strict=True):
        _draw_panel(axes, panel)
    return figure


def draw_dots(panels: Mapping[str, Sequence[Dot]], from_zero: bool) -> Figure:
    """One row a dot and one column a panel, by the name of its x axis; all panels have the same rows. Zero is marked,
    or the start."""
    rows = next(iter(panels.values()))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(rows)), layout="constrained")
    places = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (name, dots) in zip(places, panels.items(), strict=True):
        for row, dot in enumerate(dots):
            axes.plot([dot.low, dot.high], [row, row], color=dot.look.color, linewidth=1.4)
            axes.plot([dot.mean], [row], color=dot.look.color, marker=dot.look.marker, markersize=5.5)
        axes.set_xlabel(name)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=NICE))
        if from_zero:
            axes.set_xlim(left=0)
        else:
            axes.axvline(0, color=SOFT, linewidth=0.9)
    places[0].set_yticks(range(len(rows)), [dot.label for dot in rows])
    places[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def draw_moves(panels: Sequence[Moves]) -> Figure:
    """Each panel a table of how many ranks moved from where to where, the darker the more; the frames mark where none
    moved far."""
    figure, places = _grid(len(panels), 3.6, 2)
    for axes, panel in zip(places, panels, strict=True):
        largest = max(int(panel.counts.max()), 1)
        unit = "users" if largest <= CELL_NUMBERS else "% of users"
        axes.imshow(np.sqrt(panel.counts / largest), cmap="Greys", vmin=0, vmax=1.25, origin="lower", aspect="auto")
        for after, before in np.argwhere(panel.counts):
            count = int(panel.counts[after, before])
            percent = 100 * count / panel.counts.sum()
            text = str(count) if largest <= CELL_NUMBERS else f"{percent:.1f}" if percent >= 0.05 else "<0.1"
            dark = math.sqrt(count / largest) > 0.75
            axes.text(before, after, text, ha="center", va="center", fontsize=6.5, color="white" if dark else INK)
        for each in range(len(panel.tops)):
            axes.add_patch(Rectangle((each - 0.5, each - 0.5), 1, 1, fill=False, edgecolor=SOFT, linewidth=0.8))
        names = _names_of_bins(panel.tops)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(title=f"{panel.title}, {unit}", xlabel=panel.before, ylabel=panel.after)
        axes.grid(visible=False)
        axes.tick_params(length=0)
    return figure


def _grid(panels: int, height: float, most: int) -> tuple[Figure, list[Axes]]:
    """Axes in at most so many columns; a single column is not as wide as two, lest it be flat."""
    columns = min(panels, most)
    rows = math.ceil(panels / columns)
    size = (WIDTH, height * rows) if columns == 2 else (0.7 * WIDTH, height * rows + 0.4)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    ends = [_draw_line(axes, line, panel.scale, place, len(panel.lines)) for place, line in enumerate(panel.lines)]
    for name, value in panel.references.items():
        axes.axhline(value, color=REFERENCE.color, linestyle=REFERENCE.dashes, linewidth=1)
        ends.append((name, REFERENCE, math.inf, value))
    for each in panel.breaks:
        axes.axvline(each, color=SOFT, linewidth=0.7)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    if panel.scale == "log":
        places = sorted({x for line in panel.lines for x in line.x})
        last = places[-1]
        axes.set_xscale("log")
        axes.set_xticks(places if len(places) <= 7 else [10**power for power in range(len(str(int(last))))])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlim(0.9, last * 1.1)
    elif panel.scale == "category":
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    if high - low < LEVEL * max(
        abs(low), abs(high)
    ):  # as of a retriever that draws by itself, whose loss stays as it is
        middle = (low + high) / 2
        axes.set_ylim(middle - LEVEL * abs(middle), middle + LEVEL * abs(middle))
    if panel.floor is not None:
        axes.set_ylim(bottom=panel.floor)
    _name_ends(axes, ends)


def _draw_line(axes: Axes, line: Line, scale: str, place: int, lines: int) -> tuple[str, Look, float, float]:
    """Draws a line; returns its name, its look, and where it ends."""
    color, dashes, marker = line.look
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if scale == "category":
        x = x + 0.09 * (place - (lines - 1) / 2)  # so that intervals do not hide each other
    many = len(x) > 25
    axes.plot(x, y, color=color, linestyle=dashes, marker=marker, markevery=max(len(x) // 12, 1) if many else None)
    if len(line.low) and scale == "category":
        within = np.stack([y - line.low, line.high - y])
        axes.errorbar(x, y, within, color=color, linestyle="none", elinewidth=1, capsize=2)
    elif len(line.low):
        axes.fill_between(x, line.low, line.high, color=color, alpha=0.13, linewidth=0)
    return line.label, line.look, float(x[-1]), float(y[-1])


def _name_ends(axes: Axes, ends: Sequence[tuple[str, Look, float, float]]) -> None:
    """Writes names to the right of the axes, each as near to its line's end as the others let it, and joined to it."""
    bottom, top = axes.get_ylim()
    wanted = [(y - bottom) / (top - bottom) for *_, y in ends]
    right = axes.get_xlim()[1]
    for (name, look, x, y), place in zip(ends, _spread(wanted, NAME_HEIGHT), strict=True):
        axes.annotate(
            shortened(name),
            xy=(min(x, right), y),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": look.color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3},
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places as near to the wanted ones as can be with `gap` between any two, none above the axes' top if there is
    room."""
    order = np.argsort(wanted, kind="stable")
    places = np.array(wanted, float)
    for before, after in itertools.pairwise(order):
        places[after] = max(places[after], places[before] + gap)
    ceiling = max(1.0, gap * (len(places) - 1))
    for each in order[::-1]:
        places[each] = min(places[each], ceiling)
        ceiling = places[each] - gap
    return [float(each) for each in places]


def _names_of_bins(tops: npt.NDArray[np.int64]) -> list[str]:
    firsts = [1, *(tops[:-1] + 1)]
    return [f"{last:,}" if first == last else f"{first:,}–{last:,}" for first, last in zip(firsts, tops, strict=True)]
