"""A study's figure: NDCG@20 of every system, or over an axis where the study has one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfcorr.evaluation.style import INK, LOOKS, SOFT, WIDTH, figure_style, png
from tfcorr.study.records import TOP
from tfcorr.study.settings import Study

if TYPE_CHECKING:
    from tfcorr.study.tables import Row

METRIC = f"ndcg@{TOP}"


def draw(study: Study, rows: Mapping[str, Sequence["Row"]], path: Path) -> None:
    """Writes a PNG with a panel for each data set of which something is done."""
    panels = {dataset: [row for row in each if row.records] for dataset, each in rows.items()}
    panels = {dataset: each for dataset, each in panels.items() if each}
    over = study.settings.x
    height = 2.8 if over else max(0.9 + 0.24 * len(each) for each in panels.values())
    with figure_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        for place, (dataset, each) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), place)
            axes.set_title(dataset)
            if over:
                _lines(axes, study, each, over)
            else:
                _dots(axes, each)
        path.write_bytes(png(figure))


def _dots(axes: Axes, rows: Sequence["Row"]) -> None:
    """A line of dots for each system, one a seed, and their mean."""
    for place, row in enumerate(rows):
        values = row.values(METRIC)
        axes.plot(values, [place] * len(values), "o", color=SOFT, markersize=3.5, alpha=0.7)
        axes.plot(np.mean(values), place, "|", color=INK, markersize=12, markeredgewidth=1.8)
    axes.set_yticks(range(len(rows)), [row.system for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"NDCG@{TOP} on test: seeds, and their mean")


def _lines(axes: Axes, study: Study, rows: Sequence["Row"], over: str) -> None:
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
        axes.errorbar(at, means, spread, color=look.color, linestyle=look.dashes, marker=look.marker, capsize=2, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(over)
    axes.set_ylabel(f"NDCG@{TOP} on test")
    if len(lines) > 1:
        axes.legend()
