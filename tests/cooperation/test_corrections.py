"""The corrections of what is drawn, against the softmax over all items of a catalogue of a realistic size."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfcorr.cooperation.losses import NEVER, sampled_kl, sampled_log_softmax
from tfcorr.cooperation.proposals import Uniform, Weighted
from tfcorr.cooperation.sampling import Drawn, Pool, resample

ITEMS, ROWS = 12_000, 4_000
TARGET = 17  # an item number


def scores(seed, share):
    """Scores of the items 1 to N whose softmax gives the target its share."""
    found = np.random.default_rng(seed).normal(size=ITEMS)
    others = np.log(np.exp(np.delete(found, TARGET - 1)).sum())
    found[TARGET - 1] = others + np.log(share / (1 - share))
    return found


def of_items(values, ids):
    return tf.gather(tf.concat([[0.0], tf.cast(values, tf.float32)], 0), ids)


def draw(correction, retrieved, size, samples, popular=False, rows=ROWS, seed=5):
    generator = tf.random.Generator.from_seed(seed)
    weights = 1 / np.arange(1, ITEMS + 1) ** 0.7
    proposal = Weighted(weights) if popular else Uniform(ITEMS)
    ids, target = proposal.draw([rows, size], generator), tf.fill([rows], TARGET)
    log_size = float(np.log(size))
    pool = Pool(ids, proposal.log_prob(ids) + log_size, proposal.log_prob(target) + log_size)
    of_places = of_items(retrieved, tf.concat([target[:, None], ids], axis=1))
    return resample(pool, target, of_places, samples, 1.0, correction, generator).drawn


def gradient_at_target(drawn, ranked):
    """Of equation 1 at R(k), the mean over draws: each copy of the target counts."""
    target = tf.Variable(float(ranked[TARGET - 1]))
    with tf.GradientTape() as tape:
        negatives = tf.where(drawn.samples == TARGET, target, of_items(ranked, drawn.samples))
        rows = tf.fill(tf.shape(drawn.samples)[:1], 1.0) * target
        loss = tf.reduce_mean(sampled_log_softmax(rows, negatives, *drawn.log_q))
    return float(tape.gradient(loss, target))


@pytest.mark.parametrize(
    ("correction", "low", "high"), [("hits-removed", -0.99, -0.9), ("item", -0.96, -0.88), ("paper", -0.25, -0.05)]
)
def test_gradient_at_the_target_is_that_of_the_full_softmax_but_for_the_papers(correction, low, high):
    """Full: R's share of the target less 1, −0.947. The standard error of each mean here is below 0.005."""
    ranked = scores(1, 0.053)
    assert oracles.softmax(ranked)[TARGET - 1] - 1 == pytest.approx(-0.947)
    found = gradient_at_target(draw(correction, scores(0, 0.02), size=100, samples=20), ranked)
    assert low < found < high


@pytest.mark.parametrize("popular", [False, True])
@pytest.mark.parametrize(("correction", "most"), [("hits-removed", 0.08), ("item", 0.08), ("paper", None)])
def test_gradient_tends_to_the_full_softmaxs_as_pool_and_samples_grow(correction, most, popular):
    """Summed over groups of items, as 12,000 gradients of their own would be noise. The paper's is still away at n =
    4,000."""
    retrieved, ranked = scores(0, 0.02), scores(1, 0.3)
    groups = np.arange(ITEMS) % 50 + 1
    groups[TARGET - 1] = 0
    full = oracles.softmax(ranked)
    full[TARGET - 1] -= 1
    expected = np.bincount(groups, full, 51)

    def error(size, samples, rows):
        drawn = draw(correction, retrieved, size, samples, popular, rows)
        shares = tf.nn.softmax(
            tf.concat(
                [
                    tf.fill([rows, 1], float(ranked[TARGET - 1])) - drawn.target_log_q[:, None],
                    of_items(ranked, drawn.samples) - drawn.sample_log_q,
                ],
                1,
            )
        ).numpy()
        of = np.concatenate([np.full((rows, 1), TARGET), drawn.samples.numpy()], axis=1)
        found = np.bincount(groups[of - 1].ravel(), shares.ravel() / rows, 51)
        found[0] -= 1
        return np.abs(found - expected).sum() / np.abs(expected).sum()

    small, large = error(50, 20, 1_000), error(4_000, 500, 100)
    if most is None:
        assert large > 0.1
        return
    assert large < most
    assert large < small


def test_the_share_of_targets_among_the_samples():
    """Where the retriever is sure of the target the paper's draws are nearly all the target, and those with hits
    removed never."""
    sure = scores(0, 0.6)
    assert np.mean(draw("paper", sure, 100, 20).samples == TARGET) > 0.9
    assert np.mean(draw("item", sure, 100, 20).samples == TARGET) == pytest.approx(0.6, abs=0.1)
    assert not np.any(draw("hits-removed", sure, 100, 20).samples == TARGET)


def test_the_sampled_kl_tends_to_the_full_one_with_hits_removed():
    """Over all items but the target, which is no sample then; 0.02 is ten standard errors."""
    retrieved, ranked = scores(0, 0.02), scores(1, 0.3)
    drawn = draw("hits-removed", retrieved, 4_000, 1_000, rows=200)
    found = np.mean(sampled_kl(of_items(ranked, drawn.samples), of_items(retrieved, drawn.samples), drawn.sample_log_q))
    p, q = (oracles.softmax(np.delete(each, TARGET - 1)) for each in (ranked, retrieved))
    assert found == pytest.approx(oracles.kl(p, q), abs=0.1)


def test_a_pool_that_holds_the_target_alone_counts_for_nothing():
    pool = Pool(tf.fill([2, 3], TARGET), tf.zeros([2, 3]), tf.zeros([2]))
    target = tf.fill([2], TARGET)
    drawn = resample(pool, target, tf.zeros([2, 4]), 5, 1.0, "hits-removed", tf.random.Generator.from_seed(1)).drawn
    ranked = tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        given = tf.fill([2, 5], 1.0) * ranked
        loss = sampled_log_softmax(given[:, 0], given, *drawn.log_q)
        kl = sampled_kl(given, given * 0.5, drawn.sample_log_q)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_allclose(kl, 0, atol=1e-6)
    assert float(tape.gradient(loss, ranked)) == 0
    assert np.all(drawn.sample_log_q == np.float32(NEVER))


@pytest.mark.parametrize("correction", ["hits-removed", "item"])
def test_what_is_subtracted_in_a_pool_is_the_positions_that_an_item_can_expect(correction):
    """In {k} ∪ C the others have n Y each; the target the 1 that it is put in with, and n Y more where its hits count
    too."""
    counts = np.log([0.5, 0.25, 2.0])
    pool = Pool(
        tf.constant([[3, TARGET, 9]]), tf.constant(counts[None], tf.float32), tf.constant([counts[1]], tf.float32)
    )
    found = pool.corrected(tf.constant([TARGET]), correction)
    assert isinstance(found, Drawn)
    of_target = 0.0 if correction == "hits-removed" else np.log(1.25)
    np.testing.assert_allclose(found.target_log_q, [of_target], atol=1e-6)
    hit = NEVER if correction == "hits-removed" else of_target
    np.testing.assert_allclose(found.sample_log_q, [[counts[0], hit, counts[2]]], rtol=1e-6)
