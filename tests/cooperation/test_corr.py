import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tests import oracles
from tests.towers.test_contract import adam, build, context_of
from tfcorr.cooperation.corr import CoRR
from tfcorr.cooperation.joint import LOGGED
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings

ITEMS, LENGTH = 12, 4
RECENT = {
    "dim": 8,
    "attention": (128, 64),
    "mlp": (128, 64, 64),
    "recency": True,
    "activation": "relu",
    "item_dropout": 0.0,
    "products": False,
    "inner": False,
}


def cooperation(kl_weight=1.0, scope="example", dropout=0.0, pool=8, samples=5, correction="hits-removed"):
    tf.keras.utils.set_random_seed(0)  # equal calls give equal towers
    retriever = build("sasrec", {"dim": 8, "dropout": dropout}, ITEMS, LENGTH)
    ranker = build("din", {**RECENT, "dropout": dropout}, ITEMS, LENGTH)
    settings = SamplerSettings(pool=pool, samples=samples, pool_scope=scope, correction=correction)
    model = CoRR(
        retriever, ranker, Sampler(settings, np.ones(ITEMS, np.int64), retriever, seed=5), "softmax", kl_weight
    )
    model.compile(optimizer={"retriever": adam(retriever), "ranker": adam(ranker)})
    return model


def batch(rows=32, seed=0):
    rng = np.random.default_rng(seed)
    history = rng.integers(1, ITEMS + 1, size=(rows, LENGTH)).astype(np.int32)
    return context_of(history, np.zeros(rows, np.int32)), tf.constant((history[:, -1] % ITEMS + 1).astype(np.int32))


def values(tower):
    return [variable.numpy() for variable in tower.trainable_variables]


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_distillation_moves_the_retriever_and_never_the_ranker(scope):
    with_kl, without = cooperation(1.0, scope), cooperation(0.0, scope)
    for model in (with_kl, without):
        model.train_step(batch())
    for one, other in zip(values(with_kl.ranker), values(without.ranker), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(
        not np.allclose(one, other)
        for one, other in zip(values(with_kl.retriever), values(without.retriever), strict=True)
    )


@pytest.mark.parametrize(
    ("scope", "correction"),
    [("example", "hits-removed"), ("batch", "hits-removed"), ("example", "item"), ("example", "paper")],
)
def test_every_logged_number_of_a_step_is_the_oracles(monkeypatch, scope, correction):
    """From the towers' scores before the step, the pool and the samples that it drew; log_q is found anew from
    these."""
    model, (context, target) = cooperation(scope=scope, correction=correction), batch(rows=6)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (6, 1))
    m = model.retriever.score(context, ids).numpy().astype(float)
    r = model.ranker.score(context, ids).numpy().astype(float)
    drawn, resample = {}, model.sampler.resample
    monkeypatch.setattr(model.sampler, "resample", lambda *args: drawn.setdefault("resampled", resample(*args)))
    logs = {name: float(value) for name, value in model.train_step((context, target)).items()}
    pools, counts = drawn["resampled"].pool.items.numpy() - 1, np.full(ITEMS, 8 / ITEMS)
    expected = {name: [] for name in (*LOGGED, "kl")}
    for row, k in enumerate(target.numpy() - 1):
        shares, q = oracles.resampling(k, list(pools[row]), m[row], counts, 1.0, correction)
        of_target, of_samples = oracles.log_q(q, k, 5, correction)
        s = drawn["resampled"].drawn.samples[row].numpy() - 1
        for name, scores in (("loss_retriever", m[row]), ("loss_ranker", r[row])):
            expected[name].append(oracles.sampled_log_softmax(scores[k], scores[s], of_target, of_samples[s]))
        expected["kl"].append(oracles.sampled_kl(r[row][s], m[row][s], of_samples[s]))
        expected["log_loss_retriever"].append(oracles.log_loss(m[row], k, pools[row], counts[pools[row]] / 8))
        expected["log_loss_ranker"].append(oracles.log_loss(r[row], k, s, q[s]))
        expected["effective_sample_size"].append(1 / np.sum(shares**2))
        expected["target_share"].append(np.mean(s == k))
        expected["hardness"].append(oracles.hardness(r[row], k, s))
    if correction == "paper":
        assert logs["loss_retriever"] == pytest.approx(np.log(6), rel=1e-5)
        del expected["log_loss_ranker"]  # its log_q is of positions
    if correction == "hits-removed":
        assert logs["loss_retriever"] == pytest.approx(logs["log_loss_retriever"], rel=1e-4)
    for name, each in expected.items():
        assert logs[name] == pytest.approx(np.mean(each), rel=1e-3), name


def test_with_a_pool_of_all_items_the_retrievers_loss_is_the_full_one_and_moves_no_ranker():
    model, (context, target) = cooperation(pool="all", kl_weight=0.7), batch(rows=6)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (6, 1))
    m = model.retriever.score(context, ids).numpy().astype(float)
    expected = np.mean([oracles.full_log_softmax(row, k) for row, k in zip(m, target.numpy() - 1, strict=True)])
    logs = model.train_step((context, target))
    assert float(logs["loss_retriever"]) == pytest.approx(expected, rel=1e-4)
    assert float(logs["log_loss_retriever"]) == pytest.approx(expected, rel=1e-4)
    assert float(logs["target_share"]) == 0


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_the_cooperation_learns_a_cyclic_catalogue(scope):
    model = cooperation(scope=scope, dropout=0.1)
    assert isinstance(model, tfrs.Model)
    context, target = batch(2000)
    data = tf.data.Dataset.from_tensor_slices((context, target)).shuffle(2000, seed=1).batch(100)
    history = model.fit(data, epochs=7, verbose=0).history
    assert set(history) == {*LOGGED, "kl"}
    assert history["log_loss_retriever"][-1] < history["log_loss_retriever"][0] / 2
    context, target = batch(200, seed=9)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (200, 1))
    for tower in (model.retriever, model.ranker):
        assert np.mean(np.argmax(tower.score(context, ids), axis=1) + 1 == target.numpy()) > 0.9


def test_one_seed_gives_one_training():
    first, second = cooperation(dropout=0.3), cooperation(dropout=0.3)
    for model in (first, second):
        for step in range(3):
            model.train_step(batch(seed=step))
    for one, other in zip(values(first), values(second), strict=True):
        np.testing.assert_array_equal(one, other)
