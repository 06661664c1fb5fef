import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfcorr.evaluation.metrics import MISSED, mrr, ndcg, ranks_of, recall, summarise


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(-3, 3))
@settings(max_examples=80, deadline=None)
def test_rank_counts_ties_against_the_target(others, score):
    scores = np.array([score, *others], np.float32)
    rank = ranks_of(tf.constant([scores[0]]), tf.constant([scores[1:]]))
    assert rank.numpy()[0] == oracles.rank(0, scores, list(range(len(scores))))


def test_rank_passes_over_places_without_a_candidate():
    assert ranks_of(tf.constant([0.0]), tf.constant([[-np.inf, 1.0, -np.inf]])).numpy().tolist() == [2]
    assert ranks_of(tf.constant([-np.inf]), tf.constant([[-np.inf, 1.0, -np.inf]])).numpy().tolist() == [2]


def test_a_score_that_is_no_number_is_the_last():
    assert ranks_of(tf.constant([np.nan]), tf.constant([[1.0, -np.inf, -3.0]])).numpy().tolist() == [3]
    assert ranks_of(tf.constant([0.0]), tf.constant([[np.nan, -1.0]])).numpy().tolist() == [2]


def test_metrics_by_hand():
    ranks = np.array([1, 2, 5, 6, MISSED], np.int32)
    assert ndcg(ranks, 5).tolist() == [1.0, 1 / math.log2(3), 1 / math.log2(6), 0.0, 0.0]
    assert recall(ranks, 5).tolist() == [1, 1, 1, 0, 0]
    assert mrr(ranks, 5).tolist() == [1.0, 0.5, 0.2, 0.0, 0.0]
    assert summarise(ranks, [2, 5])["recall@5"] == pytest.approx(0.6)
    assert set(summarise(ranks, [2, 5])) == {f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in (2, 5)}
