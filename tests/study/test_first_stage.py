"""What cells have alike, the retriever's own training, is done once."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import FPMC, LIGHT, write_project
from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.study import RESULT, worker
from tfcorr.study.first_stage import PREFIX, FirstStage

pytestmark = pytest.mark.usefixtures("eagerly")
SMALL = (FPMC, LIGHT, "training.epochs=2", "training.batch_size=200", "training.start=retriever")


def settings_of(folder, name, *overrides):
    return load_settings(folder / "walks.yaml", [*SMALL, *overrides], name)


def kept(root, name):
    return (
        [path for path in root.iterdir() if path.name.startswith(PREFIX)]
        if name is None
        else pl.read_csv(root / name / "history.csv")
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    worker.measure(settings_of(tmp_path, "first"), tmp_path / "runs", ranker_alone=False)
    return tmp_path / "runs"


def test_a_cell_takes_over_the_retriever_that_another_trained(root, monkeypatch):
    (shared,) = kept(root, None)
    trained = []
    fit = runs.fit
    monkeypatch.setattr(runs, "fit", lambda stage, **more: (trained.append(stage.name), fit(stage, **more))[1])
    for name, overrides in {
        "apart": ["training.method=two-stage"],
        "counting": ["ranker.counts={}", "training.kl_weight=0"],
    }.items():
        worker.measure(settings_of(root.parent, name, *overrides), root, ranker_alone=False)
        assert trained == [
            "retriever",
            "ranker" if name == "apart" else "joint",
        ]  # the first of which has nothing to do
        trained.clear()
        ours, theirs = (kept(root, each).filter(stage="retriever") for each in (name, "first"))
        both = ["epoch", "seconds", "loss", "retriever_ndcg@20"]
        assert ours.select(both).equals(theirs.select(both))
        weights = [
            next((root / each / "checkpoints" / "retriever" / "best").glob("*.data*")).read_bytes()
            for each in (name, "first")
        ]
        assert weights[0] == weights[1]
    assert kept(root, None) == [shared]
    assert set(kept(root, "first")["stage"]) == {"retriever", "joint"}
    assert set(pl.read_csv(shared / "history.csv")["stage"]) == {"retriever"}


def test_who_takes_it_over_ends_where_one_ends_that_trained_it_itself(root):
    settings = settings_of(root.parent, "apart", "training.method=two-stage", "ranker.dropout=0.3")
    for where in (root, root.parent / "elsewhere"):
        worker.measure(settings, where, ranker_alone=False)
    ours, theirs = (kept(where, "apart").drop("seconds") for where in (root, root.parent / "elsewhere"))
    assert ours.select(theirs.columns).equals(theirs)
    shared, own = (json.loads((where / "apart" / RESULT).read_text()) for where in (root, root.parent / "elsewhere"))
    assert shared["ranks"] == own["ranks"]
    assert 0 == own["shared_cpu_seconds"] < shared["shared_cpu_seconds"] < shared["cpu_seconds"]


DRAWN = "sampler.correction=item"
LATER = [
    "ranker.dim=4",
    "training.method=two-stage",
    "training.kl_weight=0",
    "evaluation.order=ranker",
    "sampler.samples=3",
]
EARLIER = [
    "seed=2",
    "training.batch_size=100",
    "training.retriever.learning_rate=0.02",
    "retriever.layers=2",
    "training.item_vectors=random",
]


@pytest.mark.parametrize("pool", ["64", "all"])
def test_only_what_the_first_stage_does_not_read_may_differ(tmp_path, pool):
    write_project(tmp_path)

    def shared(*overrides):
        retriever = "retriever={name: sasrec, dim: 8}"
        return FirstStage(
            tmp_path / "run", settings_of(tmp_path, "run", f"sampler.pool={pool}", retriever, *overrides)
        ).shared

    assert {shared(), *map(shared, LATER)} == {shared()}
    assert len({shared(), *map(shared, EARLIER)}) == 1 + len(EARLIER)
    assert (shared(DRAWN) == shared()) == (pool == "all")  # where nothing is drawn, no draws are corrected


def test_what_was_trained_on_other_data_is_trained_anew(root):
    (shared,) = kept(root, None)
    before = (shared / "provenance.json").read_text()
    with Path("clicks.csv").open("a") as clicks:
        clicks.writelines(f"u0,film-{item},{100 + item}\n" for item in range(5))
    worker.measure(settings_of(root.parent, "later"), root, ranker_alone=False)
    assert kept(root, None) == [shared]
    assert (shared / "provenance.json").read_text() != before


def test_of_a_first_stage_that_was_killed_nothing_is_kept(root):
    (shared,) = kept(root, None)
    shutil.rmtree(shared)
    with pytest.raises(KeyboardInterrupt), FirstStage(root / "second", settings_of(root.parent, "second")):
        raise KeyboardInterrupt
    assert not kept(root, None)
    with FirstStage(root / "second", settings_of(root.parent, "second")):  # its lock is free again
        assert not (root / "second").exists()
