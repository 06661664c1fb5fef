"""A study goes on from what is done, trains no cell twice, and takes the cheapest first."""

import importlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from tests.study import conftest
from tfcorr import cli
from tfcorr.config import RunSettings
from tfcorr.evaluation.baselines import BASELINES
from tfcorr.files import locked
from tfcorr.settings import InputError
from tfcorr.study import run_study, worker
from tfcorr.towers import RETRIEVERS

pytestmark = pytest.mark.usefixtures("undrawn")
CELLS = 3 * (2 + 1)  # three trainings: a search of two, and another seed; `all items` shares those of `apart`


def go(path, *overrides, processes=1):
    return run_study(path, overrides, processes, path.parent / "runs", Console(quiet=True))


def test_every_cell_is_trained_once(path, trainer):
    go(path)
    assert len(trainer.trained) == CELLS
    assert trainer.most_at_once == 1
    assert set(Counter(trainer.trained).values()) == {1, 2}  # two choices of the search, with the first seed
    assert [method for _, method, _, alone in trainer.trained if alone] == ["two-stage"] * 3
    go(path)
    assert len(trainer.trained) == CELLS
    assert not [each for each in (path.parent / "runs" / "study").iterdir() if each.is_dir()]


def test_of_cells_that_share_a_first_stage_one_trains_it_while_another_slot_takes_others(path, trainer):
    one = ["search={slow: {training.retriever.learning_rate: 0.001}}", "seeds=[1]", "base.training.start=retriever"]
    go(path, *one, "only.walks=[apart, together, mf]", processes=2)
    assert trainer.begun[:2] == ["sasrec", "mf"]
    assert sorted(trainer.begun) == ["mf", "sasrec", "sasrec"]


def test_of_a_search_that_is_done_the_best_ranker_alone_is_measured_over_all_items(path, trainer):
    go(path)
    records = path.parent / "tables" / "cells.json"
    rows = json.loads(records.read_text())
    for row in rows:
        for found in (row["ranks"], row["test"]):
            found.pop("ranker_alone", None)
    records.write_text(json.dumps(rows))
    trainer.trained.clear()
    go(path)
    assert trainer.trained == [("sasrec", "two-stage", seed, True) for seed in (1, 2)]


def test_what_another_study_trained_of_a_search_is_not_trained_again_before_it_is_chosen(path, trainer):
    go(path, "only.walks=[apart]", "seeds=[1]", "search={slow: {training.retriever.learning_rate: 0.001}}")
    trainer.trained.clear()
    go(path, "only.walks=[all items]", "seeds=[1]")
    assert trainer.trained == [("sasrec", "two-stage", 1, True)]


def test_the_seeds_are_trained_by_the_choice_that_is_best_on_validation(path, trainer):
    go(path)
    rows = json.loads((path.parent / "tables" / "cells.json").read_text())
    seconds = [row["settings"] for row in rows if row["settings"]["seed"] == 2]
    assert {each.get("training.retriever.learning_rate") for each in seconds} == {0.01}


@pytest.mark.parametrize("done", [1, 4, 6, 8])
def test_killed_after_any_cell_it_ends_as_if_left_alone(path, trainer, done):
    def killed(job):
        if len(trainer.trained) == done:
            raise KeyboardInterrupt

    trainer.fail = killed
    with pytest.raises(KeyboardInterrupt):
        go(path)
    shutil.rmtree(path.parent / "runs")  # on another machine, with no more than the tables' folder
    trainer.fail = lambda job: None
    go(path)
    assert len(trainer.trained) == CELLS
    tables = (path.parent / "tables" / "small.md").read_text()
    shutil.rmtree(path.parent / "tables")
    go(path)
    assert tables == (path.parent / "tables" / "small.md").read_text()


def test_the_cheapest_come_first(path, trainer):
    go(path, "only.walks=[together, mf]", "seeds=[1]")
    trainer.trained.clear()
    go(path, "only.walks=[together, mf]")
    assert [name for name, *_ in trainer.trained] == ["mf", "sasrec"]


def test_several_are_trained_at_once(path, trainer):
    go(path, processes=3)
    assert len(trainer.trained) == CELLS
    assert trainer.most_at_once == 3


