import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from rich.console import Console

from tests.conftest import write_project
from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.data.batches import windows
from tfcorr.data.sources import load
from tfcorr.files import write_whole
from tfcorr.serving.export import LOWEST
from tfcorr.serving.recommend import AnyRecommender, Recommender, recommend_file
from tfcorr.serving.saved_model import foreign_operations
from tfcorr.serving.versions import versions_on_disk
from tfcorr.settings import InputError

NAMES = ["retriever", "ranker", "cascade", "cascade_scann"]
both = pytest.mark.parametrize("index", ["exact", "scann"])


def serve(run, name="cascade"):
    model = tf.saved_model.load(str(run.folder / "serving" / name / "1"))
    signature = model.signatures["serving_default"]
    signature._keep = model  # a signature alone does not keep its variables
    return signature


def test_each_saved_model_lies_in_a_version_folder_of_its_own(trained):
    for name in NAMES:
        assert [path.name for path in (trained.folder / "serving" / name).iterdir()] == ["1"]
        assert (trained.folder / "serving" / name / "1" / "saved_model.pb").is_file()


def test_the_exact_cascade_holds_stock_operations_only(trained):
    assert foreign_operations(trained.folder / "serving" / "cascade" / "1") == set()
    foreign = foreign_operations(trained.folder / "serving" / "cascade_scann" / "1")
    assert foreign
    assert all("Scann" in name for name in foreign)


def test_both_cascades_have_one_signature(trained):
    exact, scann = serve(trained), serve(trained, "cascade_scann")
    assert exact.structured_input_signature == scann.structured_input_signature
    assert exact.structured_outputs == scann.structured_outputs
    assert set(exact.structured_input_signature[1]) == {"history", "k", "exclude"}
    assert set(exact.structured_outputs) == {"item", "score", "ranker_score", "retriever_score"}


LISTS = """
import json, sys
import tfcorr
from pathlib import Path
from tfcorr.serving.recommend import Recommender
histories, lists = json.loads(sys.stdin.read()), {}
for index in ("exact", "scann"):
    found = Recommender(Path(sys.argv[1]), index).recommend(histories, 25)
    assert ("scann" in sys.modules) == (index == "scann")
    lists[index] = found.group_by("row", maintain_order=True).agg("item")["item"].to_list()
print(json.dumps(lists))
"""


@pytest.fixture(scope="module")
def answered(trained):
    """What a fresh process answers to the test users' histories, as string ids, by index; with the histories and their
    places."""
    dataset = load(trained.settings.data)
    places = dataset.histories.targets("test")
    starts = dataset.histories.starts(places)
    ids = dataset.catalogue.ids
    histories = [
        [ids[item - 1] for item in dataset.histories.items[start:place]]
        for start, place in zip(starts, places, strict=True)
    ]
    command = [sys.executable, "-c", LISTS, str(trained.folder)]
    output = subprocess.run(command, input=json.dumps(histories), capture_output=True, text=True, check=True).stdout
    return json.loads(output), histories, starts, places, dataset


@both
def test_a_fresh_process_answers_with_the_very_lists_that_evaluation_scored(trained, answered, index):
    """The target stands where evaluation ranked it."""
    by_index, histories, starts, places, dataset = answered
    lists, ids = by_index[index], dataset.catalogue.ids
    ranks = pl.read_parquet(trained.folder / "ranks.parquet")
    compared = 0
    for history, found, (target, rank) in zip(
        histories, lists, ranks.select("target", "cascade").iter_rows(), strict=True
    ):
        assert not set(found) & set(history)
        if target in history:  # evaluation keeps it as a candidate, the endpoint excludes it as seen
            continue
        assert (found.index(target) + 1 if target in found else None) == rank
        compared += 1
    assert compared > 30
    cascade = runs.cascade_of(trained)
    for user in (0, 17, 59):
        history = windows(tf.constant(dataset.histories.items), starts[user : user + 1], places[user : user + 1], 6)
        context = {"history": history, "user": tf.constant([user + 1])}
        ranked = cascade.run(context, tf.constant(dataset.histories.items[None, starts[user] : places[user]]))[
            "cascade"
        ]
        order = np.argsort(-ranked.scores["cascade"][0].numpy(), kind="stable")
        assert lists[user] == [ids[item - 1] for item in ranked.ids.numpy()[0, order]]


