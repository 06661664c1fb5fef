"""The final order: its fit against SciPy's, its ranks against the oracle's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from tests import oracles
from tfcorr.evaluation import order as module
from tfcorr.evaluation.metrics import MISSED, ndcg
from tfcorr.evaluation.order import RIDGE, Scored, fit_order, fit_softmax


def lists(users, items, size, seed, short=True):
    """Scores [n, R, S] with minus infinity where a list is shorter, and the targets' columns, which items without a
    score never are."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(users, items, size)).astype(np.float32)
    lengths = rng.integers(2, items + 1, users) if short else np.full(users, items)
    features[np.arange(items) >= lengths[:, None]] = -np.inf
    return features, rng.integers(0, lengths)


def likely(features, weights, seed):
    """Columns drawn from the softmax of the weighted sum."""
    noise = np.random.default_rng(seed).gumbel(size=features.shape[:2])
    with np.errstate(invalid="ignore"):
        return np.argmax(np.where(np.isfinite(features[..., 0]), features @ weights + noise, -np.inf), axis=1)


def loss(weights, features, column):
    """−Σ log softmax(features · w)[column] + ridge / 2 · |w|², list by list."""
    total = RIDGE / 2 * np.sum(weights**2)
    for each, target in zip(features.astype(float), column, strict=True):
        logits = each[np.isfinite(each[:, 0])] @ weights  # the lists end with what is no item
        total += special.logsumexp(logits) - logits[target]
    return total


@pytest.mark.parametrize(("users", "items", "size", "seed"), [(30, 6, 1, 0), (80, 12, 3, 1), (300, 5, 4, 2)])
def test_a_fit_is_that_of_a_general_optimiser(users, items, size, seed, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 70)
    features, column = lists(users, items, size, seed)
    expected = optimize.minimize(loss, np.zeros(size), (features, column), options={"gtol": 1e-6})
    found = fit_softmax(features, column)
    assert found.shape == (size,)
    np.testing.assert_allclose(found, expected.x, atol=5e-3)
    assert loss(found, features, column) == pytest.approx(expected.fun, rel=1e-5)
    assert loss(found, features, column) < loss(np.zeros(size), features, column)


def test_a_fit_recovers_the_weights_that_chose_the_targets():
    """The largest standard error of a weight here is 0.04 by the inverse of the curvature; 0.2 is five of them."""
    features, _ = lists(4_000, 20, 3, seed=3)
    weights = np.array([1.5, -0.7, 0.0])
    found = fit_softmax(features, likely(features, weights, seed=4))
    np.testing.assert_allclose(found, weights, atol=0.2)


def test_a_fit_stays_finite_where_a_score_tells_every_target_from_all_others():
    features, column = lists(50, 8, 2, seed=5)
    features[np.arange(50), column, 0] = 10
    found = fit_softmax(features, column)
    assert np.isfinite(found).all()
    assert found[0] > 0.5


def test_a_score_that_is_another_twice_shares_its_weight():
    features, column = lists(200, 8, 1, seed=6)
    once, twice = fit_softmax(features, column), fit_softmax(np.repeat(features, 2, axis=2), column)
    assert twice[0] == pytest.approx(twice[1], abs=1e-4)
    assert twice.sum() == pytest.approx(once[0], abs=0.02)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ranks_are_the_oracles_with_ties_against_the_target(data):
    """Of scores with many ties, weights of any sign, lists with gaps, and users whose target was not handed on."""
    users, items, missed = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6)), data.draw(st.integers(0, 3))
    drawn = st.lists(st.lists(st.integers(-2, 2), min_size=items, max_size=items), min_size=users, max_size=users)
    scores = {name: np.array(data.draw(drawn), np.float32) for name in ("retriever", "ranker")}
    column = np.array([data.draw(st.integers(0, items - 1)) for _ in range(users)])
    is_item = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=items, max_size=items), min_size=users, max_size=users))
    )
    is_item[np.arange(users), column] = True
    scores = {name: np.where(is_item, each, -np.inf) for name, each in scores.items()}
    weights = {name: data.draw(st.sampled_from([-1.0, 0.0, 0.5, 2.0])) for name in scores}
    ranks = Scored(scores, column, missed).ranks(weights)
    assert ranks.dtype == np.int32
    assert ranks[users:].tolist() == [MISSED] * missed
    for user in range(users):
        candidates = np.flatnonzero(is_item[user]).tolist()
        total = sum(weight * np.where(is_item[user], scores[name][user], 0) for name, weight in weights.items())
        assert ranks[user] == oracles.rank(column[user], total, candidates)


def test_a_score_that_is_no_number_counts_against_the_target_as_in_every_stage():
    retrieved = np.array([[3.0, 2.0, 1.0, -np.inf]], np.float32)
    wrong = np.array([[np.nan, np.nan, np.nan, -np.inf]], np.float32)
    assert Scored({"retriever": retrieved, "ranker": wrong}, np.array([1]), 0).ranks({"ranker": 1.0}).tolist() == [3]
    partly = np.array([[np.nan, 2.0, 1.0, -np.inf]], np.float32)
    assert Scored({"retriever": retrieved, "ranker": partly}, np.array([1]), 0).ranks({"ranker": 1.0}).tolist() == [2]


def scored(seed, weights, users=300, missed=20, scales=(1.0, 1.0, 1.0)):
    """What three stages and a term score of lists whose targets were chosen by a weighted sum of these."""
    features, _ = lists(users, 15, 4, seed)
    column = likely(features, np.array(weights), seed + 1)
    names = ["retriever", "middle_1", "ranker", "ranker_counts"]
    return Scored(
        {name: features[..., place] * (*scales, 1.0)[place] for place, name in enumerate(names)}, column, missed
    )


