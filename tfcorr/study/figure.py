"""A study's figure: NDCG@20 of every system, or over an axis where the study has one."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from tfcorr.evaluation.style import INK, LOOKS, SOFT, WIDTH, figure_style, png
from tfcorr.study.records import TOP
from tfcorr.study.settings import Study

if TYPE_CHECKING:
    from tfcorr.study.tables import Row

METRIC = f"ndcg@{TOP}"
ACROSS = 3  # panels beside each other
WORDS = 26  # characters of a name in a line


def draw(study: Study, rows: Mapping[str, Sequence["Row"]], path: Path) -> None:
    """Writes a PNG with a panel for each data set of which something is done."""
    panels = {dataset: [row for row in each if row.records] for dataset, each in rows.items()}
    panels = {dataset: each for dataset, each in panels.items() if each}
    down, across = -(-len(panels) // ACROSS), min(len(panels), ACROSS)
    names = [
        name for name in study.settings.systems if any(row.system == name for each in panels.values() for row in each)
    ]
    labels = [textwrap.fill(name, WORDS) for name in names]
    height = 2.6 if study.settings.x else 0.5 + 0.17 * sum(1.3 + label.count("\n") for label in labels)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.3 + down * height), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=not study.settings.x)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (dataset, each) in zip(grid.flat, panels.items(), strict=False):
            axes.set_title(textwrap.fill(dataset, WORDS))
            if study.settings.x:
                _lines(axes, study, each)
            else:
                _dots(axes, each, names)
        if study.settings.x:
            figure.supxlabel(study.settings.x, fontsize="medium")
            figure.supylabel(f"NDCG@{TOP} on test", fontsize="medium")
        else:
            grid[0, 0].set_yticks(range(len(names)), labels)
            grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
            figure.supxlabel(f"NDCG@{TOP} on test: a dot each seed, a bar their mean", fontsize="medium")
        path.write_bytes(png(figure))


def _dots(axes: Axes, rows: Sequence["Row"], names: Sequence[str]) -> None:
    """A line of dots for each system, one a seed, and their mean."""
    for row in rows:
        values, place = row.values(METRIC), names.index(row.system)
        axes.plot(values, [place] * len(values), "o", color=SOFT, markersize=3.5, alpha=0.7)
        axes.plot(np.mean(values), place, "|", color=INK, markersize=11, markeredgewidth=1.8)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.08)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


def _lines(axes: Axes, study: Study, rows: Sequence["Row"]) -> None:
    """A line over the axis for each name that systems have in common, with one standard deviation of the seeds."""
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for row in rows:
        system = study.settings.systems[row.system]
        if system.x is not None:
            lines.setdefault(system.line or "", []).append((system.x, row.values(METRIC)))
    for look, (name, points) in zip(LOOKS, lines.items(), strict=False):
        at, values = zip(*sorted(points), strict=True)
        spread = [np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in values]
        means = [np.mean(each) for each in values]
        axes.errorbar(
            at, means, spread, color=look.color, linestyle=look.dashes, marker=look.marker, capsize=2, label=name
        )
    places = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [f"{place:g}" for place in places], rotation=45 if len(places) > 6 else 0)
    if any(lines):
        axes.legend()
