"""A picture of a search: the objective over its trials, and against each setting."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy import stats

from tfcorr.evaluation.style import INK, SOFT, WIDTH, figure_style, png
from tfcorr.search_space import SearchSpace

if TYPE_CHECKING:
    from tfcorr.tuning import Trial

ACROSS = 3  # panels beside each other
ENOUGH = 8  # trials, below which no share or correlation says anything
DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": SOFT}
BEST: dict[str, Any] = {"marker": "*", "linestyle": "none", "color": INK, "markersize": 10}


def draw(trials: Sequence["Trial"], objective: str, spaces: Mapping[str, SearchSpace], path: Path) -> None:
    """Writes a PNG: every trial's objective in their order, with the best so far, then one panel a setting."""
    rows = 1 + math.ceil(len(spaces) / ACROSS)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 2.2 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, ACROSS)
        _over_trials(figure.add_subplot(grid[0, :]), trials, objective)
        for place, (name, space) in enumerate(spaces.items()):
            axes = figure.add_subplot(grid[1 + place // ACROSS, place % ACROSS])
            _against(axes, name, space, [each for each in trials if each.objective is not None and name in each.values])
            axes.set_ylabel(objective if place % ACROSS == 0 else "")
        path.write_bytes(png(figure))


def _over_trials(axes: Axes, trials: Sequence["Trial"], objective: str) -> None:
    values = np.array([math.nan if each.objective is None else each.objective for each in trials])
    numbers, failed = np.arange(len(trials)), np.isnan(values)
    axes.step(numbers, np.fmax.accumulate(values), where="post", color=INK, label="best so far")
    axes.plot(numbers[~failed], values[~failed], **DOT, label="a trial")
    axes.plot(np.nanargmax(values), np.nanmax(values), **BEST, label="the best")
    if failed.any():
        axes.plot(numbers[failed], np.full(failed.sum(), np.nanmin(values)), "x", color=INK, label="failed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{objective}\non validation")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)


def _against(axes: Axes, name: str, space: SearchSpace, trials: Sequence["Trial"]) -> None:
    """One setting: a place for each choice, or an axis for a range; the title says how much it goes with the
    objective."""
    axes.set_xlabel(name)
    objectives = np.array([each.objective for each in trials], dtype=float)
    if space.range is None:
        places = np.array([space.choices.index(json.dumps(each.values[name])) for each in trials], dtype=float)
        for place in np.unique(places):
            axes.plot([place - 0.25, place + 0.25], [objectives[places == place].mean()] * 2, color=INK)
        axes.set_xticks(range(len(space.choices)), [_short(each) for each in space.choices])
        axes.set_xlim(-0.5, len(space.choices) - 0.5)
        said = f"explains {explained(places, objectives):.0%} of the variance" if len(trials) >= ENOUGH else ""
    else:
        kind, (low, high) = space.range
        places = np.array([each.values[name] for each in trials], dtype=float)
        logarithmic = kind.startswith("log")
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        ticks = np.geomspace(float(low), float(high), 3) if logarithmic else np.linspace(low, high, 3)
        axes.set_xticks(ticks, [f"{tick:.2g}" if kind.endswith("float") else f"{tick:.0f}" for tick in ticks])
        margin = (high / low) ** 0.05 if logarithmic else 0.05 * (high - low)
        axes.set_xlim(*((low / margin, high * margin) if logarithmic else (low - margin, high + margin)))
        varied = len(trials) >= ENOUGH and np.ptp(places) > 0 and np.ptp(objectives) > 0
        said = f"rank correlation {stats.spearmanr(places, objectives).statistic:+.2f}" if varied else ""
    axes.plot(places, objectives, **DOT)
    if len(trials):
        axes.plot(places[objectives.argmax()], objectives.max(), **BEST)
        axes.set_title(said, fontweight="normal")


def _short(choice: str) -> str:
    value = json.loads(choice)
    text = (
        str(value.get("name", choice)) if isinstance(value, dict) else str(value) if isinstance(value, str) else choice
    )
    return text if len(text) <= 14 else f"{text[:13]}…"


def explained(groups: npt.NDArray[Any], values: npt.NDArray[np.float64]) -> float:
    """The correlation ratio η²: the variance between the means of groups, over the variance of the values [n]; 0 where
    there is none."""
    if not len(values) or not values.var():
        return 0.0
    between = sum(
        (groups == each).sum() * (values[groups == each].mean() - values.mean()) ** 2 for each in np.unique(groups)
    )
    return float(between / (len(values) * values.var()))
