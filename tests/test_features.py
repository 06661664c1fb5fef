"""Features from the files to the exported cascade: a cold item is recommended by its kind, a context changes what
is."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tests.serving.server.conftest import start_server
from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.serving.client import RemoteRecommender
from tfcorr.serving.recommend import Recommender, recommend_file
from tfcorr.settings import InputError

PIPELINE = """
data:
  path: clicks.csv
  items: {path: items.csv, key: id}
  cold_items: true
  features:
    kind: {of: item}
    device: {of: interaction}
    size: {of: interaction, kind: numeric}
history_length: 5
retriever: {name: sasrec, dim: 16}
ranker: {dim: 16, attention: [8], mlp: [16], recency: true, activation: relu}
sampler: {pool: 20, samples: 10}
training: {epochs: 9, start: random, batch_size: 64, retriever: {learning_rate: 0.01}, ranker: {learning_rate: 0.01}}
evaluation: {retrieve: 40}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Users stay with one kind of items, of 4; on a phone they choose the first half of it, on a tv the second."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    rows = []
    for user in range(150):
        kind = user % 4
        for time in range(8):
            device = int(rng.integers(2))
            rows.append(
                (
                    f"u{user}",
                    f"i{kind}-{5 * device + rng.integers(5)}",
                    time,
                    ["phone", "tv"][device],
                    10 * device + rng.normal(),
                )
            )
    schema = ["user_id", "item_id", "timestamp", "device", "size"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(folder / "clicks.csv")
    ids = [f"i{kind}-{number}" for kind in range(4) for number in [*range(10), "new"]]
    pl.DataFrame({"id": ids, "kind": [each[1] for each in ids]}).write_csv(folder / "items.csv")
    (folder / "shop.yaml").write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = runs.train(load_settings("shop.yaml"), console=Console(quiet=True))
        runs.evaluate(run)
        runs.export_run(runs.open_run(run.folder))
        run = runs.Run(folder / run.folder, *(getattr(run, name) for name in list(run.__dataclass_fields__)[1:]))
    return run


def test_a_cold_item_is_recommended_to_those_who_like_its_kind_before_all_others(run):
    assert run.catalogue.warm == 40
    recommender = Recommender(run.folder)
    for kind in range(4):
        found = recommender.recommend([[f"i{kind}-1", f"i{kind}-7", f"i{kind}-3"]], 40)["item"].to_list()
        new = [item for item in found if item.endswith("new")]
        assert new[0] == f"i{kind}-new"
        assert found.index(new[0]) < 11


def test_the_context_of_a_request_changes_what_is_recommended(run):
    recommender = Recommender(run.folder)
    assert recommender.reads == {"device", "size"}
    past = ["i2-1", "i2-7", "i2-3"]
    for device, size in (("phone", 0.0), ("tv", 10.0)):
        found = recommender.recommend([past], 5, context={"device": [device], "size": [size]})["item"].to_list()
        assert sum((int(item[-1]) >= 5) == (device == "tv") for item in found if not item.endswith("new")) >= 4
    unknown = recommender.recommend([past], 5)
    assert unknown.equals(recommender.recommend([past], 5, context={"device": ["fridge"], "size": [None]}))
    with pytest.raises(InputError, match="context: no tower reads 'colour'; they read: device, size"):
        recommender.recommend([past], 5, context={"colour": ["red"]})
    told = recommender.unknown([past], context={"device": ["fridge"], "size": [None]})
    assert told == {"device": (["fridge"], 1)}


def test_the_exported_cascade_ranks_as_evaluation_did(run):
    clicks = pl.read_csv(run.folder.parent.parent / "clicks.csv")
    recommender, ranks = Recommender(run.folder), pl.read_parquet(run.folder / "ranks.parquet")
    by_user = {user[0]: frame for user, frame in clicks.group_by(["user_id"], maintain_order=True)}
    users = ranks["user"].to_list()
    pasts = [by_user[user]["item_id"].to_list()[:-1] for user in users]
    context = {name: [by_user[user][name][-1] for user in users] for name in ("device", "size")}
    lists = (
        recommender.recommend(pasts, 40, context=context)
        .group_by("row", maintain_order=True)
        .agg("item")["item"]
        .to_list()
    )
    places = [
        items.index(target) + 1 if target in items else None
        for items, target in zip(lists, ranks["target"], strict=True)
    ]
    assert places == ranks["cascade"].to_list()


def test_a_tower_may_be_kept_from_features_and_a_misspelt_one_is_refused(run, monkeypatch, eagerly):
    monkeypatch.chdir(run.folder.parent.parent)
    one_step = ["training.epochs=1", "training.batch_size=2000"]
    settings = load_settings("shop.yaml", ["ranker.features=[]", "retriever.features=[kind]", *one_step], "plain")
    plain = runs.train(settings, console=Console(quiet=True))
    assert plain.retriever.reads == plain.towers["ranker"].reads == {"history"}
    settings = load_settings("shop.yaml", ["ranker.features=[devise]"], "misspelt")
    with pytest.raises(InputError, match="features of din: there is no 'devise'; did you mean 'device'"):
        runs.train(settings, console=Console(quiet=True))


TYPED = """
data:
  path: clicks.parquet
  items: {path: goods.parquet, key: item}
  features:
    vip: {of: interaction}
    shelf: {of: item}
    age: {of: interaction, kind: numeric}
    tags: {of: interaction, separator: "|"}
history_length: 4
retriever: {name: fpmc, dim: 4}
ranker: {name: deepfm, dim: 4, mlp: [4], counts: null}
sampler: {pool: 10, samples: 3}
training: {epochs: 1, start: random, item_vectors: random, batch_size: 64}
evaluation: {retrieve: 20, k: [5]}
"""


def assert_same(found, expected):
    """Lists that differ by no more than the order in which vectors are summed."""
    assert found.select("rank", "item").equals(expected.select("rank", "item"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_an_id_or_category_is_the_same_of_whatever_type_it_comes(tmp_path, monkeypatch):
    """In the interactions, beside them, in arguments of Python, in a file of requests, and as it is served."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 8)
    clicks = {"user_id": users.astype(float), "item_id": rng.integers(12, size=320).astype(float)}
    clicks |= {"timestamp": np.tile(np.arange(8), 40), "vip": rng.random(320) < 0.5}
    clicks |= {"age": rng.integers(20, 60, 320), "tags": np.array(["a", "b|a", " c | b"])[rng.integers(3, size=320)]}
    pl.DataFrame(clicks).write_parquet("clicks.parquet")
    goods = {"item": [str(item) for item in range(12)], "shelf": [item % 3 for item in range(12)]}
    pl.DataFrame(goods).write_parquet("goods.parquet")
    (tmp_path / "typed.yaml").write_text(TYPED)
    run = runs.train(load_settings("typed.yaml"), console=Console(quiet=True))
    assert (run.users[0], sorted(run.catalogue.ids, key=int)) == ("0", [str(item) for item in range(12)])
    runs.export_run(run)
    recommender = Recommender(run.folder)
    known = {"vip": ["true"], "user": ["5"], "age": [30], "tags": [["b", "c"]]}
    expected = recommender.recommend([["3", "7"]], 5, [["1"]], known)
    others = {"vip": ["false"], "user": ["6"], "age": [50], "tags": ["a"]}
    for name, other in others.items():  # each has a part in the answer
        assert not recommender.recommend([["3", "7"]], 5, [["1"]], known | {name: other}).equals(expected), name
    for history in ([3, 7.0], np.array([3.0, 7.0]), [" 3", np.int16(7)]):
        for vip, age, tags in ((True, 30.0, "b|c"), (np.True_, " 30 ", " c | b "), (" true ", np.int8(30), ("c", "b"))):
            context = {"vip": [vip], "user": [5.0], "age": [age], "tags": [tags]}
            assert_same(recommender.recommend([history], 5, [[1.0]], context), expected)
            assert recommender.unknown([history], [[1.0]], context) == {}
    with pytest.raises(InputError, match=r"user: expected one for each history, received \['5', '6'\]"):
        recommender.recommend([["3"]], 5, context={"user": [["5", "6"]]})
    for kind in (pl.String, pl.Int32, pl.Float64):
        frame = pl.DataFrame({"user": [5], "history": [[3, 7]], "exclude": [[1]], "vip": [True], "age": [30]})
        frame = frame.with_columns(tags=pl.Series([["b", "c"]]) if kind == pl.Int32 else pl.lit("b|c"))
        lists = [pl.col(name).cast(pl.List(kind)) for name in ("history", "exclude")]
        frame.with_columns(*lists, pl.col("user").cast(kind)).write_parquet("asked.parquet")
        written, unknown = recommend_file(recommender, Path("asked.parquet"), Path("answered.parquet"), 5)
        assert (written, unknown) == (5, {})
        assert_same(pl.read_parquet("answered.parquet").drop("user"), expected.drop("row"))
    server = start_server(run.folder, "--model", "cascade")
    try:
        remote = RemoteRecommender(server.grpc_address)
        assert_same(remote.recommend([[3, 7.0]], 5, [[1.0]], known | {"tags": ["c|b"]}), expected)
        row = {"history": ["3", " 7"], "exclude": ["1 "], "k": 5, "vip": "true ", "user": " 5", "age": 30}
        columns = {name: [value] for name, value in row.items()} | {"vip": [["true"]], "tags": [["b | c"]]}
        rows = [row | {"vip": [row["vip"]], "tags": ["c", "b"]}]
        by_columns = server.predict({"inputs": columns}).json()["outputs"]
        by_rows = server.predict({"instances": rows}).json()["predictions"][0]
        for found in (by_columns["item"][0], by_rows["item"]):
            assert found == expected["item"].to_list()
        for found in (by_columns["score"][0], by_rows["score"]):
            np.testing.assert_allclose(found, expected["score"], rtol=1e-5)
    finally:
        server.process.kill()
        server.process.wait(30)
