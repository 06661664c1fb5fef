"""New items and users without starting from zero: a warm start, and a new index."""

import re

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from rich.console import Console

from tests.conftest import FPMC, LIGHT, write_project
from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.data.features import FeatureSettings, encode
from tfcorr.serving.recommend import Recommender
from tfcorr.settings import InputError

pytestmark = pytest.mark.usefixtures("eagerly")

STILL = [
    "training.epochs=1",
    "training.averaging=0",
    "training.retriever.learning_rate=1e-12",
    "training.ranker.learning_rate=1e-12",
    "training.batch_size=600",
]


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    """A run; since then two films came, one user came, and one film is gone."""
    folder = tmp_path_factory.mktemp("days")
    pipeline = write_project(folder)
    light = {
        "ranker: .*": LIGHT.replace("}", ", counts: null}"),
        "retriever: .*": FPMC,
    }  # counts are of the day, not taken over
    for setting, other in light.items():
        pipeline.write_text(
            re.sub(f"^{setting}", other.replace("=", ": "), pipeline.read_text(), count=1, flags=re.MULTILINE)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = runs.train(load_settings(pipeline), folder / "runs", Console(quiet=True))
        runs.export_run(run)
    clicks = pl.read_csv(folder / "clicks.csv").filter(pl.col("item_id") != "film-7")
    new = [(user, film, 100) for user in ["u1", "u2", "u3", "u4", "u5", "u6"] for film in ("film-40", "film-41")]
    new += [("zoe", f"film-{film}", film) for film in (1, 2, 3, 4, 40, 41)]
    pl.concat([clicks, pl.DataFrame(new, schema=clicks.schema, orient="row")]).write_csv(folder / "clicks.csv")
    return run, pipeline


def lines_of(train):
    console = Console(record=True, quiet=False, file=open("/dev/null", "w"), width=200)  # noqa: SIM115
    return train(console), console.export_text()


def scores(run, history, candidates):
    numbers = {item: number for number, item in enumerate(run.catalogue.ids, start=1)}
    context = {"history": tf.constant([[0, *(numbers[item] for item in history)]]), "user": tf.constant([0])}
    ids = tf.constant([[numbers[item] for item in candidates]])
    return np.concatenate([tower.score(context, ids)[0] for tower in run.towers.values()])


def test_a_warm_start_keeps_what_is_known_of_items_that_stay(yesterday, monkeypatch):
    """Trained by steps of next to nothing, so that what was taken over can be seen."""
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    settings = load_settings(pipeline, [*STILL, f"training.warm_start={old.folder}"], "today")
    new, text = lines_of(lambda console: runs.train(settings, old.folder.parent, console))
    assert f"warm start from {old.folder}: items: 41, of which 2 new, 1 gone; users: 61, of which 1 new, 0 gone" in text
    assert {"film-40", "film-41"} <= set(new.catalogue.ids)
    assert "zoe" in new.users
    stayed = [item for item in old.catalogue.ids if item != "film-7"]
    for history in (["film-1", "film-2"], ["film-30"]):
        np.testing.assert_allclose(scores(new, history, stayed), scores(old, history, stayed), rtol=1e-4, atol=1e-5)
    mean = np.mean(old.retriever.item_vectors(tf.range(1, len(old.catalogue) + 1)), axis=0)
    number = new.catalogue.ids.index("film-40") + 1
    np.testing.assert_allclose(new.retriever.item_vectors(tf.constant([number]))[0], mean, rtol=1e-4, atol=1e-5)
    runs.evaluate(new)


def test_a_warm_start_is_ahead_of_a_cold_one_after_an_epoch(yesterday, monkeypatch):
    """On walks from film to film, of which yesterday's run has learned the order."""
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    one = ["training.epochs=1", "training.averaging=0"]
    cold = runs.train(load_settings(pipeline, one, "cold"), old.folder.parent, Console(quiet=True))
    warm = runs.train(
        load_settings(pipeline, [*one, f"training.warm_start={old.folder}"], "warm"),
        old.folder.parent,
        Console(quiet=True),
    )
    measured = [pl.read_csv(run.folder / "history.csv")["retriever_ndcg@20"][0] for run in (cold, warm)]
    assert measured[1] > measured[0] + 0.02, measured


def test_a_run_that_was_stopped_between_its_stages_goes_on_from_the_old_one_too(yesterday, monkeypatch):
    """The retriever is trained, the ranker is not begun: it must not start from nothing."""
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    override = [*STILL, "training.method=two-stage", f"training.warm_start={old.folder}"]
    settings, root = load_settings(pipeline, override, "stopped"), old.folder.parent
    fit = runs.fit

    def only_the_retriever(stage, **more):
        if stage.name != "retriever":
            raise KeyboardInterrupt
        fit(stage, **more)

    monkeypatch.setattr(runs, "fit", only_the_retriever)
    with pytest.raises(KeyboardInterrupt):
        runs.train(settings, root, Console(quiet=True))
    monkeypatch.setattr(runs, "fit", fit)
    resumed = runs.train(settings, root, Console(quiet=True), resume=True)
    stayed = [item for item in old.catalogue.ids if item != "film-7"]
    np.testing.assert_allclose(
        scores(resumed, ["film-1"], stayed), scores(old, ["film-1"], stayed), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("retriever.dim=16", "is a run of other towers; these differ: retriever.dim"),
        ("history_length=9", "is a run of other towers; these differ: history_length"),
        ("training.distribution=parameter-server", "parameter-server .* it needs training.warm_start: null"),
    ],
)
def test_a_warm_start_that_cannot_be_is_refused_before_anything_is_written(yesterday, monkeypatch, override, sentence):
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    root = old.folder.parent
    with pytest.raises(InputError, match=sentence):
        runs.train(
            load_settings(pipeline, [f"training.warm_start={old.folder}", override], "never"), root, Console(quiet=True)
        )
    assert not (old.folder.parent / "never").exists()
    with pytest.raises(InputError, match="nowhere: is no run"):
        runs.train(load_settings(pipeline, ["training.warm_start=nowhere"], "never"), root, Console(quiet=True))


