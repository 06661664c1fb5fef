import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfcorr.cooperation.optimisers import LazyAdam, OptimiserSettings, Schedule


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_dense_variables_follow_adam_with_decoupled_decay(decay):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), list(rng.normal(size=(7, 5)))
    variable = tf.Variable(start, dtype=tf.float32)
    optimiser = LazyAdam(0.01, decay)
    for gradient in gradients:
        optimiser.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    np.testing.assert_allclose(variable, oracles.adam(start, gradients, 0.01, decay), rtol=1e-4)


@pytest.mark.parametrize(("warm_up", "risen"), [(0.0, 1.0), (0.75, np.minimum(np.arange(1, 7) / 3, 1))])
def test_a_rate_that_rises_and_decays_is_followed(warm_up, risen):
    """Over epochs of four steps it is multiplied by 0.5 in each; a constant gradient moves a value by the rate in every
    step of Adam."""
    rate = Schedule(OptimiserSettings(learning_rate=0.1, decay=0.5, warm_up=warm_up), steps=4)
    optimiser, variable, moved = LazyAdam(rate), tf.Variable(0.0), []
    for _ in range(6):
        before = float(variable)
        optimiser.apply_gradients([(tf.constant(1.0), variable)])
        moved.append(before - float(variable))
    np.testing.assert_allclose(moved, 0.1 * risen * 0.5 ** (np.arange(6) / 4), rtol=1e-3)


def test_a_table_changes_only_in_the_rows_used_and_each_row_once():
    """Rows named twice add up their gradients; rows not named keep value and moments, decay included."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=(6, 3))
    table = tf.Variable(start, dtype=tf.float32)
    optimiser = LazyAdam(0.01, 0.1)
    first, second = rng.normal(size=(2, 3, 3))
    optimiser.apply_gradients(
        [(tf.IndexedSlices(tf.constant(first, tf.float32), tf.constant([4, 1, 4]), [6, 3]), table)]
    )
    optimiser.apply_gradients(
        [(tf.IndexedSlices(tf.constant(second[:1], tf.float32), tf.constant([4]), [6, 3]), table)]
    )
    untouched = [0, 2, 3, 5]
    np.testing.assert_array_equal(table.numpy()[untouched], start.astype(np.float32)[untouched])
    np.testing.assert_allclose(table[4], oracles.adam(start[4], [first[0] + first[2], second[0]], 0.01, 0.1), rtol=1e-4)
    np.testing.assert_allclose(table[1], oracles.adam(start[1], [first[1]], 0.01, 0.1), rtol=1e-4)
