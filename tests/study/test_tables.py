"""The tables say what the records hold: each figure is computed here once more, in plain NumPy."""

import json
import re
from html import unescape

import numpy as np
import polars as pl
import pytest
from markdown import markdown
from rich.console import Console
from scipy import stats

from tests.study.conftest import result_of
from tfcorr.evaluation.metrics import MISSED
from tfcorr.study import RECORDS, figure, run_study
from tfcorr.study.records import Records, packed, unpacked
from tfcorr.study.settings import load_study
from tfcorr.study.tables import write_tables


@pytest.fixture
def table(path, trainer):
    return run_study(path, (), 1, path.parent / "runs", Console(quiet=True))


def rows_of(table):
    """The Markdown table's cells by system."""
    lines = [line.strip("| ").split(" | ") for line in table.read_text().splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in (line for line in lines)}


def of_seed(seed, method, stage):
    """NDCG@20 by user, as the stand-in for the training draws the ranks."""
    training = {"method": method, "retriever": {"learning_rate": 0.01}}
    ranks = np.array(
        result_of({"seed": seed, "training": training, "retriever": {"name": "sasrec"}}, True, "")["ranks"][stage]
    )
    return np.array([1 / np.log2(1 + rank) if rank <= 20 else 0 for rank in ranks])


def test_means_and_deviations_are_of_the_seeds(table):
    cells = rows_of(table)
    for system, method, stage in (
        ("all items", "two-stage", "ranker_alone"),
        ("together", "corr", "cascade"),
        ("mf", "two-stage", "retriever"),
    ):
        seeds = [of_seed(seed, method, stage).mean() for seed in (1, 2)]
        spread = abs(seeds[0] - seeds[1]) / np.sqrt(2)
        assert cells[system][0] == f"{sum(seeds) / 2:.4f} ± {spread:.4f}"


def paired_t(values):
    """Half the width of the 95% interval, and p, of the mean of differences."""
    error, freedom = values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1
    return stats.t.ppf(0.975, freedom) * error, 2 * stats.t.sf(abs(values.mean() / error), freedom)


def test_a_change_is_tested_over_users_and_over_seeds(table):
    together, apart = (
        np.array([of_seed(seed, method, "cascade") for seed in (1, 2)]) for method in ("corr", "two-stage")
    )
    difference, percent = together - apart, 100 / apart.mean()
    reach, over_users = paired_t(difference.mean(axis=0))
    change, reach = percent * np.array([difference.mean(), reach])
    first, second = 100 * difference.mean(axis=1) / apart.mean(axis=1)
    expected = [
        f"{change:+.1f}% ({change - reach:+.1f} to {change + reach:+.1f})",
        f"{over_users:.2g}",
        f"{first:+.1f}%, {second:+.1f}%",
        f"{paired_t(difference.mean(axis=1))[1]:.2g}",
        "first",
    ]
    assert rows_of(table)["together"][6:] == expected


