from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.towers.test_contract import build
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.histories import Histories
from tfcorr.evaluation import evaluate, index
from tfcorr.evaluation.cascade import Candidates, Cascade, all_item_vectors, is_among, terms_in_chunks
from tfcorr.evaluation.evaluate import metrics_by_stage, rank_batch, rank_users, score_batch, score_users
from tfcorr.evaluation.metrics import MISSED

ITEMS, LENGTH = 30, 4


def towers(counts=False):
    told = {"dim": 8, "counts": {}} if counts else {"dim": 8}
    return build("sasrec", items=ITEMS, length=LENGTH), build("din", told, ITEMS, LENGTH)


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
    vectors, queries = (
        tf.constant(rng.normal(size=(ITEMS, 5)), tf.float32),
        tf.constant(rng.normal(size=(3, 5)), tf.float32),
    )
    whole = index.ExactIndex(vectors).search(queries, tf.constant(12))
    monkeypatch.setattr(index, "BLOCK", 7)
    for found, expected in zip(
        tf.function(index.ExactIndex(vectors).search)(queries, tf.constant(12)), whole, strict=True
    ):
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


ORDERS = [None, {"retriever": 2.0, "ranker": 1.0}, {"retriever": 0.0, "ranker": -0.5, "ranker_counts": 3.0}]


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_every_users_rank_is_the_oracles(exclude_seen, order, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 7)
    retriever, ranker = towers(counts=order is not None and "ranker_counts" in order)
    data, size = histories(), 10
    cascade = Cascade(
        {"retriever": retriever, "ranker": ranker}, index.ExactIndex(all_item_vectors(retriever, ITEMS)), [size], order
    )
    assert cascade.stages == ("retriever", "ranker", "cascade")
    batches = evaluation_batches(data, "test", LENGTH, batch_size=7)
    ranks = rank_users(rank_batch(cascade, batches.element_spec, exclude_seen, ranker_alone=True), batches)
    assert list(ranks) == ["retriever", "ranker", "cascade", "ranker_alone"]
    everything = np.arange(1, ITEMS + 1, dtype=np.int32)
    pasts = [data.items[start : end - 1].tolist() for start, end in pairwise(data.offsets)]
    context = {"history": tf.constant([past[-LENGTH:] for past in pasts])}
    candidates = np.tile(everything, (len(pasts), 1))
    of_all = {"retriever": retriever.score(context, candidates), "ranker": ranker.score(context, candidates)}
    of_all |= {f"ranker_{name}": each for name, each in ranker.terms(context, candidates).items()}
    for user, past in enumerate(pasts):
        target = data.items[data.offsets[user + 1] - 1]
        of_user = {name: np.concatenate([[np.nan], scores[user]]) for name, scores in of_all.items()}
        of_user["cascade"] = sum(weight * of_user[name] for name, weight in (order or {"ranker": 1.0}).items())
        allowed = [item for item in everything if not exclude_seen or item not in past or item == target]
        retrieved = sorted(allowed, key=lambda item: -of_user["retriever"][item])[:size]
        assert ranks["ranker_alone"][user] == oracles.rank(target, of_user["ranker"], allowed)
        for stage in cascade.stages:
            assert ranks[stage][user] == (
                oracles.rank(target, of_user[stage], retrieved) if target in retrieved else MISSED
            )
    assert (ranks["cascade"] == MISSED).any()
    assert (ranks["cascade"] != ranks["retriever"]).any()
    assert (ranks["cascade"] != ranks["ranker"]).any() == (order is not None)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_what_is_scored_for_an_order_that_is_to_be_fitted_is_what_is_ranked_by_it(exclude_seen):
    """In a cascade of three, of which the last has a term more, any order's ranks are those that it has as the
    cascade's own."""
    retriever, ranker = towers(counts=True)
    made = {"retriever": retriever, "middle_1": build("gru4rec", items=ITEMS, length=LENGTH), "ranker": ranker}
    order = {"retriever": 1.0, "middle_1": -1.0, "ranker": 0.5, "ranker_counts": 2.0}
    cascade = Cascade(made, index.ExactIndex(all_item_vectors(retriever, ITEMS)), [20, 12], order)
    batches = evaluation_batches(histories(), "validation", LENGTH, batch_size=7)
    ranks = rank_users(rank_batch(cascade, batches.element_spec, exclude_seen), batches)
    found, scored = score_users(score_batch(cascade, batches.element_spec, exclude_seen), batches)
    assert list(found) == ["retriever", "middle_1", "ranker"]
    for stage, each in found.items():
        np.testing.assert_array_equal(np.sort(each), np.sort(ranks[stage]))
    assert scored.missed == np.count_nonzero(ranks["ranker"] == MISSED) > 0
    assert list(scored.scores) == ["retriever", "middle_1", "ranker", "ranker_counts"]
    for weights, stage in ((order, "cascade"), ({"ranker": 1.0}, "ranker")):
        np.testing.assert_array_equal(np.sort(scored.ranks(weights)), np.sort(ranks[stage]))
    assert (ranks["cascade"] != ranks["ranker"]).any()
    last = rank_users(rank_batch(cascade, batches.element_spec, exclude_seen, last="middle_1"), batches)
    assert list(last) == ["retriever", "middle_1"]
    for stage, each in last.items():
        np.testing.assert_array_equal(each, ranks[stage])


