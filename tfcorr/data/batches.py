"""From Histories to the tensors that towers see: windows gathered in graph, one gather a batch."""

from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.histories import Histories, Split
from tfcorr.data.order import parts_of_replicas, runs_of_targets, shuffled_batches

Context = dict[str, tf.Tensor]
Examples = Literal["prefix", "window"]


class EvaluationBatch(NamedTuple):
    """`context["history"]` [B, M] int32; `target` [B] int32; `seen` [B, W] int32, all earlier items, 0-padded."""

    context: Context
    target: tf.Tensor
    seen: tf.Tensor


def windows(items: tf.Tensor, starts: tf.Tensor, places: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """The `length` items before each place, not reaching back before its start: [B, length], oldest first, 0-padded left."""
    reach = places[:, None] + tf.range(-tf.cast(length, places.dtype), 0)  # [B, M]
    return tf.where(reach >= starts[:, None], tf.gather(items, tf.maximum(reach, 0)), 0)


def training_batches(
    histories: Histories,
    examples: Examples,
    length: int,
    batch_size: int,
    seed: int,
    first_epoch: int | tf.Tensor = 0,
    inputs: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """An endless stream of (context, target [B] int32) from `first_epoch` on; an epoch has `steps_per_epoch` batches.

    context["history"] [B, M] holds each target's own history; a batch is as wide as its longest, and batches have histories of
    like lengths, so that little padding is computed. With examples by `window`, context["window"] [W, M] also holds the inputs
    of W runs of targets, and context["place"] [B] where each target stands in it, counted row by row.

    Every epoch visits every training target once, in an order that depends on `seed` and the epoch's number alone. Where
    `inputs` tells of several replicas, the stream holds the parts of every batch that this input pipeline feeds.
    """
    places = histories.targets("train")
    starts, total = histories.starts(places), len(places)
    items, all_places, all_starts = tf.constant(histories.items), tf.constant(places), tf.constant(starts)
    lengths, counts = tf.constant(np.minimum(places - starts, length)), tf.constant(histories.training_counts)

    def units(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if examples == "window":
            return runs_of_targets(counts, length, seed, epoch)
        return tf.range(total, dtype=tf.int64), lengths  # each target by itself, sorted by its history

    def batch(firsts: tf.Tensor, sizes: tf.Tensor) -> tuple[Context, tf.Tensor]:
        context: Context = {}
        if examples == "window":
            inside = tf.sequence_mask(sizes)  # [W, M]
            numbers = firsts[:, None] + tf.range(tf.shape(inside, tf.int64)[1])
            before = tf.gather(items, tf.gather(all_places, tf.minimum(numbers, total - 1)) - 1)
            context = {"window": tf.where(inside, before, 0), "place": tf.where(tf.reshape(inside, [-1]))[:, 0]}
            firsts = tf.boolean_mask(numbers, inside)
        place, width = tf.gather(all_places, firsts), tf.reduce_max(tf.concat([[1], tf.gather(lengths, firsts)], 0))
        context["history"] = windows(items, tf.gather(all_starts, firsts), place, width)
        return context, tf.gather(items, place)

    stream = shuffled_batches(units, steps_per_epoch(histories, examples, length, batch_size), seed, first_epoch)
    return parts_of_replicas(stream, inputs or tf.distribute.InputContext()).map(batch).prefetch(4)


def steps_per_epoch(histories: Histories, examples: Examples, length: int, batch_size: int) -> int:
    """Batches an epoch, such that one holds about `batch_size` targets; by windows, at least one window."""
    counts = histories.training_counts
    steps = -(-counts.sum() // batch_size)
    return int(steps if examples == "prefix" else min(steps, np.sum(-(-counts // length))))


def evaluation_batches(histories: Histories, split: Split, length: int, batch_size: int) -> tf.data.Dataset:
    """One pass over a split's targets, in their order, as EvaluationBatch."""
    places = histories.targets(split)
    items = tf.constant(histories.items)

    def batch(place: tf.Tensor, start: tf.Tensor) -> EvaluationBatch:
        seen = windows(items, start, place, tf.reduce_max(place - start))
        return EvaluationBatch({"history": windows(items, start, place, length)}, tf.gather(items, place), seen)

    return tf.data.Dataset.from_tensor_slices((places, histories.starts(places))).batch(batch_size).map(batch).prefetch(2)