def test_below_a_table_stands_what_it_was_measured_on_and_how(table):
    text = table.read_text()
    assert "- Data: 50 users, 40 items, 697 interactions" in text
    assert "- Chosen of 2 settings by NDCG@20 on validation with seed 1" in text
    assert "cascade's: fast for mf, all items, apart, together." in text
    assert (
        "- 0.1 CPU hours for 9 trainings, on a machine; tfcorr 0.1, TensorFlow 2." in text
    )  # 3 of 36 s, 6 of 72 s: 0.15, rounded to even
    assert re.search(r"- Command: `tfcorr study .*small.yaml --set datasets.walks.data.path=FILE`", text)
    assert "of seeds 1, 2. The change" in text
    assert "over the seeds that both rows have. By seed" in text
    assert (table.parent / "small.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_done_is_left_empty_and_said(path, trainer, table):
    records = path.parent / "tables" / RECORDS
    rows = [row for row in json.loads(records.read_text()) if row["settings"]["seed"] == 1]
    apart = [row for row in rows if row["settings"].get("training.method") == "two-stage"]
    slow = [row for row in rows if row not in apart and "training.retriever.learning_rate" not in row["settings"]]
    records.write_text(json.dumps(apart + slow))
    write_tables(load_study(path), Records(records), path.parent / "tables", ["small.yaml"])
    cells = rows_of(table)
    assert cells["together"][:5] == [""] * 5  # its search is not over
    assert re.fullmatch(r"0\.\d{4}", cells["apart"][0])
    assert re.fullmatch(r"[+-]\d+\.\d%", cells["all items"][8])
    assert "".join(cells["all items"][9:]).strip() == ""  # of one seed there is no test over seeds
    assert "of seeds 1, 2; only 1 seed of: mf; all items; apart. The change" in table.read_text()


def test_no_place_of_data_stands_in_the_command_below_a_table(path, trainer):
    path.write_text(path.read_text().replace("walks", "my walks"))
    text = run_study(
        path, ["datasets.my walks.data.path=clicks.csv", "seeds=[1]"], 1, path.parent / "runs", Console(quiet=True)
    ).read_text()
    assert re.search(
        r"- Command: `tfcorr study \S+small.yaml --set 'seeds=\[1\]' --set 'datasets.my walks.data.path=FILE'`", text
    )


def test_where_the_other_found_nothing_there_is_no_percentage_of_it(path, trainer, table):
    records = path.parent / "tables" / RECORDS
    rows = json.loads(records.read_text())
    for seeds, expected in (([1], r"of none, [+-]\d+\.\d%"), ([1, 2], "")):
        for row in rows:
            if row["settings"]["seed"] in seeds and row["settings"].get("training.method") == "two-stage":
                row["ranks"]["cascade"] = packed(np.full(50, MISSED, np.int32))
        records.write_text(json.dumps(rows))
        write_tables(load_study(path), Records(records), path.parent / "tables", ["small.yaml"])
        assert re.fullmatch(expected, rows_of(table)["together"][8])


def test_a_training_that_failed_is_named_and_not_chosen(path, trainer):
    run_study(path, ["seeds=[1]"], 1, path.parent / "runs", Console(quiet=True))
    records = path.parent / "tables" / RECORDS
    rows = json.loads(records.read_text())
    for row in rows:
        if "training.retriever.learning_rate" in row["settings"]:
            row |= {"failed": "joint, epoch 1: loss became NaN or infinite", "validation": {}, "test": {}, "ranks": {}}
    records.write_text(json.dumps(rows))
    table = run_study(path, ["seeds=[1]"], 1, path.parent / "runs", Console(quiet=True))
    text = table.read_text()
    assert "cascade's: slow for mf, all items, apart, together." in text
    assert "- Failed: mf, fast, seed 1: joint, epoch 1: loss became NaN or infinite" in text


def test_a_figure_over_an_axis_is_drawn_of_systems_that_have_a_place_on_it(path, trainer, monkeypatch):
    drawn, png = [], figure.png
    monkeypatch.setattr(figure, "png", lambda each: drawn.append(each) or png(each))
    overrides = ["x=the axis", "systems.apart.x=1", "systems.together.x=10", "systems.together.line=another"]
    table = run_study(path, overrides, 1, path.parent / "runs", Console(quiet=True))
    assert (table.parent / "small.png").stat().st_size > 5000
    points = dict(
        point for line in drawn[-1].axes[0].containers for point in zip(*line.lines[0].get_data(), strict=True)
    )
    means = {
        x: np.mean([of_seed(seed, method, "cascade") for seed in (1, 2)])
        for x, method in ((1, "two-stage"), (10, "corr"))
    }
    assert points == pytest.approx(means)


def test_ranks_are_kept_as_far_as_the_metrics_read_them():
    ranks = np.random.default_rng(0).integers(1, 600, 5000)
    ranks[::7] = MISSED
    assert unpacked(packed(ranks)).tolist() == [rank if rank <= 20 else MISSED for rank in ranks]
    with pytest.raises(ValueError, match="decompressing"):
        unpacked("AAAA")
    assert pl.Series(unpacked(packed(np.array([], np.int32)))).is_empty()


def test_a_cell_reads_as_it_is_whatever_is_in_it(path, trainer):
    text = r"p < 0.0001 & a>b, *c* _d_ `e` [f](g) \h | <i>"
    path.write_text(path.read_text().replace("together: first", f"together: {json.dumps(text)}"))
    page = markdown(
        run_study(path, (), 1, path.parent / "runs", Console(quiet=True)).read_text(), extensions=["tables"]
    )
    assert text in map(unescape, re.findall("<td>(.*)</td>", page))