def test_scores_and_their_terms_are_the_same_whatever_the_chunk(monkeypatch):
    _, ranker = towers(counts=True)
    context = {"history": tf.constant([[0, 1, 2, 3], [4, 5, 6, 7]])}
    candidates = tf.constant(np.random.default_rng(2).integers(1, ITEMS + 1, (2, 11)).astype(np.int32))
    whole = ranker.terms(context, candidates)
    monkeypatch.setattr("tfcorr.evaluation.cascade.PAIRS", 30)  # three candidates at once
    for made in (terms_in_chunks, tf.function(terms_in_chunks, autograph=False)):
        found = made(ranker, context, candidates)
        assert list(found) == ["score", "counts"]
        for name, each in found.items():
            np.testing.assert_allclose(each, whole[name], rtol=1e-5, atol=1e-6)


def test_the_best_by_a_score_keep_all_their_scores():
    ids = tf.constant([[4, 5, 6, 0]])
    handed = Candidates(ids, {"retriever": tf.constant([[3.0, 2.0, 1.0, -np.inf]])}).scored(
        ranker=tf.constant([[1.0, 3.0, 2.0, 9.0]])
    )
    best = handed.best("ranker", 2)
    assert best.ids.numpy().tolist() == [[5, 6]]
    assert {name: each.numpy().tolist() for name, each in best.scores.items()} == {
        "retriever": [[2.0, 1.0]],
        "ranker": [[3.0, 2.0]],
    }
    assert handed.best("ranker", 9).ids.numpy().tolist() == [
        [5, 6, 4, 0]
    ]  # what is no item stays the last, whatever was scored there


@pytest.mark.parametrize("order", [None, {"retriever": -1.0, "ranker": 0.0}])
def test_excluded_items_never_come_back_even_if_few_remain(order):
    retriever, ranker = towers()
    cascade = Cascade(
        {"retriever": retriever, "ranker": ranker}, index.ExactIndex(all_item_vectors(retriever, ITEMS)), [20], order
    )
    context = {"history": tf.constant([[1, 2, 3, 4]])}
    exclude = tf.constant([[item for item in range(1, ITEMS + 1) if item not in (5, 9)]])
    for stage, found in cascade.run(context, exclude).items():
        ranked = found.best(stage, 20)
        assert sorted(ranked.ids[0].numpy()[:2]) == [5, 9]
        assert (ranked.ids[0, 2:].numpy() == 0).all()
        for scores in ranked.scores.values():
            assert np.isneginf(scores[0, 2:]).all()


def test_the_retrievers_recall_at_the_cascades_size_is_the_ceiling():
    ranks = {"retriever": np.array([1, 7, MISSED], np.int32), "cascade": np.array([2, 1, MISSED], np.int32)}
    table = metrics_by_stage(ranks, [1], {"retriever": 10})
    assert table["retriever"]["recall@10"] == pytest.approx(2 / 3)
    assert table["cascade"]["recall@1"] == pytest.approx(1 / 3)
