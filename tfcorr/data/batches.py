"""From Histories to the tensors that towers see: windows gathered in graph, one gather a batch."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.histories import Histories, Split

SORTED = 64  # training batches whose examples are sorted by length together
Context = dict[str, tf.Tensor]


class EvaluationBatch(NamedTuple):
    """`context["history"]` [B, M] int32; `target` [B] int32; `seen` [B, W] int32, all earlier items, 0-padded."""

    context: Context
    target: tf.Tensor
    seen: tf.Tensor


def windows(items: tf.Tensor, starts: tf.Tensor, places: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """The `length` items before each place, not reaching back before its start: [B, length], oldest first, 0-padded left."""
    reach = places[:, None] + tf.range(-tf.cast(length, places.dtype), 0)  # [B, M]
    return tf.where(reach >= starts[:, None], tf.gather(items, tf.maximum(reach, 0)), 0)


def training_batches(histories: Histories, length: int, batch_size: int, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """An endless stream of (context, target) from `first_epoch` on; an epoch has `steps_per_epoch` batches.

    Every epoch visits every training target once, in an order that depends on `seed` and the epoch's number alone. Of each
    `SORTED` batches the examples are sorted by the length of their history and the batches shuffled again, and a batch is as
    wide as its longest history, so that little padding is computed.
    """
    places = histories.targets("train")
    starts = histories.starts(places)
    lengths = tf.constant(np.minimum(places - starts, length).astype(np.int32))
    count, steps = len(places), steps_per_epoch(histories, batch_size)
    items, all_starts, all_places = tf.constant(histories.items), tf.constant(starts), tf.constant(places)

    def sorted_batches(epoch: tf.Tensor, first_step: tf.Tensor) -> tf.data.Dataset:
        """The numbers of the examples of up to SORTED batches."""
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        numbers = tf.range(first_step * batch_size, tf.minimum((first_step + SORTED) * batch_size, count))
        shuffled = tf.random.experimental.index_shuffle(numbers, key, tf.constant(count - 1, tf.int64))
        ordered = tf.gather(shuffled, tf.argsort(tf.gather(lengths, shuffled), stable=True))
        here = tf.minimum(tf.constant(SORTED, tf.int64), steps - first_step)

        def one(step: tf.Tensor) -> tf.Tensor:
            place = tf.random.experimental.index_shuffle(step, key + first_step, here - 1)
            return ordered[place * batch_size : (place + 1) * batch_size]

        return tf.data.Dataset.range(here).map(one)

    def batch(numbers: tf.Tensor) -> tuple[Context, tf.Tensor]:
        place = tf.gather(all_places, numbers)
        width = tf.reduce_max(tf.gather(lengths, numbers))
        return {"history": windows(items, tf.gather(all_starts, numbers), place, width)}, tf.gather(items, place)

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    firsts = epochs.flat_map(lambda epoch: tf.data.Dataset.range(0, steps, SORTED).map(lambda step: (epoch, step)))
    return firsts.flat_map(sorted_batches).map(batch).prefetch(4)


def steps_per_epoch(histories: Histories, batch_size: int) -> int:
    """Batches an epoch, the last of which may be smaller."""
    return -(-len(histories.targets("train")) // batch_size)


def evaluation_batches(histories: Histories, split: Split, length: int, batch_size: int) -> tf.data.Dataset:
    """One pass over a split's targets, in their order, as EvaluationBatch."""
    places = histories.targets(split)
    items = tf.constant(histories.items)

    def batch(place: tf.Tensor, start: tf.Tensor) -> EvaluationBatch:
        seen = windows(items, start, place, tf.reduce_max(place - start))
        return EvaluationBatch({"history": windows(items, start, place, length)}, tf.gather(items, place), seen)

    return tf.data.Dataset.from_tensor_slices((places, histories.starts(places))).batch(batch_size).map(batch).prefetch(2)