def test_a_run_does_not_replace_the_one_that_it_starts_from(yesterday, monkeypatch):
    """Killed in its first epoch, it would leave neither."""
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    settings = load_settings(pipeline, [f"training.warm_start={old.folder}"], old.folder.name)
    with pytest.raises(InputError, match="is the run itself, whose weights would be gone; choose another --name"):
        runs.train(settings, old.folder.parent, Console(quiet=True), overwrite=True)
    runs.open_run(old.folder)


def test_a_new_index_knows_the_new_items_and_ranks_the_old_as_before(yesterday, monkeypatch):
    old, pipeline = yesterday
    monkeypatch.chdir(pipeline.parent)
    before = Recommender(old.folder).recommend([["film-1", "film-2"]], 25)
    assert runs.export_run(runs.reindexed(runs.open_run(old.folder))) == 2
    recommender = Recommender(old.folder)
    after = recommender.recommend([["film-1", "film-2"]], 25)
    known = [item for item in before["item"] if item != "film-7"]
    assert [item for item in after["item"] if item in known] == [item for item in known if item in set(after["item"])]
    joined = before.join(after, on="item")
    assert joined.height >= 22
    for score in ("ranker_score", "retriever_score"):
        np.testing.assert_allclose(joined[score], joined[f"{score}_right"], rtol=1e-4, atol=1e-5)
    assert "film-7" not in after["item"].to_list()
    of_a_new_film = recommender.recommend([["film-41"]], 25)
    assert not of_a_new_film["ranker_score"].equals(
        of_a_new_film["retriever_score"]
    )  # not the most popular: it is known