def test_other_studies_share_its_cells(path, trainer):
    go(path)
    system = "small: {settings: {ranker: {name: din, dim: 8, attention: [8, 4], mlp: [8]}}}"
    (path.parent / "another.yaml").write_text(
        f"title: Another\nlike: small.yaml\nonly: {{other: []}}\nsystems:\n  {system}\n"
    )
    table = go(path.parent / "another.yaml")
    assert len(trainer.trained) == CELLS
    assert "| small | 0." in table.read_text()


def test_another_setting_is_another_cell(path, trainer):
    go(path, "search={fast: {training.retriever.learning_rate: 0.01}}", "seeds=[1]")
    assert len(trainer.trained) == 3
    go(path, "search={fast: {training.retriever.learning_rate: 0.01}}", "seeds=[1]", "base.sampler.pool=30")
    assert len(trainer.trained) == 6


def test_towers_of_the_users_own_are_known_to_a_cells_process(path, trainer, monkeypatch):
    (path.parent / "ours.py").write_text("import tfcorr\nclass Ours(tfcorr.RETRIEVERS['mf']): pass\n")
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setitem(RETRIEVERS, "ours", importlib.import_module("ours").Ours)
    towers = []
    trainer.fail = lambda job: towers.extend(job["towers"])
    go(path, "seeds=[1]", "only.walks=[mf]")
    assert towers == [str(path.parent / "ours.py")] * 2


def test_a_training_that_dies_is_left_for_the_next_time(path, trainer, capsys):
    def dies(job):
        if job["settings"]["training"]["method"] == "corr":
            raise InputError("ended by SIGKILL")

    trainer.fail = dies
    with pytest.raises(
        InputError,
        match=r"3 cells are not done: walks, together, slow, seed 1: ended by SIGKILL \(its log is .*log\); ",
    ):
        run_study(path, (), 1, path.parent / "runs", Console(width=200))
    assert "walks, together, fast, seed 1: ended by SIGKILL" in capsys.readouterr().out
    assert len(trainer.trained) == 6
    trainer.fail = lambda job: None
    go(path)
    assert len(trainer.trained) == CELLS


def test_data_that_are_not_there_leave_their_cells_empty(path, trainer):
    with pytest.raises(
        InputError, match=r"small.md: 9 cells are not done: other: .*elsewhere.csv: there is no such file"
    ):
        go(path, "only={}")
    assert len(trainer.trained) == CELLS
    assert "No cell is done yet." in (path.parent / "tables" / "small.md").read_text()


def test_what_a_kill_left_of_cells_that_are_done_is_removed(path, trainer):
    go(path)
    runs = path.parent / "runs" / "study"
    key = json.loads((path.parent / "tables" / "cells.json").read_text())[0]["key"]
    for name in (key, ".half-removed.replaced-7", "another"):
        (runs / name).mkdir()
    (runs / f".{key}.training.lock").touch()
    go(path)
    assert {each.name for each in runs.iterdir()} == {"another", ".lock"}


def test_a_cell_that_is_measured_once_more_goes_on_from_where_it_was_killed(path, trainer):
    go(path, "only.walks=[apart]", "seeds=[1]")
    runs, record = path.parent / "runs" / "study", json.loads((path.parent / "tables" / "cells.json").read_text())[-1]
    (runs / record["key"]).mkdir()
    (runs / record["key"] / "of its last epoch").touch()

    def killed(job):
        assert (runs / record["key"] / "of its last epoch").exists()
        raise KeyboardInterrupt

    trainer.fail = killed
    with pytest.raises(KeyboardInterrupt):
        go(path, "only.walks=[all items]", "seeds=[1]")


def test_data_that_change_meanwhile_are_no_cells_of_the_same_table(path, trainer):
    def changes(job):
        trainer.checksum = "1" * 64 if len(trainer.trained) == 3 else trainer.checksum

    trainer.fail = changes
    with pytest.raises(InputError, match=r"the data's SHA-256 is 1{12}…, that of the cells in"):
        go(path)
    assert len(json.loads((path.parent / "tables" / "cells.json").read_text())) == 3


