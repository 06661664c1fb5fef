"""From Histories to the tensors that towers see: windows gathered in graph, one gather a batch."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.features import Feature
from tfcorr.data.histories import Histories, Split
from tfcorr.data.order import parts_of_replicas, runs_of_targets, shuffled_batches

Context = dict[str, tf.Tensor]
Examples = Literal["prefix", "window"]


class EvaluationBatch(NamedTuple):
    """`context` with "history" [B, M], "user" [B] and features, `target` [B], and `seen` [B, W], all earlier items,
    0-padded.

    `row` [B] int64 is the place of each in the split's order.
    """

    context: Context
    target: tf.Tensor
    seen: tf.Tensor
    row: tf.Tensor


def windows(items: tf.Tensor, starts: tf.Tensor, places: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """The `length` items before each place, not reaching back before its start: [B, length], oldest first, 0-padded
    left.

    >>> items, starts, places = tf.constant([4, 5, 6, 7, 8]), tf.constant([0, 3]), tf.constant([2, 4])
    >>> windows(items, starts, places, length=3).numpy().tolist()
    [[0, 4, 5], [0, 0, 7]]
    """
    reach = places[:, None] + tf.range(-tf.cast(length, places.dtype), 0)  # [B, M]
    return tf.where(reach >= starts[:, None], tf.gather(items, tf.maximum(reach, 0)), 0)


def users_of(offsets: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """The number of each place's user, from 1: [B] int32."""
    return tf.searchsorted(offsets, places, side="right", out_type=tf.int32)


def features_at(features: Sequence[Feature]) -> Callable[[tf.Tensor, tf.Tensor], Context]:
    """A function of places [B] and their users' numbers [B] that gives the features of users and interactions, by name.

    A categorical one is [B, W] int32, of which 0 is none; a numeric one [B] float32.
    """
    values = {feature.name: (feature.of, tf.constant(feature.values)) for feature in features if feature.of != "item"}

    def gather(places: tf.Tensor, users: tf.Tensor) -> Context:
        return {name: tf.gather(table, users if of == "user" else places) for name, (of, table) in values.items()}

    return gather


def training_batches(
    histories: Histories,
    examples: Examples,
    length: int,
    batch_size: int,
    seed: int,
    first_epoch: int | tf.Tensor = 0,
    inputs: tf.distribute.InputContext | None = None,
    features: Sequence[Feature] = (),
) -> tf.data.Dataset:
    """An endless stream of (context, target [B] int32) from `first_epoch` on; an epoch has `steps_per_epoch` batches.

    context["user"] [B] is the number of each target's user, from 1; beside it stand the features. context["history"]
    [B, M] holds each target's own history: a batch is as wide as its longest, and batches have histories of like
    lengths, so that little padding is computed. With examples by `window`, context["window"] [W, M] also holds the
    histories of the last targets of W runs, and context["place"] [B] where in these the history of each target ends,
    counted row by row. A run is a quarter as long as a history, so that each of its targets has at least three quarters
    of what it would have by itself.

    Every epoch visits every training target once, in an order that depends on `seed` and the epoch's number alone.
    Where `inputs` tells of several replicas, the stream holds the parts of every batch that this input pipeline feeds.
    """
    places = histories.targets("train")
    starts, total = histories.starts(places), len(places)
    items, all_places, all_starts = tf.constant(histories.items), tf.constant(places), tf.constant(starts)
    offsets, features_of = tf.constant(histories.offsets), features_at(features)
    lengths, counts = tf.constant(np.minimum(places - starts, length)), tf.constant(histories.training_counts)

    def units(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if examples == "window":
            return runs_of_targets(counts, run_length(length), seed, epoch)
        return tf.range(total, dtype=tf.int64), lengths  # each target by itself, sorted by its history

    def history(targets: tf.Tensor) -> tf.Tensor:
        width = tf.reduce_max(tf.concat([[1], tf.gather(lengths, targets)], 0))
        return windows(items, tf.gather(all_starts, targets), tf.gather(all_places, targets), width)

    def batch(firsts: tf.Tensor, sizes: tf.Tensor) -> tuple[Context, tf.Tensor]:
        context: Context = {}
        if examples == "window":
            last = firsts + sizes - 1
            context["window"] = history(last)
            width = tf.shape(context["window"], tf.int64)[1]
            columns = tf.range(width)
            is_read = columns >= width - sizes[:, None]  # [W, M]
            context["place"] = tf.where(tf.reshape(is_read, [-1]))[:, 0]
            firsts = tf.boolean_mask((last - width + 1)[:, None] + columns, is_read)
        place = tf.gather(all_places, firsts)
        context["history"] = history(firsts)
        context["user"] = users_of(offsets, place)
        return context | features_of(place, context["user"]), tf.gather(items, place)

    stream = shuffled_batches(units, steps_per_epoch(histories, examples, length, batch_size), seed, first_epoch)
    return parts_of_replicas(stream, inputs or tf.distribute.InputContext()).map(batch).prefetch(4)


def steps_per_epoch(histories: Histories, examples: Examples, length: int, batch_size: int) -> int:
    """Batches an epoch, such that one holds about `batch_size` targets; by windows, at least one window."""
    counts = histories.training_counts
    steps = -(-counts.sum() // batch_size)
    return int(steps if examples == "prefix" else min(steps, np.sum(-(-counts // run_length(length)))))


def run_length(length: int) -> int:
    """How many targets a window of so many items trains."""
    return (length + 3) // 4


def evaluation_batches(
    histories: Histories,
    split: Split,
    length: int,
    batch_size: int,
    features: Sequence[Feature] = (),
    limit: int | None = None,
) -> tf.data.Dataset:
    """One pass over a split's targets, or over `limit` of them that lie evenly apart, as EvaluationBatch.

    Histories of like lengths come together, the shortest first, so that little padding is computed; each batch is as
    wide as its longest.
    """
    places = histories.targets(split)
    rows = np.arange(len(places)) if limit is None or limit >= len(places) else np.arange(limit) * len(places) // limit
    before = (places - histories.starts(places))[rows]
    rows = rows[np.argsort(np.minimum(before, length), kind="stable")]
    items, offsets, features_of = tf.constant(histories.items), tf.constant(histories.offsets), features_at(features)

    def batch(row: tf.Tensor, place: tf.Tensor, start: tf.Tensor) -> EvaluationBatch:
        longest = tf.reduce_max(place - start)
        seen = windows(items, start, place, longest)
        users = users_of(offsets, place)
        history = seen[:, tf.maximum(longest - length, 0) :]
        return EvaluationBatch(
            {"history": history, "user": users, **features_of(place, users)}, tf.gather(items, place), seen, row
        )

    chosen = rows, places[rows], histories.starts(places[rows])
    return tf.data.Dataset.from_tensor_slices(chosen).batch(batch_size).map(batch).prefetch(2)
