import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.cooperation.test_corr import ITEMS, LENGTH, RECENT, batch, values
from tests.towers.test_contract import adam, build
from tfcorr.cooperation.adversarial import Adversarial
from tfcorr.cooperation.losses import policy_gradient
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings


def test_policy_gradient_is_the_gradient_of_the_expected_reward():
    """The mean over draws from softmax(V) tends to −∇ Σ p(s) r(s), as NumPy finds it; 6 standard errors are allowed."""
    rng = np.random.default_rng(0)
    scores, rewards = rng.normal(size=5), rng.uniform(size=5)
    p = oracles.softmax(scores)
    exact = -p * (rewards - p @ rewards)
    drawn = rng.choice(5, size=(200_000, 4), p=p)
    values = tf.Variable(scores, dtype=tf.float32)
    with tf.GradientTape() as tape:
        losses = policy_gradient(tf.gather(tf.constant(rewards, tf.float32), drawn), tf.gather(values, drawn))
        mean = tf.reduce_mean(losses)
    found = tf.convert_to_tensor(tape.gradient(mean, values)).numpy()
    np.testing.assert_allclose(found, exact, atol=6 * 0.5 / np.sqrt(200_000 * 3))
    assert np.abs(exact).max() > 0.02


def adversarial(loss="softmax", weight=1.0):
    tf.keras.utils.set_random_seed(0)
    retriever = build("sasrec", {"dim": 8, "dropout": 0.0}, ITEMS, LENGTH)
    ranker = build("din", {**RECENT, "dropout": 0.0}, ITEMS, LENGTH)
    sampler = Sampler(
        SamplerSettings(pool=8, pool_scope="example", samples=5), np.ones(ITEMS, np.int64), retriever, seed=5
    )
    model = Adversarial(retriever, ranker, sampler, loss, weight)
    model.compile(optimizer={"retriever": adam(retriever), "ranker": adam(ranker)})
    return model


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_the_generators_reward_never_moves_the_discriminator(loss):
    playing, not_playing = adversarial(loss), adversarial(loss, weight=0.0)
    for model in (playing, not_playing):
        logs = model.train_step(batch())
        assert np.isfinite(float(logs["policy_loss"]))
    for one, other in zip(values(playing.ranker), values(not_playing.ranker), strict=True):
        np.testing.assert_array_equal(one, other)
    pairs = zip(values(playing.retriever), values(not_playing.retriever), strict=True)
    assert any(not np.allclose(one, other) for one, other in pairs)


def test_both_towers_learn_a_cyclic_catalogue():
    model = adversarial("bce")
    context, target = batch(2000)
    model.fit(
        tf.data.Dataset.from_tensor_slices((context, target)).shuffle(2000, seed=1).batch(100), epochs=5, verbose=0
    )
    context, target = batch(200, seed=9)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (200, 1))
    for tower in (model.retriever, model.ranker):
        assert np.mean(np.argmax(tower.score(context, ids), axis=1) + 1 == target.numpy()) > 0.9