PRICED = """
data:
  path: sales.csv
  columns: {time: time}
  min_interactions: 1
  items: {path: goods.csv, key: item_id}
  features: {price: {of: item, kind: numeric}, kind: {of: item}}
history_length: 4
retriever: {name: sasrec, dim: 4}
ranker: {name: deepfm, dim: 4, mlp: [4], counts: null}
sampler: {pool: 10, samples: 3}
training: {epochs: 1, batch_size: 64}
evaluation: {retrieve: 20, k: [5]}
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A run with features, and a function that changes tomorrow's prices and kinds."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{rng.integers(20)}", time) for user in range(40) for time in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row").write_csv("sales.csv")

    def write(prices, kinds):
        goods = {"item_id": [f"i{number}" for number in range(20)], "price": prices, "kind": kinds}
        pl.DataFrame(goods).write_csv("goods.csv")

    write([float(number) for number in range(20)], ["ab"[number % 2] for number in range(20)])
    (tmp_path / "shop.yaml").write_text(PRICED)
    return runs.train(load_settings("shop.yaml"), tmp_path, Console(quiet=True)), write


def test_features_mean_tomorrow_what_they_meant_in_training(shop):
    """One good becomes dear, which moves mean and deviation; a kind is new, which moves the numbers of the others."""
    old, write = shop
    write([*(float(number) for number in range(19)), 1000.0], [*("ab"[number % 2] for number in range(19)), "_new"])
    new = runs.reindexed(old)
    same = [f"i{number}" for number in range(19)]
    np.testing.assert_allclose(scores(new, ["i1", "i2"], same), scores(old, ["i1", "i2"], same), rtol=1e-4, atol=1e-6)
    assert abs(scores(new, ["i1"], ["i19"]) - scores(old, ["i1"], ["i19"])).max() > 1e-3
    settings = load_settings("shop.yaml", [*STILL, f"training.warm_start={old.folder}"], "warm")
    warm = runs.train(settings, old.folder.parent, Console(quiet=True))
    np.testing.assert_allclose(scores(warm, ["i1", "i2"], same), scores(old, ["i1", "i2"], same), rtol=1e-4, atol=1e-6)
    runs.evaluate(runs.open_run(warm.folder))


def test_a_new_index_tells_what_changed_and_is_refused_where_nothing_is_kept(shop):
    """As where ids or categories are written in another way from one day on."""
    old, write = shop
    write([1.0] * 20, [*("ab"[number % 2] for number in range(19)), "c"])
    told = runs.changes(old, runs.reindexed(old))
    assert told == "items: 20, of which 0 new, 0 gone; users: 40, of which 0 new, 0 gone; " + (
        "kinds: 3, of which 1 new, 0 gone"
    )
    write([1.0] * 20, [*("AB"[number % 2] for number in range(20))])
    with pytest.raises(
        InputError, match=r"no kind of the data today is one that .* such as 'A', 'B', the run's .* 'a'"
    ):
        runs.reindexed(old)
    write([1.0] * 20, [*("ab"[number % 2] for number in range(20))])
    for name in ("sales.csv", "goods.csv"):
        pl.read_csv(name).with_columns(pl.col("item_id") + ".0").write_csv(name)
    with pytest.raises(InputError, match=r"no item of the data today is one that .* 'i\d+\.0', .* write them as then"):
        runs.reindexed(old)


def test_a_warm_start_wants_the_features_in_their_old_order(shop):
    """As a tower's tables are paired by it."""
    old, _ = shop
    features = "data.features={kind: {of: item}, price: {of: item, kind: numeric}}"
    with pytest.raises(InputError, match=r"these differ: data\.features"):
        runs.train(
            load_settings("shop.yaml", [features, f"training.warm_start={old.folder}"], "other"), old.folder.parent
        )


def test_numbers_are_scaled_like_those_of_another():
    numeric = FeatureSettings(of="item", kind="numeric")
    old = encode("price", numeric, pl.Series([None, 1.0, 2.0, 6.0]), "old")
    new = encode("price", numeric, pl.Series([None, 2.0, 6.0, 3.0, None, 4.0]), "new", old)
    np.testing.assert_allclose(new.values, (np.array([3, 2, 6, 3, 3, 4]) - 3) / old.scale, rtol=1e-5)
    assert (new.mean, new.scale) == (old.mean, old.scale) == (3, pytest.approx(np.std([1, 2, 6])))
