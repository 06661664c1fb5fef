"""Figures of runs of which little is known."""

from pathlib import Path

import numpy as np
import pytest

from tfcorr.evaluation.metrics import MISSED
from tfcorr.evaluation.report.charts import charts
from tfcorr.evaluation.report.drawing import Line, Panel, draw_lines
from tfcorr.evaluation.report.history import Curve, History
from tfcorr.evaluation.report.measured import Measured
from tfcorr.evaluation.style import LOOKS, figure_style, png


def measured(name, users, ranks):
    """A run with one epoch, of a single tower, whose items are all equally popular; nothing is recommended to the last
    user."""
    lists = np.tile(np.array([[1, 2, 0, 0, 0]], np.int32), (users, 1))
    lists[-1] = 0
    return Measured(
        label=name,
        folder=Path(name),
        settings={},
        history=History({"loss": {"ranker": Curve(np.array([1]), np.array([2.5]))}}, []),
        ranks={stage: np.resize(ranks, users).astype(np.int32) for stage in ("retriever", "cascade")},
        handed_on={"retriever": 25},
        index="exact",
        lengths=np.full(users, 4),
        targets=np.ones(users, np.int32),
        lists={"retriever": lists, "cascade": lists},
        counts=np.array([3, 3, 3]),
    )


@pytest.mark.parametrize("ranks", [[1, 7, MISSED], [MISSED]])
@pytest.mark.parametrize(("runs", "users"), [(1, 1), (1, 3), (2, 2)])
def test_no_axes_are_empty_however_little_is_known(runs, users, ranks):
    names = [f"$_{number} 五" for number in range(runs)]
    with figure_style():
        drawn = charts([measured(name, users, ranks) for name in names], [], 5)
        for chart in drawn:
            for axes in chart.figure.axes:
                assert axes.lines or axes.images, chart.name
                assert axes.get_xlabel(), chart.name
            assert chart.table.rows, chart.name
    assert {"validation", "negatives"}.isdisjoint(chart.name for chart in drawn)
    popularity = next(chart for chart in drawn if chart.name == "popularity")
    assert [row[0] for row in popularity.table.rows] == [f"3, n = {users}"]


def test_matplotlibs_settings_are_as_before():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with figure_style():
        drawn = charts([measured("run", 2, [1])], [], 5)
        assert png(drawn[0].figure).startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


def test_a_line_that_stays_as_it_is_is_drawn_as_level():
    line = Line("run", LOOKS[0], [1, 2, 3], [3.0445216, 3.0445218, 3.0445217])
    low, high = draw_lines([Panel("loss", "epoch", "nats", [line], "epochs", floor=None)]).axes[0].get_ylim()
    assert high - low == pytest.approx(0.02 * 3.0445217)
    assert low < 3.04 < high
