"""What a report says of its figures: names, numbers, tables, and words for who cannot see them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfcorr.evaluation.report.drawing import Line, Panel
from tfcorr.evaluation.report.measured import Measured
from tfcorr.evaluation.report.measures import Bins, Interval

UNITS = {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}


class Table(NamedTuple):
    """A table's head, and its rows, of which the first cells name what the others are of."""

    head: list[str]
    rows: list[list[str]]


def words_of(line: Line) -> str:
    """Where a line begins and ends."""
    return f"{line.label} {number(line.y[0])}" + (f" to {number(line.y[-1])}" if len(line.y) > 1 else "")


def words_of_rows(kind: str, table: Table) -> str:
    """The first rows of a table in words."""
    words = [", ".join(f"{name} {cell}" for name, cell in zip(table.head, row, strict=True)) for row in table.rows[:12]]
    return f"{kind}. {'; '.join(words)}{'; and more in the table below' if len(table.rows) > 12 else ''}."


def table_of(panels: Sequence[Panel]) -> Table:
    """One row a place of x, one column a line."""
    lines = [(panel, line) for panel in panels for line in panel.lines]
    columns = [dict(zip(line.x, line.y, strict=True)) for _, line in lines]
    places = sorted({x for column in columns for x in column})
    names = panels[0].ticks
    head = [panels[0].x, *(f"{panel.title}, {line.label}" for panel, line in lines)]
    rows = []
    for x in places:
        values = [number(column[x]) if x in column else "" for column in columns]
        rows.append([names[int(x)].replace("\n", ", ") if names else f"{x:,}", *values])
    return Table(head, rows)


def spoken(stage: str) -> str:
    """A stage's or tower's name in a sentence."""
    return stage.replace("_", " ")


def metric_name(name: str) -> str:
    """A metric's name as it is written: ndcg@20 is NDCG@20."""
    kind, _, k = name.partition("@")
    return f"{UNITS[kind]}@{k}"


def number(value: float) -> str:
    """A number as tables have it."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def interval_text(found: Interval) -> str:
    """A mean and its interval, if it has one."""
    return number(found.mean) + ("" if np.isnan(found.low) else f" ({number(found.low)} to {number(found.high)})")


def names_of_bins(bins: Bins) -> list[str]:
    """Each bin's range, and how many values it has."""
    users = np.bincount(bins.of)
    ranges = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in zip(bins.low, bins.high, strict=True)]
    return [f"{name}\nn = {n:,}" for name, n in zip(ranges, users, strict=True)]


def about_breaks(runs: Sequence[Measured]) -> str:
    """What the lines between a training's stages are, if there are any."""
    if not any(run.history.begins for run in runs):
        return ""
    upright = " where the upright lines stand" if len(runs) == 1 else ""
    return f" Epochs are counted through the training's stages; another begins{upright}."


def about_bands(runs: Sequence[Measured]) -> str:
    """What the bands about lines are, if there are any."""
    return " Bands are 95% intervals." if len(runs) == 1 else ""