def test_other_data_of_the_same_name_are_refused(path, trainer):
    trainer.checksum = "0" * 64
    go(path, "seeds=[1]")
    with pytest.raises(
        InputError, match=r"walks: the data's SHA-256 is \w{12}…, that of the cells in .*cells.json 0{12}…; bring those"
    ):
        go(path)


def test_one_process_at_a_time_has_a_study(path, trainer):
    for lock in (path.parent / "tables" / ".lock", path.parent / "runs" / "study" / ".lock"):
        with locked(lock), pytest.raises(InputError, match="another process holds this lock"):
            go(path)


@pytest.mark.parametrize("text", ["", "{}", "[{}]", '[{"key": 1}]', "[1]", "[" * 10_000])
def test_damaged_records_are_told(path, trainer, text):
    (path.parent / "tables").mkdir()
    (path.parent / "tables" / "cells.json").write_text(text)
    with pytest.raises(
        InputError, match=r"cells.json: is not there, or is damaged: .*; bring an earlier one back, or remove it"
    ):
        go(path)


def test_a_cell_is_trained_and_measured_in_a_process_of_its_own(path, monkeypatch, capsys):
    monkeypatch.setattr(cli.console, "width", 200)
    overrides = [
        "seeds=[1]",
        "search={fast: {training.retriever.learning_rate: 0.01}}",
        "only={walks: [mf], other: []}",
        "systems.mf.stage=ranker_alone",
    ]
    options = [each for override in overrides for each in ("--set", override)]
    cli.app(["study", "small.yaml", *options, "--processes", "2", "--root", "runs"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert re.search(
        r"ends: walks, mf, fast, seed 1: ndcg@20 on validation: retriever 0\.\d+, cascade 0\.\d+; 2 epochs, ", printed
    )
    assert "tables written to tables/small.md" in printed
    record = json.loads((path.parent / "tables" / "cells.json").read_text())[0]
    assert set(record["ranks"]) - set(BASELINES) == {"retriever", "ranker", "cascade", "ranker_alone"}
    assert record["cpu_seconds"] > 1
    assert record["sizes"] == {"users": 60, "items": 40, "interactions": 697}


def test_a_training_that_diverges_is_a_result(path, trainer, monkeypatch):
    def here(cell):
        job = cell.job
        worker.measure(RunSettings.parse(job["settings"]), Path(job["root"]), job["ranker_alone"])

    monkeypatch.setattr(conftest.Cell, "outcome", here)
    with (path.parent / "clicks.csv").open("a") as clicks:
        clicks.write("one-click,film-1,0\n")  # a user of whom nothing is trained or measured counts too
    overrides = [
        "seeds=[1]",
        "search={fast: {training.retriever.learning_rate: 1e30}}",
        "only={walks: [mf], other: []}",
    ]
    overrides.append("base.data.min_interactions=1")
    table = go(path, *overrides).read_text()
    assert re.search(
        r"- Failed: mf, fast, seed 1: retriever, epoch 1: .* became NaN or infinite; lower the learning rates\.", table
    )
    assert "- Data: 61 users, 40 items, 698 interactions" in table
    monkeypatch.delattr(conftest.Cell, "outcome")  # it is not trained again
    assert go(path, *overrides).read_text() == table


def test_a_clock_goes_on_from_what_killed_processes_used(tmp_path):
    first = worker.CpuClock(tmp_path)
    assert first.before == 0
    first.before = 1000.0
    first.on_epoch_end(0)
    second = worker.CpuClock(tmp_path)
    assert second.before > 1000
    assert second.seconds > second.before


def test_what_was_begun_is_gone_on_with_only_if_all_is_as_it_was(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    assert worker.can_go_on(folder, trained.settings)
    assert not worker.can_go_on(folder, trained.settings.model_copy(update={"seed": 9}))
    provenance = json.loads((folder / "provenance.json").read_text())
    for changed in ({"tfcorr": "0.0"}, {"data_sha256": "0"}):
        (folder / "provenance.json").write_text(json.dumps(provenance | changed))
        assert not worker.can_go_on(folder, trained.settings)
    (folder / "provenance.json").unlink()
    assert not worker.can_go_on(folder, trained.settings)