@both
def test_answers_do_not_depend_on_the_batch_or_on_padding(trained, index):
    recommender = Recommender(trained.folder, index)
    histories = [
        ["film-1", "film-2"],
        ["film-9"],
        ["film-3", "film-8", "film-30", "film-31", "film-5", "film-6", "film-7", "film-2"],
    ]
    together = recommender.recommend(histories, 5)
    for row, history in enumerate(histories):
        alone = recommender.recommend([history], 5)
        assert alone["item"].to_list() == together.filter(pl.col("row") == row)["item"].to_list()
    padded = [["", *histories[0], ""], ["", "", "film-9"], histories[2]]
    assert recommender.recommend(padded, 5)["item"].to_list() == together["item"].to_list()


@both
def test_unknown_ids_are_skipped(trained, index):
    recommender = Recommender(trained.folder, index)
    known = recommender.recommend([["film-1", "film-2"]], 5, [["film-3"]])
    unknown = recommender.recommend([["film-1", "no such film", "", "film-2"]], 5, [["film-3", "nor this"]])
    assert known.equals(unknown)


@both
def test_a_history_with_no_known_id_is_answered_by_the_most_popular_items(trained, index):
    catalogue = pl.DataFrame({"id": trained.catalogue.ids, "count": trained.catalogue.counts})
    popular = catalogue.sort("count", descending=True, maintain_order=True)["id"].to_list()
    recommender = Recommender(trained.folder, index)
    for history in ([], [""], ["who?", "what?"]):
        found = recommender.recommend([history, ["film-1"]], 4, [[popular[1]], []]).filter(pl.col("row") == 0)
        assert found["item"].to_list() == [popular[0], *popular[2:5]]
        share = trained.catalogue.counts.max() / trained.catalogue.counts.sum()
        assert (
            found["score"][0] == found["ranker_score"][0] == found["retriever_score"][0] == pytest.approx(np.log(share))
        )


@both
def test_excluded_and_seen_items_never_come_back(trained, index):
    exclude = [item for item in trained.catalogue.ids if item not in ("film-3", "film-9")]
    found = Recommender(trained.folder, index).recommend([["film-1"], []], 10, [exclude, exclude])
    for row in (0, 1):
        assert set(found.filter(pl.col("row") == row)["item"]) == {"film-3", "film-9"}


@both
def test_k_is_chosen_at_call_time_and_by_row(trained, index):
    signature = serve(trained, {"exact": "cascade", "scann": "cascade_scann"}[index])
    history = tf.constant([["film-1"], ["film-2"], ["film-3"]])
    answer = signature(history=history, k=tf.constant([1, 3, 0]), exclude=tf.zeros([3, 0], tf.string))
    assert answer["item"].shape == (3, 3)
    assert (answer["item"].numpy() != b"").sum(axis=1).tolist() == [1, 3, 0]
    for name in ("score", "ranker_score", "retriever_score"):
        np.testing.assert_array_equal(answer[name].numpy() == LOWEST, answer["item"].numpy() == b"")
    everything = signature(history=history, k=tf.constant([99, 99, 99]), exclude=tf.zeros([3, 0], tf.string))
    assert everything["item"].shape == (3, 25)
    scores = {name: everything[f"{name}_score"].numpy().astype(float) for name in ("retriever", "ranker")}
    total = sum(weight * scores[name] for name, weight in trained.order.items())  # the final order
    np.testing.assert_allclose(everything["score"], total, rtol=1e-4, atol=1e-5)
    assert (np.diff(everything["score"], axis=1) <= 0).all()
    assert (np.diff(everything["score"], axis=1) < 0).any()


def test_retriever_and_ranker_answer_alone_as_they_do_in_the_cascade(trained):
    history, k = tf.constant([["film-1", "film-2"]]), tf.constant([5])
    cascade = serve(trained)(history=history, k=k, exclude=tf.zeros([1, 0], tf.string))
    retriever = tf.saved_model.load(str(trained.folder / "serving" / "retriever" / "1"))
    query = retriever.signatures["serving_default"](history=history)["vector"]
    vectors = retriever.signatures["items"](item=cascade["item"][0])["vector"]
    np.testing.assert_allclose(
        vectors @ query[0][:, None], cascade["retriever_score"][0][:, None], rtol=1e-3, atol=1e-5
    )
    assert not retriever.signatures["items"](item=tf.constant(["?"]))["vector"].numpy().any()
    ranker = serve(trained, "ranker")
    np.testing.assert_allclose(
        ranker(history=history, candidates=cascade["item"])["ranker_score"],
        cascade["ranker_score"],
        rtol=1e-3,
        atol=1e-5,
    )
    assert ranker(history=history, candidates=tf.constant([["?"]]))["ranker_score"].numpy() == LOWEST


