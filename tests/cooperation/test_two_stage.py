import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.cooperation.test_corr import ITEMS, LENGTH, RECENT, batch, values
from tests.cooperation.test_sampling import CORRECTIONS
from tests.towers.test_contract import build
from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.cooperation.two_stage import RankerAlone, RetrieverAlone
from tfcorr.training import epoch_losses

COUNTS = np.arange(1, ITEMS + 1)
SHARES = COUNTS / COUNTS.sum()
ORACLES = {
    "softmax": oracles.sampled_log_softmax,
    "bce": lambda target, samples, *_: oracles.binary_cross_entropy(target, samples),
}


def every_score(tower, context):
    return tower.score(context, np.tile(np.arange(1, ITEMS + 1), (6, 1))).numpy().astype(float)


@pytest.mark.parametrize(("loss", "correction"), [*itertools.product(["softmax"], CORRECTIONS), ("bce", "item")])
@pytest.mark.parametrize("scope", ["example", "batch"])
def test_a_retriever_alone_learns_by_its_loss_over_the_pool(monkeypatch, scope, loss, correction):
    """The loss that is logged is the oracle's, of the scores before the step of the pool that was drawn."""
    tower, (context, target) = build("sasrec", {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH), batch(rows=6)
    settings = SamplerSettings(proposal="popularity", pool=7, pool_scope=scope, correction=correction)
    model = RetrieverAlone(tower, Sampler(settings, COUNTS, tower, seed=2), loss)
    model.compile(optimizer=LazyAdam(0.01))
    drawn, draw = [], model.sampler.popularity.draw
    monkeypatch.setattr(model.sampler.popularity, "draw", lambda *args: drawn.append(draw(*args)) or drawn[0])
    before, scores = values(tower), every_score(tower, context)
    logs = model.train_step((context, target))
    rows = list(zip(scores, target.numpy() - 1, np.broadcast_to(drawn[0], (6, 7)) - 1, strict=True))
    assert any(k in s for _, k, s in rows)  # so some pools have hits
    log_q = [oracles.log_q(SHARES, k, 7, correction) for _, k, _ in rows]
    expected = [ORACLES[loss](row[k], row[s], q[0], q[1][s]) for (row, k, s), q in zip(rows, log_q, strict=True)]
    log_loss = [oracles.log_loss(row, k, s, SHARES[s]) for row, k, s in rows]
    assert float(logs["log_loss"]) == pytest.approx(np.mean(log_loss), rel=1e-4)
    assert float(logs["loss"]) == pytest.approx(np.mean(expected), rel=1e-4)
    assert float(logs["hardness"]) == pytest.approx(np.mean([oracles.hardness(*each) for each in rows]))
    assert any(not np.array_equal(one, other) for one, other in zip(before, values(tower), strict=True))


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_a_retriever_alone_learns_by_its_loss_over_all_items(loss):
    """By the softmax it is computed, and by the other of all items but the target, in whose place nothing is."""
    tower, (context, target) = build("sasrec", {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH), batch(rows=6)
    model = RetrieverAlone(tower, Sampler(SamplerSettings(pool="all"), COUNTS, tower, seed=2), loss)
    model.compile(optimizer=LazyAdam(0.01))
    scores = every_score(tower, context)
    logs = {name: float(value) for name, value in model.train_step((context, target)).items()}
    others = [np.delete(np.arange(ITEMS), k) for k in target.numpy() - 1]
    rows = list(zip(scores, target.numpy() - 1, others, strict=True))
    full = np.mean([oracles.full_log_softmax(row, k) for row, k, _ in rows])
    bce = np.mean([oracles.binary_cross_entropy(row[k], np.array([*row[s], -700.0])) for row, k, s in rows])
    assert logs["loss"] == pytest.approx(full if loss == "softmax" else bce, rel=1e-4)
    assert logs["log_loss"] == pytest.approx(full, rel=1e-4)
    if loss == "softmax":
        assert logs["hardness"] == pytest.approx(np.mean([oracles.hardness(*each) for each in rows]))


@pytest.mark.parametrize(
    ("negatives", "correction"), [(None, "hits-removed"), *itertools.product(["resample"], CORRECTIONS)]
)
def test_a_ranker_alone_learns_from_the_proposal_or_from_the_frozen_retriever(monkeypatch, negatives, correction):
    ranker, retriever = (
        build("din", RECENT | {"dropout": 0.0}, ITEMS, LENGTH),
        build("sasrec", {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH),
    )
    context, target = batch(rows=6)
    settings = SamplerSettings(
        proposal="popularity", pool=7, pool_scope="example", samples=5, negatives=negatives, correction=correction
    )
    model = RankerAlone(ranker, Sampler(settings, COUNTS, retriever, seed=2), "softmax", retriever)
    model.compile(optimizer=LazyAdam(0.01))
    drawn, source = [], model.sampler.source

    def spied(query, target, resampled, rank):
        made = source(query, target, resampled, rank)
        drawn.append(made)
        return made

    monkeypatch.setattr(model.sampler, "source", spied)
    names = []
    draw = model.sampler.popularity.draw
    monkeypatch.setattr(model.sampler.popularity, "draw", lambda *args: names.append(draw(*args)) or names[-1])
    frozen, scores, of_retriever = values(retriever), every_score(ranker, context), every_score(retriever, context)
    logs = model.train_step((context, target))
    expected, hardness = [], []
    for row, k in enumerate(target.numpy() - 1):
        if negatives is None:
            s = names[0].numpy()[row] - 1
            s = s[s != k]  # hits are removed
            log_q, target_log_q = np.log(SHARES[s]), np.log(SHARES[k])
        else:
            resampled = drawn[0].resampled()
            s, pool = resampled.drawn.samples[row].numpy() - 1, resampled.pool.items[row].numpy() - 1
            _, q = oracles.resampling(k, list(pool), of_retriever[row], 7 * SHARES, 1.0, correction)
            target_log_q, of_samples = oracles.log_q(q, k, 5, correction)
            log_q = of_samples[s]
        expected.append(oracles.sampled_log_softmax(scores[row][k], scores[row][s], target_log_q, log_q))
        hardness.append(oracles.hardness(scores[row], k, s))
    assert float(logs["loss"]) == pytest.approx(np.mean(expected), rel=1e-3)
    assert float(logs["hardness"]) == pytest.approx(np.mean(hardness))
    for one, other in zip(frozen, values(retriever), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rankers_auxiliary_loss_is_minimised_too():
    moved = []
    for weight in (0.0, 1.0):
        tf.keras.utils.set_random_seed(0)
        ranker = build("dien", {"dim": 8, "dropout": 0.0, "auxiliary": weight}, ITEMS, LENGTH)
        model = RankerAlone(ranker, Sampler(SamplerSettings(samples=5), COUNTS, None, seed=2), "softmax", None)
        model.compile(optimizer=LazyAdam(0.01))
        logs = model.train_step(batch())
        moved.append((float(logs["loss"]), values(ranker)))
    assert moved[0][0] == moved[1][0]  # the loss over candidates is logged by itself
    assert any(not np.allclose(one, other) for one, other in zip(moved[0][1], moved[1][1], strict=True))


def test_negatives_without_a_probability_give_no_log_loss_over_all_items():
    ranker, retriever = (build(name, {"dim": 8}, ITEMS, LENGTH) for name in ("din", "sasrec"))
    for negatives, named in (("ltop", {"loss", "hardness"}), ("resample", {"loss", "log_loss", "hardness"})):
        sampler = Sampler(SamplerSettings(pool=7, samples=5, negatives=negatives), COUNTS, retriever, seed=2)
        model = RankerAlone(ranker, sampler, "softmax", retriever)
        model.compile(optimizer=LazyAdam(0.01))
        assert set(model.train_step(batch(rows=6))) == named
    assert epoch_losses({"loss": 0.25, "hardness": 0.5}) == "loss 0.250"
    assert epoch_losses({"loss": 0.25, "log_loss": 3.5}) == "log-loss 3.500"
