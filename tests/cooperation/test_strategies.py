"""Each strategy against its definition: equal where it draws nothing at random, by a chi-square test where it does."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests import oracles
from tests.cooperation.test_sampling import FALSE_ALARM, every_correction
from tfcorr.cooperation.losses import NEVER
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.cooperation.strategies import DISTILLATION, GLOBAL, NEGATIVES, UNCORRECTED, negatives_of
from tfcorr.evaluation.index import SnapshotIndex
from tfcorr.settings import InputError

ITEMS, ROWS, L = 12, 3000, 4
COUNTS = np.array([40, 30, 20, 10, 9, 8, 7, 6, 5, 3, 1, 0])
M = np.random.default_rng(1).normal(size=ITEMS).astype(np.float32)  # the retriever's scores, the same for every context
R = np.random.default_rng(2).normal(size=ITEMS).astype(np.float32)  # the ranker's
ORDER = np.argsort(-M) + 1


class Scored:
    """A retriever whose context is one number, 1, and whose item vectors are M."""

    def item_vectors(self, ids):
        return tf.gather(tf.constant([0.0, *M]), ids)[..., None]

    def match(self, query, target, others):
        of_item = tf.constant([0.0, *M])
        scores = tf.gather(of_item, tf.broadcast_to(others, [tf.shape(target)[0], tf.shape(others)[-1]]))
        return tf.gather(of_item, target), scores


def drawn_by(name, registry=NEGATIVES, **settings):
    """The draws of a strategy for ROWS equal contexts with targets that vary, and its source."""
    target = tf.constant(np.arange(ROWS) % 3 + 1, tf.int32)
    index = SnapshotIndex(lambda: tf.constant(M[:, None]))
    settings = SamplerSettings(
        **{"pool": 8, "pool_scope": "example", "samples": L, "top": 5, "local_top": 3, **settings}
    )
    sampler = Sampler(settings, COUNTS, Scored(), seed=4, best=index.best)
    query = tf.ones([ROWS, 1])
    resampled = sampler.resample(query, target)
    source = sampler.source(
        lambda: query, target, lambda: resampled, lambda ids: tf.gather(tf.constant([0.0, *R]), ids)
    )
    return registry[name](source), resampled, target.numpy()


def is_drawn_from(samples, shares):
    """Whether all samples [B, L] may come from the shares [ITEMS]; items of no share never come."""
    counts = np.bincount(np.asarray(samples).ravel(), minlength=ITEMS + 1)[1:]
    possible = shares > 0
    return (
        not counts[~possible].any()
        and stats.chisquare(counts[possible], shares[possible] * counts.sum()).pvalue > FALSE_ALARM
    )


def test_every_name_that_settings_allow_is_registered():
    assert set(NEGATIVES) == {
        "resample", "uncorrected", "gtop", "gtoprand", "ltop", "ltoprand", "uniform", "popularity", "dns", "in-batch"
    }  # fmt: skip
    assert set(DISTILLATION) == {"resample", "rand", "top", "toprand"}
    assert {*NEGATIVES, *DISTILLATION} > GLOBAL


@pytest.mark.parametrize(("name", "registry"), [("gtop", NEGATIVES), ("top", DISTILLATION)])
def test_global_top_is_the_l_best_of_all(name, registry):
    drawn, *_ = drawn_by(name, registry)
    assert (drawn.samples.numpy() == ORDER[:L]).all()
    assert not drawn.sample_log_q.numpy().any()
    assert not drawn.target_log_q.numpy().any()


@pytest.mark.parametrize(("name", "registry"), [("gtoprand", NEGATIVES), ("toprand", DISTILLATION)])
def test_global_top_random_is_uniform_over_the_best_of_all(name, registry):
    drawn, *_ = drawn_by(name, registry)
    shares = np.where(np.isin(np.arange(1, ITEMS + 1), ORDER[:5]), 1 / 5, 0)
    assert is_drawn_from(drawn.samples, shares)
    assert not is_drawn_from(drawn.samples, np.full(ITEMS, 1 / ITEMS))
    assert not drawn.sample_log_q.numpy().any()


def test_local_top_is_the_l_best_of_each_pool():
    drawn, resampled, _ = drawn_by("ltop")
    for row in range(50):
        assert sorted(M[drawn.samples[row] - 1]) == sorted(M[resampled.pool.items[row] - 1])[-L:]


def test_local_top_random_is_uniform_over_the_best_of_each_pool():
    drawn, resampled, _ = drawn_by("ltoprand")
    places = np.argsort(-M[resampled.pool.items.numpy() - 1], axis=1, kind="stable")[:, :3]
    best = np.take_along_axis(resampled.pool.items.numpy(), places, axis=1)
    assert all(set(drawn.samples.numpy()[row]) <= set(best[row]) for row in range(ROWS))
    expected = np.bincount(best.ravel(), minlength=ITEMS + 1)[1:] / best.size
    assert is_drawn_from(drawn.samples, expected)


@pytest.mark.parametrize("name", sorted(set(NEGATIVES) - {"resample"}))
def test_where_hits_are_removed_no_draw_that_is_the_target_counts(name):
    """Whatever draws them: of the others nothing changes, and by the other corrections all of them count."""
    for correction in ("hits-removed", "item"):
        drawn, _, target = drawn_by(name, {name: lambda source: negatives_of(name, source)}, correction=correction)
        hits = drawn.samples.numpy() == target[:, None]
        assert hits.any() or (name == "uncorrected" and correction == "hits-removed")  # whose draws have none
        removed = drawn.sample_log_q.numpy() == np.float32(NEVER)
        np.testing.assert_array_equal(removed, hits if correction == "hits-removed" else False)


def test_dynamic_negatives_are_those_of_the_pool_that_the_ranker_scores_highest():
    drawn, resampled, _ = drawn_by("dns")
    for row in range(50):
        assert sorted(R[drawn.samples[row] - 1]) == sorted(R[resampled.pool.items[row] - 1])[-L:]


@pytest.mark.parametrize("wrong", [{"negatives": "dns", "samples": ITEMS}, {"negatives": "ltoprand", "local_top": 50}])
def test_of_all_items_no_more_are_taken_than_there_are(wrong):
    with pytest.raises(
        InputError, match=r"sampler.negatives: \w+ takes \d+ items beside the target, of 12 in all; lower"
    ):
        Sampler(SamplerSettings(pool="all", **wrong), COUNTS, Scored(), seed=1)


@pytest.mark.parametrize(("name", "registry"), [("uniform", NEGATIVES), ("rand", DISTILLATION)])
def test_uniform(name, registry):
    drawn, *_ = drawn_by(name, registry, proposal="popularity")
    assert is_drawn_from(drawn.samples, np.full(ITEMS, 1 / ITEMS))
    np.testing.assert_allclose(drawn.sample_log_q, -np.log(ITEMS), rtol=1e-6)


def test_popularity_is_corrected_for_what_it_draws():
    drawn, _, target = drawn_by("popularity", alpha=0.5)
    weights = np.maximum(COUNTS, 1) ** 0.5
    shares = weights / weights.sum()
    assert is_drawn_from(drawn.samples, shares)
    np.testing.assert_allclose(drawn.sample_log_q, np.log(shares)[drawn.samples.numpy() - 1], rtol=1e-5)
    np.testing.assert_allclose(drawn.target_log_q, np.log(shares)[target - 1], rtol=1e-5)


def test_in_batch_draws_targets_of_other_rows_and_corrects_for_popularity():
    drawn, _, target = drawn_by("in-batch", alpha=0.5)  # which says how pools are drawn, not how targets come
    assert is_drawn_from(drawn.samples, np.bincount(target, minlength=ITEMS + 1)[1:] / ROWS)
    shares = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
    np.testing.assert_allclose(drawn.sample_log_q, np.log(shares)[drawn.samples.numpy() - 1], rtol=1e-5)
    np.testing.assert_allclose(drawn.target_log_q, np.log(shares)[target - 1], rtol=1e-5)


@pytest.mark.parametrize("name", ["popularity", "in-batch", "uniform"])
def test_a_proposal_first_needed_within_a_graph_serves_other_graphs_too(name):
    sampler = Sampler(SamplerSettings(samples=3), COUNTS, Scored(), seed=4)
    draw = tf.function(
        lambda target: NEGATIVES[name](sampler.source(lambda: None, target, lambda: None, lambda _: None)).samples
    )
    for rows in (5, 7, 9):
        assert draw(tf.ones([rows], tf.int32)).shape == (rows, 3)


def test_in_batch_never_draws_a_rows_own_target_where_all_differ():
    target = tf.range(1, ITEMS + 1)
    sampler = Sampler(SamplerSettings(samples=500), COUNTS, Scored(), seed=4)
    drawn = NEGATIVES["in-batch"](sampler.source(lambda: None, target, lambda: None, lambda _: None)).samples.numpy()
    for row in range(ITEMS):
        assert is_drawn_from(drawn[row], np.where(np.arange(ITEMS) == row, 0, 1 / (ITEMS - 1)))


@every_correction
def test_resample_is_the_two_steps(correction):
    drawn, resampled, target = drawn_by("resample", correction=correction)
    assert drawn is resampled.drawn
    shares = np.mean(
        [
            oracles.resampling_distribution(
                list(pool - 1), k - 1, M.astype(float), np.full(ITEMS, 1 / ITEMS), 1.0, correction
            )
            for pool, k in zip(resampled.pool.items.numpy(), target, strict=True)
        ],
        axis=0,
    )
    assert is_drawn_from(drawn.samples, shares)


@pytest.mark.parametrize("correction", ["hits-removed", "item"])
def test_of_a_pool_of_all_items_each_is_there_once_and_the_target_beside_them(correction):
    """So draws have the very shares of the softmax, over all items or over all but the target."""
    drawn, resampled, target = drawn_by("resample", pool="all", correction=correction)
    items = resampled.pool.items.numpy()
    for row in range(50):
        assert sorted(items[row]) == sorted({0, *range(1, ITEMS + 1)} - {target[row]})
    for k in (1, 2, 3):
        shares = oracles.softmax(M.astype(float))
        if correction == "hits-removed":
            shares = np.where(np.arange(1, ITEMS + 1) == k, 0, shares) / (1 - shares[k - 1])
        of_k = drawn.samples.numpy()[target == k]
        assert is_drawn_from(of_k, shares)
        of_target, of_samples = oracles.log_q(shares, k - 1, L, correction)
        np.testing.assert_allclose(drawn.target_log_q.numpy()[target == k], of_target, rtol=1e-4)
        np.testing.assert_allclose(drawn.sample_log_q.numpy()[target == k], of_samples[of_k - 1], rtol=1e-4)


@pytest.mark.parametrize("name", ["ltop", "ltoprand", "dns"])
def test_no_strategy_takes_the_place_of_the_target_in_a_pool_of_all_items(name):
    """It holds padding there, which a ranker may score above all items."""
    drawn, _, target = drawn_by(name, pool="all", samples=ITEMS - 1, local_top=ITEMS - 1)
    samples = drawn.samples.numpy()
    assert samples.min() > 0
    assert not (samples == target[:, None]).any()


def test_what_is_said_to_be_uncorrected_has_no_log_q_and_all_else_has():
    assert {name for name in NEGATIVES if not drawn_by(name)[0].sample_log_q.numpy().any()} == UNCORRECTED


def test_uncorrected_are_the_resampled_without_their_log_q():
    drawn, resampled, _ = drawn_by("uncorrected")
    assert (drawn.samples.numpy() == resampled.drawn.samples.numpy()).all()
    assert resampled.drawn.sample_log_q.numpy().all()
    assert not drawn.sample_log_q.numpy().any()
    assert not drawn.target_log_q.numpy().any()


def test_an_index_answers_by_the_vectors_of_its_last_refresh(monkeypatch):
    vectors = {"now": np.eye(5, dtype=np.float32)}
    index = SnapshotIndex(lambda: tf.constant(vectors["now"]))
    query = tf.constant([[0.0, 0.1, 0.2, 0.3, 0.4]])
    assert index.best(query, 3).numpy().tolist() == [[5, 4, 3]]
    vectors["now"] = vectors["now"][::-1].copy()
    assert index.best(query, 3).numpy().tolist() == [[5, 4, 3]]
    assert index.refresh() is False
    assert index.best(query, 3).numpy().tolist() == [[1, 2, 3]]
    assert index.best(query, 50).shape == (1, 5)
    monkeypatch.setattr("tfcorr.evaluation.index.SMALL", 1)  # then ScaNN searches, whose graph holds the vectors
    rng = np.random.default_rng(0)
    vectors["now"] = rng.normal(size=(400, 8)).astype(np.float32)
    index = SnapshotIndex(lambda: tf.constant(vectors["now"]))
    found = index.best(tf.constant(vectors["now"][:3]), 300).numpy()
    assert found.min() > 0  # where ScaNN filled a place with nothing, the best item stands again
    assert index.refresh() is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": "ltop", "pool": 10, "samples": 20}, "negatives: ltop takes 20 samples from a pool of 10"),
        ({"negatives": "ltoprand", "pool": 10, "samples": 5}, r"local_top \(50\) is more than the pool \(10\)"),
        ({"negatives": "hard"}, "Input should be 'resample', 'uncorrected', 'gtop'"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SamplerSettings.parse(settings)