def test_towers_that_read_the_user_are_asked_with_one_and_answer_as_evaluation_ranked(tmp_path, monkeypatch):
    """FPMC and DeepFM, trained with the best of all items as negatives and distilled over them."""
    pipeline = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    towers = ["retriever={name: fpmc, dim: 8}", "ranker={name: deepfm, dim: 8, mlp: [8]}", "training.epochs=1"]
    strategies = ["sampler={pool: 20, samples: 5, negatives: gtoprand, distillation: toprand, top: 15}"]
    run = runs.train(load_settings(pipeline, [*towers, *strategies]), console=Console(quiet=True))
    runs.evaluate(run)
    runs.export_run(runs.open_run(run.folder))
    recommender, dataset = Recommender(run.folder), load(run.settings.data)
    assert recommender.reads == {"user"}
    histories, places = dataset.histories, dataset.histories.targets("test")
    starts = histories.starts(places)
    pasts = [
        [dataset.catalogue.ids[item - 1] for item in histories.items[start:place]]
        for start, place in zip(starts, places, strict=True)
    ]
    found = recommender.recommend(pasts, 25, context={"user": histories.users})
    anonymous = recommender.recommend(pasts, 25)
    assert not found.equals(anonymous)
    assert anonymous.equals(recommender.recommend(pasts, 25, context={"user": ["no such user"] * len(pasts)}))
    lists = found.group_by("row", maintain_order=True).agg("item")["item"].to_list()
    ranks = pl.read_parquet(run.folder / "ranks.parquet")
    for past, items, (target, rank) in zip(pasts, lists, ranks.select("target", "cascade").iter_rows(), strict=True):
        assert target in past or (items.index(target) + 1 if target in items else None) == rank
    alone = recommender.recommend([[]], 5, context={"user": ["u3"]})  # a user is known even without a history
    assert not alone["ranker_score"].equals(alone["retriever_score"])
    unknown = recommender.recommend([[]], 5)
    assert unknown["ranker_score"].equals(unknown["retriever_score"])  # the most popular items


def test_an_output_that_fails_midway_leaves_nothing(tmp_path):
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "saved_model.pb").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "cascade" / "1", fail)
    assert list((tmp_path / "cascade").iterdir()) == []
    assert versions_on_disk(tmp_path / "cascade") == set()


def test_a_file_of_users_is_answered_row_by_row(trained, tmp_path):
    users = pl.DataFrame(
        {
            "user": ["ann", "bob", "cyd"],
            "history": [["film-1", "film-2"], None, ["film-3"]],
            "exclude": [["film-3"], [], None],
        }
    )
    users.write_parquet(tmp_path / "users.parquet")
    recommender = Recommender(trained.folder)
    assert recommend_file(recommender, tmp_path / "users.parquet", tmp_path / "out.parquet", 4) == (12, {})
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.columns == ["user", "rank", "item", "score", "ranker_score", "retriever_score"]
    assert (
        found.filter(pl.col("user") == "ann")["item"].to_list()
        == recommender.recommend([["film-1", "film-2"]], 4, [["film-3"]])["item"].to_list()
    )
    assert found.filter(pl.col("user") == "bob")["rank"].to_list() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="is the file of the requests, which would be gone; give another name"):
        recommend_file(recommender, tmp_path / "users.parquet", tmp_path / "users.parquet", 4)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"user": ["a"]}, "no column 'history'; the file has: user"),
        (
            {"user": ["a"], "history": ["film-1,film-2"]},
            "column 'history' is String; expected Parquet with the columns user and history",
        ),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_of_users_is_refused(tmp_path, columns, sentence, trained):
    path = tmp_path / "users.parquet"
    path.write_text("no parquet") if columns is None else pl.DataFrame(columns).write_parquet(path)
    with pytest.raises(InputError, match=sentence):
        recommend_file(Recommender(trained.folder), path, tmp_path / "out.parquet", 3)
    assert not (tmp_path / "out.parquet").exists()