STAGES = ["retriever", "middle_1", "ranker"]


@pytest.mark.parametrize(
    "weights", [(1.0, 0.5, 1.0, 0.3), (0.0, 0.0, 3.0, 0.0), (0.0, 0.0, 0.0, 0.0), (5.0, 0.0, -1.0, 0.0)]
)
@pytest.mark.parametrize("seed", range(4))
def test_on_what_it_is_fitted_on_it_ranks_no_worse_than_any_stage(seed, weights):
    given_scores = scored(seed, weights)
    order = fit_order(given_scores, STAGES, k=3)
    alone = {stage: ndcg(given_scores.ranks({stage: 1.0}), 3).mean() for stage in STAGES}
    found = ndcg(given_scores.ranks(order.weights), 3).mean()
    assert found >= max(alone.values())
    assert {stage: order.ndcg[stage] for stage in STAGES} == pytest.approx(alone)
    assert found == pytest.approx(max(order.ndcg.values()))
    assert order.weights.keys() <= given_scores.scores.keys()


def test_what_every_stage_knows_of_is_weighed_together():
    """Of independent scores that all tell, the sum ranks much better than any; the weights are those by which targets
    were drawn."""
    given_scores = scored(0, (1.0, 1.0, 1.0, 0.5), users=4_000)
    order = fit_order(given_scores, STAGES, k=10)
    assert order.ndcg["cascade"] > 1.1 * max(order.ndcg[stage] for stage in STAGES)
    np.testing.assert_allclose(list(order.weights.values()), (1.0, 1.0, 1.0, 0.5), atol=0.2)


def test_where_the_fit_ranks_worse_the_best_stage_alone_is_the_order(monkeypatch):
    monkeypatch.setattr("tfcorr.evaluation.order.fit_softmax", lambda features, column: -np.ones(features.shape[-1]))
    order = fit_order(scored(0, (0.0, 4.0, 0.0, 0.0)), STAGES, k=3)
    assert order.weights == {"middle_1": 1.0}
    assert order.ndcg["cascade"] < order.ndcg["middle_1"]


def test_a_scores_scale_changes_its_weight_and_no_rank():
    one, other = scored(2, (1.0, 0.5, 1.0, 0.3)), scored(2, (1.0, 0.5, 1.0, 0.3), scales=(0.01, 1.0, 100.0))
    orders = [fit_order(each, STAGES, k=3) for each in (one, other)]
    for stage, scale in zip(STAGES, (0.01, 1.0, 100.0), strict=True):
        assert orders[1].weights[stage] * scale == pytest.approx(orders[0].weights[stage], rel=0.01, abs=1e-3)
        assert orders[1].scales[stage] == pytest.approx(orders[0].scales[stage] * scale, rel=1e-3)
    np.testing.assert_array_equal(one.ranks(orders[0].weights), other.ranks(orders[1].weights))


def test_a_scale_is_the_mean_deviation_within_a_list():
    given_scores = scored(3, (1.0, 0.5, 1.0, 0.3))
    order = fit_order(given_scores, STAGES, k=3)
    for name, scores in given_scores.scores.items():
        assert order.scales[name] == pytest.approx(np.mean([np.std(row[np.isfinite(row)]) for row in scores]), rel=1e-4)


def test_a_score_that_is_the_same_for_all_has_no_say():
    given_scores = scored(1, (2.0, 0.0, 0.0, 0.0))
    is_item = np.isfinite(given_scores.scores["ranker"])
    given_scores.scores["ranker"] = np.where(is_item, np.float32(7), -np.inf).astype(np.float32)
    order = fit_order(given_scores, STAGES, k=3)
    assert order.scales["ranker"] == 1
    assert order.weights.get("ranker", 0) == pytest.approx(0, abs=1e-6)
    assert order.ndcg["ranker"] <= order.ndcg["cascade"]


def test_where_no_target_was_handed_on_there_is_an_order_all_the_same():
    nothing = Scored({name: np.zeros((0, 15), np.float32) for name in STAGES}, np.zeros(0, np.int64), missed=9)
    order = fit_order(nothing, STAGES, k=3)
    assert list(order.weights.values()) == [1.0]
    assert order.weights.keys() <= set(STAGES)
    assert order.ndcg == dict.fromkeys(STAGES, 0.0)
    assert order.scales == dict.fromkeys(STAGES, 1.0)
    assert nothing.ranks(order.weights).tolist() == [MISSED] * 9


def test_a_tower_that_diverged_is_not_the_order_and_no_measure_is_infinite():
    """Scores that are no numbers put every target last, so the order is another stage's."""
    given_scores = scored(1, (2.0, 0.0, 0.0, 0.0))
    given_scores.scores["ranker"] = np.where(np.isfinite(given_scores.scores["ranker"]), np.nan, -np.inf).astype(
        np.float32
    )
    order = fit_order(given_scores, STAGES, k=3)
    assert all(np.isfinite(value) and value <= 1 for value in order.ndcg.values())
    assert np.isfinite(list(order.weights.values())).all()
    assert ndcg(given_scores.ranks(order.weights), 3).mean() >= order.ndcg["retriever"]


def test_a_stage_that_ranks_best_may_have_a_score_that_is_none():
    scores = np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (9, 1))
    scores[0, 2] = np.nan
    scored = Scored({"retriever": scores, "ranker": -np.nan_to_num(scores)}, np.zeros(9, np.int64), 0)
    found = fit_order(scored, {"retriever": np.ones(9, np.int32), "ranker": np.full(9, 3, np.int32)}, 20)
    assert found.scales.keys() >= found.weights.keys()
