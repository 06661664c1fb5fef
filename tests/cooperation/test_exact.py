"""A pool of all items: the exact softmax, and draws from it."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests import oracles
from tfcorr.cooperation.losses import NEVER, full_log_softmax, sampled_log_softmax
from tfcorr.cooperation.sampling import pool_of_all, resample_all

ITEMS, TARGET = 8, 3
FALSE_ALARM = 1e-4
SCORES = np.random.default_rng(2).normal(size=ITEMS) * 1.5


def draws(correction, rows=20_000, samples=2, temperature=1.0):
    scores, target = tf.constant(np.tile(SCORES, (rows, 1)), tf.float32), tf.fill([rows], TARGET)
    return resample_all(scores, target, samples, temperature, correction, tf.random.Generator.from_seed(9))


def test_the_exact_loss_is_the_oracles():
    loss = full_log_softmax(tf.constant([SCORES[TARGET - 1]], tf.float32), tf.constant(SCORES[None], tf.float32))
    np.testing.assert_allclose(loss, -np.log(oracles.softmax(SCORES)[TARGET - 1]), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("correction", ["hits-removed", "item"])
def test_draws_are_from_the_softmax_itself_and_log_q_is_its_logarithm(correction, temperature):
    found = draws(correction, temperature=temperature)
    weights = np.exp(SCORES / temperature)
    if correction == "hits-removed":
        weights[TARGET - 1] = 0
    q = weights / weights.sum()
    counts = np.bincount(found.drawn.samples.numpy().ravel() - 1, minlength=ITEMS)
    assert stats.chisquare(counts[q > 0], q[q > 0] * counts.sum()).pvalue > FALSE_ALARM
    assert (counts[q == 0] == 0).all()
    others = found.drawn.samples.numpy() != TARGET
    np.testing.assert_allclose(
        found.drawn.sample_log_q.numpy()[others], np.log(q[found.drawn.samples.numpy()[others] - 1]), atol=1e-5
    )
    of_target = np.log(q[TARGET - 1] + 1 / 2)  # it has one position more than its draws in {k} ∪ S
    np.testing.assert_allclose(found.drawn.target_log_q, of_target, atol=1e-5)
    np.testing.assert_allclose(found.drawn.sample_log_q.numpy()[~others], of_target, atol=1e-5)
    np.testing.assert_allclose(found.effective_size, 1 / np.sum(q**2), rtol=1e-4)
    np.testing.assert_array_equal(found.places, np.where(others, found.drawn.samples, 0))


@pytest.mark.parametrize("correction", ["hits-removed", "item"])
def test_the_sampled_loss_of_other_scores_tends_to_the_exact_one(correction):
    """But, where the target is drawn too, for the logarithm of its 1 + L Q positions, of which the numerator is one."""
    others = np.random.default_rng(3).normal(size=ITEMS)
    found = draws(correction, rows=50, samples=4_000)
    ranked = tf.gather(tf.constant([0.0, *others], tf.float32), found.drawn.samples)
    target = tf.fill([50], tf.constant(others[TARGET - 1], tf.float32))
    loss = np.mean(sampled_log_softmax(target, ranked, *found.drawn.log_q))
    positions = 1 + (4_000 * oracles.softmax(SCORES)[TARGET - 1] if correction == "item" else 0)
    assert loss == pytest.approx(-np.log(oracles.softmax(others)[TARGET - 1] / positions), abs=0.02)


def test_the_pool_of_all_holds_every_item_once_and_the_target_not_at_all():
    pool, target_score, scores = pool_of_all(tf.constant(SCORES[None], tf.float32), tf.constant([TARGET]))
    np.testing.assert_allclose(target_score, SCORES[TARGET - 1 : TARGET], rtol=1e-6)
    expected = np.arange(1, ITEMS + 1)
    expected[TARGET - 1] = 0
    np.testing.assert_array_equal(pool.items[0], expected)
    assert scores[0, TARGET - 1] == np.float32(-NEVER)
    np.testing.assert_allclose(np.delete(scores[0], TARGET - 1), np.delete(SCORES, TARGET - 1), rtol=1e-6)