def test_what_has_no_effect_as_it_is_not_known_is_told(trained, tmp_path):
    recommender = Recommender(trained.folder)
    unknown = recommender.unknown([["film-1", "x", "y"], [], ["x", 7.0, None]], [["z"], ["film-2"], ["film-3"]])
    assert unknown == {"history": (["x", "y", "7"], 4), "exclude": (["z"], 3)}
    assert str(unknown["history"]) == "3 of 4 unknown, and so without effect: x, y, 7"
    assert recommender.unknown([["film-1"]]) == recommender.unknown([]) == {}
    many = recommender.unknown([[f"no-{number}"] for number in range(600)])["history"]  # of several requests
    assert (len(many.texts), many.of) == (600, 600)
    assert str(many).endswith(": no-0, no-1, no-2, no-3, no-4, …")
    users = pl.DataFrame({"user": ["ann"], "history": [["film-1", "x"]]})
    users.write_parquet(tmp_path / "users.parquet")
    _, unknown = recommend_file(recommender, tmp_path / "users.parquet", tmp_path / "out.parquet", 4)
    assert unknown == {"history": (["x"], 2)}
    users.with_columns(Age=3, excluded=pl.lit("film-3")).write_parquet(tmp_path / "users.parquet")
    _, unknown = recommend_file(recommender, tmp_path / "users.parquet", tmp_path / "out.parquet", 4)
    assert unknown["columns"] == (["Age", "excluded"], 4)


class Constant(AnyRecommender):
    """A cascade that answers every request alike."""

    def __init__(self, **answer):
        self.specs, self._answer = {}, answer

    def ask(self, request, signature="serving_default"):
        return self._answer


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error_and_no_list(score):
    scores = np.array([[1, score]], np.float32)
    answer = {"item": np.array([[b"a", b"b"]], object), "score": scores, "ranker_score": scores}
    with pytest.raises(InputError, match="scores that are no numbers"):
        Constant(**answer, retriever_score=scores).recommend([["x"]], 2)


def test_what_was_not_exported_cannot_recommend(tmp_path):
    with pytest.raises(InputError, match="make one with: tfcorr export"):
        Recommender(tmp_path)


def test_ids_may_be_numbers_and_arrays_and_what_is_none_is_told(trained):
    recommender = Recommender(trained.folder)
    expected = recommender.recommend([["film-1", "film-2"]], 3)
    for histories in ([("film-1", " film-2 ", None)], np.array([["film-1", "film-2"]]), [[b"film-1", "film-2", ""]]):
        assert recommender.recommend(histories, 3).equals(expected)
    assert recommender.recommend([[1, 2.0, np.int64(3), True]], 3).height == 3  # ids that no item has
    for arguments, message in {
        (("film-1",), 3): "histories: expected a list of ids for each history, received 'film-1'",
        ("film-1", 3): "histories: expected a list of lists of item ids, received 'film-1'",
        ((None,), 3): "histories: expected a list of ids for each history, received None",
        (((1.5,),), 3): "histories: 1.5 is no id: expected a text or a whole number",
        (((),), 2.5): "k: expected a whole number from 0, received 2.5",
        (((),), -1): "k: expected a whole number from 0, received -1",
        (((), ()), 3, ((),)): "exclude: expected one for each of the 2 histories, received 1",
        (((),), 3, "film-1"): "exclude: expected one for each of the 1 histories, received 'film-1'",
        ((frozenset("ab"),), 3): "histories: expected a list of ids for each history, received frozenset(",
        ((("\ud800",),), 3): "histories: '\\ud800' is no id",
        (((10**5000,),), 3): "histories: a number of many digits is no id",
        (((),), 3, frozenset([()])): "exclude: expected one for each of the 1 histories, received frozenset(",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            recommender.recommend(*arguments)
    table = pl.DataFrame({"a": ["film-1"], "b": ["film-2"]})
    for histories in (table, np.array(5), {"film-1"}, {0: ["film-1"]}, iter([["film-1"]])):
        with pytest.raises(InputError, match="histories: expected a list of lists of item ids, received "):
            recommender.recommend(histories, 3)
    assert recommender.recommend(pl.Series([["film-1", "film-2"]]), 3).equals(expected)
    for context in (table, [("user", ["u1"])], "user"):
        with pytest.raises(InputError, match="context: expected lists by name, received "):
            recommender.recommend([["film-1"]], 3, None, context)
    with pytest.raises(InputError, match="index: expected exact or scann, received 'fast'"):
        Recommender(trained.folder, "fast")
    assert Recommender(str(trained.folder)).reads == recommender.reads
