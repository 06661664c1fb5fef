"""In which order training visits its units, and how their batches are divided among replicas, as tf.data streams.

A unit is a run of consecutive targets of one user, given by the number of its first target and a size to sort by; a
batch of units is (firsts [U] int64, sizes [U] int64).
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

SORTED = 64  # batches of which the units are sorted by size together
Units = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def shuffled_batches(units: Units, steps: int, seed: int, first_epoch: int | tf.Tensor) -> tf.data.Dataset:
    """An endless stream of batches: `units` of each epoch once, in `steps` batches whose numbers of units differ by one
    at most.

    The order depends on `seed` and the epoch's number alone. Of each SORTED batches the units are sorted by size, and
    the batches shuffled again.
    """

    def sorted_batches(epoch: tf.Tensor, first_step: tf.Tensor, firsts: tf.Tensor, sizes: tf.Tensor) -> tf.data.Dataset:
        key, count = tf.stack([tf.constant(seed, tf.int64), epoch]), tf.size(sizes, tf.int64)
        last_step = tf.minimum(first_step + SORTED, steps)
        begin, end = first_step * count // steps, last_step * count // steps
        shuffled = tf.random.experimental.index_shuffle(tf.range(begin, end), key, count - 1)
        ordered = tf.gather(shuffled, tf.argsort(tf.gather(sizes, shuffled), stable=True))

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step = first_step + tf.random.experimental.index_shuffle(step, key + first_step, last_step - first_step - 1)
            chosen = ordered[step * count // steps - begin : (step + 1) * count // steps - begin]
            return tf.gather(firsts, chosen), tf.gather(sizes, chosen)

        return tf.data.Dataset.range(last_step - first_step).map(batch)

    def epoch_of_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        found = units(epoch)
        return tf.data.Dataset.range(0, steps, SORTED).flat_map(
            lambda first_step: sorted_batches(epoch, first_step, *found)
        )

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_of_batches)


def parts_of_replicas(batches: tf.data.Dataset, inputs: tf.distribute.InputContext) -> tf.data.Dataset:
    """Every batch divided among all replicas: the parts of those that this input pipeline feeds, one after another."""
    replicas = inputs.num_replicas_in_sync
    fed = replicas // inputs.num_input_pipelines
    first = inputs.input_pipeline_id * fed

    def parts(firsts: tf.Tensor, sizes: tf.Tensor) -> tf.data.Dataset:
        count = tf.size(firsts, tf.int64)

        def part(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            own = slice(replica * count // replicas, (replica + 1) * count // replicas)
            return firsts[own], sizes[own]

        return tf.data.Dataset.range(first, first + fed).map(part)

    return batches if replicas == 1 else batches.flat_map(parts)


def runs_of_targets(counts: tf.Tensor, length: int, seed: int, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts every user's targets, counts [users] int64 of them, into runs of `length`: units whose size is the run's.

    Each epoch cuts elsewhere, so that a target comes to stand at every place of a run.
    """
    offset = tf.random.stateless_uniform([], tf.stack([tf.constant(seed, tf.int64), epoch]), 0, length, tf.int64)
    runs = (counts - 1 + offset) // length + 1
    of_user = tf.repeat(tf.range(tf.size(counts)), runs)
    run = tf.range(tf.size(of_user, tf.int64)) - tf.gather(tf.cumsum(runs, exclusive=True), of_user)
    first = tf.maximum(run * length - offset, 0)
    end = tf.minimum((run + 1) * length - offset, tf.gather(counts, of_user))
    return tf.gather(tf.cumsum(counts, exclusive=True), of_user) + first, end - first
