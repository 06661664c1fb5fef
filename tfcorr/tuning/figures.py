"""A picture of a search: the objective over its trials, and against each setting."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from tfcorr.search_space import SearchSpace

if TYPE_CHECKING:
    from tfcorr.tuning import Trial

ACROSS = 3  # panels beside each other


def draw(trials: Sequence["Trial"], objective: str, spaces: Mapping[str, SearchSpace], path: Path) -> None:
    """Writes a PNG: every trial's objective in their order, with the best so far, then one panel a setting."""
    rows = 1 + math.ceil(len(spaces) / ACROSS)
    figure = Figure(figsize=(9, 3 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, ACROSS)
    _over_trials(figure.add_subplot(grid[0, :]), trials, objective)
    for place, (name, space) in enumerate(spaces.items()):
        axes = figure.add_subplot(grid[1 + place // ACROSS, place % ACROSS])
        _against(axes, name, space, [each for each in trials if each.objective is not None and name in each.values])
        axes.set_ylabel(objective if place % ACROSS == 0 else "")
    figure.savefig(path, format="png", dpi=150)


def _over_trials(axes: Axes, trials: Sequence["Trial"], objective: str) -> None:
    values = np.array([math.nan if each.objective is None else each.objective for each in trials])
    numbers = np.arange(len(trials))
    failed = np.isnan(values)
    best = np.fmax.accumulate(values)
    axes.step(numbers, best, where="post", color="0.2", linewidth=1.2, label="best so far")
    axes.plot(numbers[~failed], values[~failed], "o", color="0.45", markersize=5, label="a trial")
    if failed.any():
        axes.plot(numbers[failed], np.full(failed.sum(), np.nanmin(values)), "x", color="0.0", label="failed")
    axes.set(xlabel="trial", ylabel=f"{objective}, validation")
    axes.legend(frameon=False, loc="lower right")


def _against(axes: Axes, name: str, space: SearchSpace, trials: Sequence["Trial"]) -> None:
    """One setting: a place for each choice, or an axis for a range; the title says how much it explains."""
    objectives = np.array([each.objective for each in trials], dtype=float)
    values: list[Any] = [each.values[name] for each in trials]
    if space.range is not None:
        axes.plot(values, objectives, "o", color="0.45", markersize=5)
        if space.range[0].startswith("log"):
            axes.set_xscale("log")
        spread = len(set(values)) > 1 and len(set(objectives.tolist())) > 1
        said = f"rank correlation {stats.spearmanr(values, objectives).statistic:+.2f}" if spread else ""
    else:
        places = np.array([space.choices.index(json.dumps(value)) for value in values], dtype=int)
        axes.plot(places, objectives, "o", color="0.45", markersize=5)
        for place in np.unique(places):
            axes.plot([place - 0.25, place + 0.25], [objectives[places == place].mean()] * 2, color="0.0", linewidth=1.5)
        axes.set_xticks(range(len(space.choices)), [each if len(each) <= 14 else f"{each[:13]}…" for each in space.choices])
        axes.set_xlim(-0.5, len(space.choices) - 0.5)
        said = f"choices explain {_explained(places, objectives):.0%} of the variance" if len(trials) > 1 else ""
    axes.set_xlabel(name)
    axes.set_title(said, fontsize="small")


def _explained(groups: np.ndarray[Any, np.dtype[np.int_]], values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The correlation ratio η²: the variance between the groups' means over all of it."""
    if not values.var():
        return 0.0
    between = sum((groups == each).sum() * (values[groups == each].mean() - values.mean()) ** 2 for each in np.unique(groups))
    return float(between / (len(values) * values.var()))
