"""Runs with more than a retriever and a ranker's usual training: towers in the middle, a final order, a start from the
retriever."""

import json
import sys

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from rich.console import Console

from tests.conftest import FPMC, LIGHT, write_project
from tfcorr import runs, stages
from tfcorr.config import load_settings
from tfcorr.data.features import Feature
from tfcorr.data.sources import load
from tfcorr.evaluation.baselines import BASELINES
from tfcorr.serving.recommend import Recommender
from tfcorr.settings import InputError
from tfcorr.towers import RANKERS, RETRIEVERS, Domain, tower_of

pytestmark = pytest.mark.usefixtures("eagerly")

quiet = Console(quiet=True)
MIDDLE = "middle=[{tower: {name: sasrec, dim: 8}, keep: 22, samples: 4}]"


def trained_on(folder, monkeypatch, *overrides):
    pipeline = write_project(folder)
    monkeypatch.chdir(folder)
    settings = load_settings(pipeline, [FPMC, LIGHT, "training.epochs=1", "training.batch_size=200", *overrides])
    return runs.train(settings, folder / "saved_models", quiet)


@pytest.mark.parametrize("order", ["fitted", "ranker"])
def test_three_stages_are_trained_measured_one_by_one_and_exported_as_one(tmp_path, monkeypatch, order):
    """The exported cascade's lists are those that evaluation scored, in the final order of all that was scored."""
    run = trained_on(
        tmp_path, monkeypatch, MIDDLE, "ranker.counts={}", f"evaluation.order={order}", "evaluation.validation_users=20"
    )
    assert list(run.towers) == ["retriever", "middle_1", "ranker"]
    assert (run.order is None) == (order == "ranker")
    if order == "fitted":  # of so few users it may be one stage's; here all have a say
        change_order(run.folder, {"retriever": 0.5, "middle_1": -0.2, "ranker": 1.0, "ranker_counts": 0.7})
    opened = runs.open_run(run.folder)
    measured = runs.evaluate(opened)
    assert [stage for stage in measured.metrics if stage not in BASELINES] == [
        "retriever",
        "middle_1",
        "ranker",
        "cascade",
    ]
    assert {"recall@25"} <= measured.metrics["retriever"].keys()
    assert {"recall@22"} <= measured.metrics["middle_1"].keys()
    runs.export_run(opened)
    dataset = load(run.settings.data)
    places = dataset.histories.targets("test")
    ids, starts = dataset.catalogue.ids, dataset.histories.starts(places)
    histories = [
        [ids[item - 1] for item in dataset.histories.items[start:place]]
        for start, place in zip(starts, places, strict=True)
    ]
    found = Recommender(run.folder).recommend(histories, 25, context={"user": dataset.histories.users})
    lists = found.group_by("row", maintain_order=True).agg("item")["item"].to_list()
    ranks = pl.read_parquet(run.folder / "ranks.parquet")
    assert (ranks["cascade"].to_list() == ranks["ranker"].to_list()) == (order == "ranker")
    compared = 0
    for history, found, (target, rank) in zip(
        histories, lists, ranks.select("target", "cascade").iter_rows(), strict=True
    ):
        assert len(found) <= 22
        if target not in history:
            assert (found.index(target) + 1 if target in found else None) == rank
            compared += 1
    assert compared > 30


def change_order(folder, weights):
    kept = json.loads((folder / "order.json").read_text())
    (folder / "order.json").write_text(json.dumps(kept | {"weights": weights}))


def test_the_final_order_is_fitted_on_validation_kept_and_not_fitted_again(tmp_path, monkeypatch):
    run = trained_on(tmp_path, monkeypatch, "training.epochs=2", "ranker.counts={latest: 2}")
    kept = json.loads((run.folder / "order.json").read_text())
    assert set(kept) == {"weights", "scales", "ndcg@20"}
    assert set(kept["scales"]) == {"retriever", "ranker", "ranker_counts"}
    assert set(kept["weights"]) <= set(kept["scales"])
    values = kept["ndcg@20"]
    assert list(values) == ["retriever", "ranker", "cascade"]
    best = pl.read_csv(run.folder / "history.csv").sort("cascade_ndcg@20")[-1]  # whose weights were kept
    for stage in ("retriever", "ranker"):
        assert values[stage] == pytest.approx(best[f"{stage}_ndcg@20"][0], rel=1e-4)
    assert best["cascade_ndcg@20"][0] == pytest.approx(max(values.values()), rel=1e-4)
    assert dict(run.order) == dict(runs.open_run(run.folder).order) == kept["weights"]
    change_order(run.folder, {"ranker": 2.0})
    again = runs.train(
        run.settings, run.folder.parent, quiet, resume=True
    )  # nothing is left to do, and nothing is done
    assert again.order == {"ranker": 2.0}
    (run.folder / "order.json").unlink()
    with pytest.raises(InputError, match="its final order has not been fitted yet; go on with: tfcorr train"):
        runs.open_run(run.folder)
    anew = runs.train(run.settings, run.folder.parent, quiet, resume=True)
    assert dict(anew.order) == pytest.approx(kept["weights"], rel=1e-3)


