import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.cooperation.test_corr import ITEMS, LENGTH, batch, values
from tests.towers.test_contract import build
from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.cooperation.two_stage import RankerAlone, RetrieverAlone
from tfcorr.training import epoch_losses

COUNTS = np.arange(1, ITEMS + 1)
SHARES = COUNTS / COUNTS.sum()
ORACLES = {"softmax": oracles.sampled_log_softmax, "bce": lambda target, samples, *_: oracles.binary_cross_entropy(target, samples)}


def every_score(tower, context):
    return tower.score(context, np.tile(np.arange(1, ITEMS + 1), (6, 1))).numpy().astype(float)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("scope", ["example", "batch"])
def test_a_retriever_alone_learns_by_its_loss_over_the_pool(monkeypatch, scope, loss):
    """The loss that is logged is the oracle's, of the scores before the step of the pool that was drawn."""
    tower, (context, target) = build("sasrec", {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH), batch(rows=6)
    settings = SamplerSettings(proposal="popularity", pool=7, pool_scope=scope)
    model = RetrieverAlone(tower, Sampler(settings, COUNTS, tower, seed=2), loss)
    model.compile(optimizer=LazyAdam(0.01))
    drawn, draw = [], model.sampler.popularity.draw
    monkeypatch.setattr(model.sampler.popularity, "draw", lambda *args: drawn.append(draw(*args)) or drawn[0])
    before, scores = values(tower), every_score(tower, context)
    logs = model.train_step((context, target))
    rows = list(zip(scores, target.numpy() - 1, np.broadcast_to(drawn[0], (6, 7)) - 1, strict=True))
    expected = [ORACLES[loss](row[k], row[s], np.log(SHARES[k]), np.log(SHARES[s])) for row, k, s in rows]
    assert float(logs["loss"]) == pytest.approx(np.mean(expected), rel=1e-4)
    assert float(logs["hardness"]) == pytest.approx(np.mean([oracles.hardness(*each) for each in rows]))
    assert any(not np.array_equal(one, other) for one, other in zip(before, values(tower), strict=True))


@pytest.mark.parametrize("negatives", [None, "resample"])
def test_a_ranker_alone_learns_from_the_proposal_or_from_the_frozen_retriever(monkeypatch, negatives):
    ranker, retriever = (build(name, {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH) for name in ("din", "sasrec"))
    context, target = batch(rows=6)
    settings = SamplerSettings(proposal="popularity", pool=7, samples=5, negatives=negatives)
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
            log_q, target_log_q = np.log(SHARES[s]), np.log(SHARES[k])
        else:
            resampled = drawn[0].resampled()
            s, pool = resampled.drawn.samples[row].numpy() - 1, resampled.pool.samples[row].numpy() - 1
            weights = np.exp(of_retriever[row]) / SHARES
            total = weights[k] + weights[pool].sum()
            log_q, target_log_q = np.log(weights[s] * SHARES[s] / total), np.log(weights[k] * SHARES[k] / total)  # of items
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
