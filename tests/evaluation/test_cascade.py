from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.towers.test_contract import build
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.histories import Histories
from tfcorr.evaluation import evaluate, index
from tfcorr.evaluation.cascade import Cascade, all_item_vectors, is_among
from tfcorr.evaluation.evaluate import metrics_by_stage, rank_batch, rank_users
from tfcorr.evaluation.metrics import MISSED

ITEMS, LENGTH = 30, 4


def towers():
    return build("sasrec", items=ITEMS, length=LENGTH), build("din", items=ITEMS, length=LENGTH)


def histories(users=40, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 12, size=users)
    items = rng.integers(1, ITEMS + 1, size=lengths.sum()).astype(np.int32)
    return Histories([f"u{u}" for u in range(users)], items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def test_is_among():
    ids, others = tf.constant([[1, 5, 0], [2, 2, 9]]), tf.constant([[5, 0], [9, 3]])
    assert is_among(ids, others).numpy().tolist() == [[False, True, True], [False, False, True]]
    assert not is_among(ids, tf.zeros([2, 0], tf.int32)).numpy().any()


@pytest.mark.parametrize("kind", ["exact", "scann"])
@pytest.mark.parametrize("count", [1, 7, 30, 45])
def test_an_index_finds_the_largest_inner_products(kind, count):
    rng = np.random.default_rng(1)
    vectors, queries = rng.normal(size=(ITEMS, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    ids, scores = index.build_index(kind, tf.constant(vectors)).search(tf.constant(queries), tf.constant(count))
    expected = queries @ vectors.T
    assert ids.shape == (3, min(count, ITEMS))
    np.testing.assert_array_equal(ids, np.argsort(-expected, axis=1)[:, :count] + 1)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :count], rtol=1e-4, atol=1e-5)


def test_the_exact_index_finds_the_same_whatever_its_block(monkeypatch):
    rng = np.random.default_rng(1)
    vectors, queries = tf.constant(rng.normal(size=(ITEMS, 5)), tf.float32), tf.constant(rng.normal(size=(3, 5)), tf.float32)
    whole = index.ExactIndex(vectors).search(queries, tf.constant(12))
    monkeypatch.setattr(index, "BLOCK", 7)
    for found, expected in zip(tf.function(index.ExactIndex(vectors).search)(queries, tf.constant(12)), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_scann_tree_that_finds_too_few_leaves_places_empty(monkeypatch):
    """ScaNN answers NaN and item 0 where the leaves searched hold fewer items than asked for."""
    monkeypatch.setattr(index, "SMALL", 0)
    monkeypatch.setattr(index, "LEAVES_SEARCHED", 0.1)
    rng = np.random.default_rng(1)
    vectors = tf.constant(rng.normal(size=(300, 5)), tf.float32)
    ids, scores = index.ScannIndex(vectors).search(vectors[:3], tf.constant(200))
    assert (ids.numpy() == 0).any()
    np.testing.assert_array_equal(np.isneginf(scores), ids.numpy() == 0)
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_every_users_rank_is_the_oracles(exclude_seen, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 7)
    retriever, ranker = towers()
    data, size = histories(), 10
    cascade = Cascade({"retriever": retriever, "ranker": ranker}, index.ExactIndex(all_item_vectors(retriever, ITEMS)), [size])
    batches = evaluation_batches(data, "test", LENGTH, batch_size=7)
    ranks = rank_users(rank_batch(cascade, batches.element_spec, exclude_seen, ranker_alone=True), batches)
    everything = np.arange(1, ITEMS + 1, dtype=np.int32)
    pasts = [data.items[start : end - 1].tolist() for start, end in pairwise(data.offsets)]
    context = {"history": tf.constant([past[-LENGTH:] for past in pasts])}
    of_all = [tower.score(context, np.tile(everything, (len(pasts), 1))).numpy() for tower in (retriever, ranker)]
    for user, past in enumerate(pasts):
        target = data.items[data.offsets[user + 1] - 1]
        m, r = (np.concatenate([[np.nan], scores[user]]) for scores in of_all)
        allowed = [item for item in everything if not exclude_seen or item not in past or item == target]
        retrieved = sorted(allowed, key=lambda item: -m[item])[:size]
        found = target in retrieved
        assert ranks["ranker"][user] == oracles.rank(target, r, allowed)
        assert ranks["retriever"][user] == (oracles.rank(target, m, allowed) if found else MISSED)
        assert ranks["cascade"][user] == (oracles.rank(target, r, retrieved) if found else MISSED)
    assert (ranks["cascade"] == MISSED).any()
    assert (ranks["cascade"] != ranks["retriever"]).any()


def test_excluded_items_never_come_back_even_if_few_remain():
    retriever, ranker = towers()
    cascade = Cascade({"retriever": retriever, "ranker": ranker}, index.ExactIndex(all_item_vectors(retriever, ITEMS)), [20])
    context = {"history": tf.constant([[1, 2, 3, 4]])}
    exclude = tf.constant([[item for item in range(1, ITEMS + 1) if item not in (5, 9)]])
    ranked = cascade.run(context, exclude)["cascade"]
    assert sorted(ranked.ids[0].numpy()[:2]) == [5, 9]
    assert (ranked.ids[0, 2:].numpy() == 0).all()
    assert np.isneginf(ranked.scores[0, 2:]).all()


def test_the_retrievers_recall_at_the_cascades_size_is_the_ceiling():
    ranks = {"retriever": np.array([1, 7, MISSED], np.int32), "cascade": np.array([2, 1, MISSED], np.int32)}
    table = metrics_by_stage(ranks, [1], {"retriever": 10})
    assert table["retriever"]["recall@10"] == pytest.approx(2 / 3)
    assert table["cascade"]["recall@1"] == pytest.approx(1 / 3)