def test_where_the_ranker_is_the_final_order_none_is_fitted(tmp_path, monkeypatch):
    run = trained_on(tmp_path, monkeypatch, "evaluation.order=ranker")
    assert not (run.folder / "order.json").exists()
    assert runs.open_run(run.folder).order is None
    history = pl.read_csv(run.folder / "history.csv")
    assert history["cascade_ndcg@20"].to_list() == history["ranker_ndcg@20"].to_list()


def test_validation_may_be_of_some_users_on_whom_the_order_is_fitted_too(tmp_path, monkeypatch):
    sizes, fit = [], runs.fit_order

    def watched(scored, *others):
        sizes.append(len(scored.column) + scored.missed)
        return fit(scored, *others)

    monkeypatch.setattr(runs, "fit_order", watched)
    monkeypatch.setattr(stages, "fit_order", watched)
    trained_on(tmp_path, monkeypatch, "evaluation.validation_users=17")
    assert set(sizes) == {17}
    assert len(sizes) == 2  # after the epoch, and at the end


@pytest.mark.parametrize(
    ("method", "more", "trained"),
    [("corr", "middle=[]", ["retriever", "joint"]), ("two-stage", MIDDLE, ["retriever", "middle_1", "ranker"])],
)
def test_a_start_from_the_retriever_is_its_best_state(tmp_path, monkeypatch, method, more, trained):
    """Where the other stages start, their item vectors are those of the retriever, which the first stage left at its
    best."""
    found, start = [], stages._start_from

    def watched(best, towers):
        start(best, towers)
        found.append((best, towers, [variable.numpy() for variable in best.variables]))
        for mine, other in zip(best.variables, towers["retriever"].variables, strict=True):
            np.testing.assert_array_equal(mine, other)
        for tower in towers.values():
            np.testing.assert_array_equal(best.item_tables["id"], tower.item_tables["id"])

    monkeypatch.setattr(stages, "_start_from", watched)
    run = trained_on(
        tmp_path, monkeypatch, "training.start=retriever", f"training.method={method}", "training.averaging=0", more
    )
    assert len(found) == 1
    history = pl.read_csv(run.folder / "history.csv")
    assert history["stage"].to_list() == trained
    moved = [
        not np.array_equal(before, after) for before, after in zip(found[0][2], run.retriever.variables, strict=True)
    ]
    assert any(moved) == (method == "corr")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["middle=[{tower: {name: fpmc}, keep: 30}]"], r"would hand on 25 → 30 items; lower middle's keep"),
        (
            ["middle=[{tower: {name: fpmc}, keep: 20}]", "evaluation.k=[21]"],
            "k = 21 is beyond the 20 items that the ranker is handed",
        ),
        (
            ["middle=[{tower: {name: fpmc}, keep: 20, samples: 6}]"],
            "would resample 5 → 6 items; lower middle's samples",
        ),
        ([MIDDLE, "training.method=adversarial"], "is trained by training.method corr"),
        ([MIDDLE, "sampler.negatives=uniform"], "is trained by training.method corr, with sampler.negatives"),
        (
            ["middle=[{tower: {name: npe}, keep: 20}]", "training.examples=window"],
            "needs a causal retriever, npe is none",
        ),
        (["middle=[{tower: {name: sasrek}, keep: 20}]"], "there is no 'sasrek'; did you mean 'sasrec'"),
        (
            ["training.start=retriever", "training.distribution=parameter-server"],
            "parameter-server .* needs training.start: random",
        ),
    ],
)
def test_what_no_cascade_can_be_is_refused(project, overrides, message):
    with pytest.raises(InputError, match=message):
        load_settings(project, overrides)


def test_vectors_of_another_width_do_not_start_from_the_retrievers_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules[__name__], "quiet", Console(width=200))
    run = trained_on(tmp_path, monkeypatch, "training.start=retriever", "ranker.dim=4", "evaluation.order=ranker")
    assert {tower.item_tables["id"].shape[1] for tower in run.towers.values()} == {8, 4}
    said = "ranker: item vectors of another width than the retriever's do not start from its; give both towers one dim"
    assert said in capsys.readouterr().out


def test_a_start_takes_over_the_features_that_both_towers_see():
    categories = Feature("genre", "item", np.array([[0], [1], [2]], np.int32), ["a", "b"])
    domain = Domain(2, 0, 3, (categories,))
    names = {"retriever": "sasrec", "ranker": "bst"}
    best = tower_of(RETRIEVERS["sasrec"].Settings.parse({"dim": 4}), domain)
    towers = {
        role: tower_of((RETRIEVERS | RANKERS)[name].Settings.parse({"dim": 4}), domain) for role, name in names.items()
    }
    for tower in (best, *towers.values()):
        tower.score({"history": tf.constant([[1, 2]]), "user": tf.constant([0])}, tf.constant([[1]]))
    assert not np.allclose(best.items(tf.range(3)), towers["ranker"].items(tf.range(3)))
    stages._start_from(best, towers)
    for tower in towers.values():
        np.testing.assert_allclose(tower.items(tf.range(3)), best.items(tf.range(3)))
