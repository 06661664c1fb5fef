"""Dropout."""

import numpy as np
import pytest
import tensorflow as tf

from tfcorr.towers.layers import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.75])
def test_dropout_drops_its_rate_and_scales_the_rest(rate):
    """z = 5 standard errors of a share of 100,003 draws: fails a right one once in 1.7 million runs."""
    tf.keras.utils.set_random_seed(1)
    dropped = Dropout(rate)(tf.fill([1, 100_003], 2.0), training=True).numpy()
    assert abs(np.mean(dropped == 0) - rate) < 5 * np.sqrt(rate * (1 - rate) / dropped.size)
    np.testing.assert_allclose(dropped[dropped > 0], 2 / (1 - rate), rtol=1e-4)


def test_dropout_drops_each_value_independently_of_the_next():
    """Neighbours share a random word: the four outcomes of 100,000 pairs fit independence (chi-square 3 d.f., p =
    1e-6)."""
    tf.keras.utils.set_random_seed(1)
    pairs = (Dropout(0.5)(tf.ones([100_000, 2]), training=True).numpy() > 0) @ [1, 2]
    counts = np.bincount(pairs, minlength=4)
    assert np.sum((counts - 25_000) ** 2 / 25_000) < 30.7


def test_dropout_draws_anew_at_each_call_and_is_nothing_outside_training():
    tf.keras.utils.set_random_seed(1)
    dropout, ones = Dropout(0.5), tf.ones([3, 50])
    assert (dropout(ones, training=True).numpy() != dropout(ones, training=True).numpy()).any()
    np.testing.assert_array_equal(dropout(ones), ones)
    assert dropout(ones[:0], training=True).shape == (0, 50)
